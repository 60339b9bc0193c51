"""A token that somebody else renews, such as the one that a Synapse notebook fetches and hands over (facts D2)."""

from collections.abc import Mapping
from pathlib import Path

from dualtrack.errors import UnauthorizedError


class TokenFile:
    """A bearer token in a file; read again when the file changes, and on a 401."""

    def __init__(self, backend: str, path: Path) -> None:
        self._backend = backend
        self._path = path
        self._read: tuple[int, dict[str, str]] | None = None

    async def headers(self, *, fresh: bool = False) -> Mapping[str, str]:
        try:
            changed = self._path.stat().st_mtime_ns
            if fresh or self._read is None or self._read[0] != changed:
                self._read = (changed, {"Authorization": f"Bearer {self._token()}"})
        except OSError as error:
            raise self._useless(error.strerror or "cannot be read") from error
        return self._read[1]

    def _token(self) -> str:
        try:
            token = self._path.read_text().strip()
        except UnicodeDecodeError:
            raise self._useless("is not text") from None  # the cause would hold the bytes
        if not token or any(character.isspace() for character in token):
            raise self._useless("holds no token")
        return token

    def _useless(self, reason: str) -> UnauthorizedError:
        return UnauthorizedError(self._backend, "sign-in", f"token file {self._path}: {reason}", "write a token there")

    async def close(self) -> None:
        return None
