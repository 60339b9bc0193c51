"""Everything after the journal: lanes claimed, writes coalesced, translated, sent, judged, recorded."""
