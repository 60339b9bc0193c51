"""The benchmark: `python -m bench`, or `make bench`. Not a test, and no part of the package."""
