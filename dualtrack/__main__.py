"""`python -m dualtrack` is the `dualtrack` command."""

from dualtrack.cli import main

if __name__ == "__main__":
    main()
