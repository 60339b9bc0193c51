"""Two headers of downloads: which part of a file is asked for, and under which name it is to be kept. Pure."""

import re
import unicodedata
from urllib.parse import quote

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def requested_range(header: str, size: int | None) -> range | None:
    """Read a single byte range of a file of `size` bytes; None for everything else, which is answered whole.

    RFC 9110 section 14.2: a server may ignore a Range that it does not serve, such as one beyond the end.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or not size:
        return None
    first, last = found.groups()
    if first:
        span = range(int(first), min(int(last) + 1 if last else size, size))
    else:
        span = range(max(0, size - int(last or "0")), size)
    return span or None


def disposition(name: str) -> str:
    """`Content-Disposition` as MLflow's server spells it (mlflow 3.17.2, server/handlers.py)."""
    if name.isascii():
        return f"attachment; filename={_quoted(name)}"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() or "download"
    encoded = quote(name, safe="!#$&+-.^_`|~")
    return f"attachment; filename={_quoted(plain)}; filename*=UTF-8''{encoded}"


def _quoted(value: str) -> str:
    if re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", value, re.ASCII):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
