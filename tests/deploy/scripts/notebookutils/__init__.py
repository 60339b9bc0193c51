"""What a Synapse session offers, as far as `dualtrack_session` uses it: tokens, from an emulated workspace."""

from notebookutils import mssparkutils

__all__ = ["mssparkutils"]
