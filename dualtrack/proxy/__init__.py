"""The hot path: request in, answer out."""
