"""What vendors' exceptions say, in one bounded line."""

_LONGEST = 600


def first_words(error: BaseException) -> str:
    """Answer what `error` says: its lines as one, cut where nobody reads on; its type when it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    words = "; ".join(line for line in lines if line) or type(error).__name__
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
