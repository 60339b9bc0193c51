"""Outbound adapters: how a backend is reached and signed in to. Past here nobody names aiohttp or azure types."""
