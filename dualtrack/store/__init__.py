"""Durable adapters: the journal's database, and the spool of uploaded files."""
