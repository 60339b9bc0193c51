"""Files that an emulator keeps itself: committed ones by their key, on disk, and parts that nobody sees yet.

Decides nothing about who may read or write; `storage` and `databricks_files` do. A key is a path without a slash at
its ends. Folders are those that files imply, and those that were made; object stores imply them only. Lives in a
temporary folder, from the first file to `close`.
"""

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import BinaryIO
from uuid import uuid4


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a folder; `at` is when it was written, in milliseconds since the epoch."""

    path: str
    is_dir: bool
    size: int = 0
    at: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes that arrived and are not committed."""

    place: Path
    size: int
    etag: str


class Shelf:
    """The committed files of one emulator, and a place for parts."""

    def __init__(self) -> None:
        self._temporary: TemporaryDirectory[str] | None = None
        self._files: dict[str, Path] = {}
        self._folders: set[str] = set()

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    async def receive(self, chunks: AsyncIterable[bytes]) -> Part:
        """Take a body in; nothing of it stays when it breaks off."""
        place, digest, size = self._new(), md5(usedforsecurity=False), 0
        try:
            with _opened(place) as file:
                async for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
        except BaseException:
            place.unlink()
            raise
        return Part(place, size, f'"{digest.hexdigest()}"')

    def commit(self, key: str, parts: Sequence[Part]) -> None:
        """Make the parts, one after the other, the file `key`; they are used up."""
        whole = self._new()
        with whole.open("wb") as file:
            for part in parts:
                with part.place.open("rb") as given:
                    copyfileobj(given, file)
        for part in parts:
            part.place.unlink(missing_ok=True)
        self.remove(key)
        self._files[key] = whole

    def file(self, key: str) -> Path | None:
        return self._files.get(key)

    def remove(self, key: str) -> bool:
        place = self._files.pop(key, None)
        if place is not None:
            place.unlink()
        return place is not None

    def make_folder(self, key: str) -> None:
        """Make a folder and those above it."""
        self._folders |= {key, *map(str, PurePosixPath(key).parents)} - {"", "."}

    def remove_folder(self, key: str) -> None:
        self._folders.discard(key)

    def is_folder(self, key: str) -> bool:
        return key in self._folders or any(name.startswith(f"{key}/") for name in self._files)

    def has_file_above(self, key: str) -> bool:
        return any(str(above) in self._files for above in PurePosixPath(key).parents)

    def children(self, folder: str) -> list[Entry]:
        """Answer what is directly below a folder, sorted."""
        prefix, found = f"{folder}/", dict[tuple[str, bool], Entry]()
        for key in (key for key in [*self._files, *self._folders] if key.startswith(prefix)):
            path = prefix + key[len(prefix) :].partition("/")[0]
            entry = self.entry(key) if path == key and key in self._files else Entry(path=path, is_dir=True)
            found[path, entry.is_dir] = entry
        return [found[key] for key in sorted(found)]

    def entry(self, key: str) -> Entry:
        told = self._files[key].stat()
        return Entry(path=key, is_dir=False, size=told.st_size, at=int(told.st_mtime * 1000))

    def _new(self) -> Path:
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix="emulator-")
        return Path(self._temporary.name) / uuid4().hex


def _opened(place: Path) -> BinaryIO:
    return place.open("xb")
