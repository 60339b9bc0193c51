"""Durable adapters: the journal's database, and later the artifact spool."""
