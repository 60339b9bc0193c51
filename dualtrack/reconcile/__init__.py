"""Reads both sides and decides what the journal should say; never writes to a backend."""
