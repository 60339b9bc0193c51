"""Files of runs and models: what a path of theirs may be, and how one is told. Pure.

A path travels as the client wrote it, but names what MLflow's server makes of it: decoded until decoding changes
nothing more (`_decode` and `validate_path_is_safe` of mlflow 3.17.2, utils/uri.py). Both sides must see the same name,
so it is worked out here once, and refused where the server refuses it.
"""

import ntpath
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlparse, urlunparse

_DECODINGS = 10  # mlflow gives up after as many
# what ends or changes a path somewhere on the way: in a URI, in `effective`, in whoever takes a root apart
_NOT_IN_FOLDERS = re.compile(r"[\x00-\x1f\x7f?#;\\]|^ +| +$")


class UnsafePathError(ValueError):
    """The path leads out of its root, or might."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One entry of a listing: `path` is relative to the root; `size` in bytes, None where the store does not say."""

    path: str
    is_dir: bool
    size: int | None = None


def effective(path: str) -> str:
    """Answer the name that a server gives to `path`; raise `UnsafePathError` for what it refuses.

    Idempotent. An empty path is the root itself.
    """
    decoded = _escaped(_decoded(path))
    if "#" in decoded:
        raise UnsafePathError("Invalid path")
    parts = decoded.split("/")
    drive, rest = ntpath.splitdrive(decoded)
    is_absolute = decoded.startswith(("/", "\\\\", "\\/")) or (bool(drive) and rest[:1] in ("\\", "/"))
    if ".." in parts or is_absolute or decoded.lower().startswith("file:"):
        raise UnsafePathError("Invalid path")
    name = "/".join(part for part in parts if part not in {"", "."})
    return name if name == decoded else effective(name)


def folder_of(name: str) -> str:
    """Answer what a folder for a logged model called `name` is called: what a root cannot hold becomes `_`.

    Two names may come to one folder; who takes it sees that it is taken.
    """
    return _NOT_IN_FOLDERS.sub("_", name)


def _escaped(path: str) -> str:
    """Spell control characters as letters: `…%17…` of a time in a name is what older clients really send."""
    return "".join(f"%{ord(letter):02x}" if ord(letter) < 32 or ord(letter) == 127 else letter for letter in path)


def _decoded(path: str) -> str:
    try:
        for _ in range(_DECODINGS):
            decoded = urlunparse(urlparse(unquote(path)))
            if decoded == path:
                return path
            path = decoded
    except ValueError as error:
        raise UnsafePathError("Invalid path") from error
    raise UnsafePathError("Invalid path")
