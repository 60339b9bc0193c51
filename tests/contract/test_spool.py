"""The spool on a real folder: whole files or nothing, within the bound, whatever ends a file early."""

import asyncio
import hashlib
import os
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dualtrack.errors import SpoolError, SpoolFullError, StartError
from dualtrack.ports import Spool, Spooled, SpoolFile
from dualtrack.store.spool import DiskSpool

ROOT = Path(__file__).parents[2]
MIB = 1024**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


async def opened(folder: Path, max_bytes: int = 1 << 30) -> DiskSpool:
    spool = DiskSpool(folder, max_bytes)
    await spool.open()
    return spool


async def put(spool: Spool, content: bytes, *, size: int | None = None, step: int = 64 * 1024) -> Spooled:
    file = spool.begin(size)
    for start in range(0, len(content), step):
        await file.write(content[start : start + step])
    return await file.finish()


def lying_in(folder: Path) -> list[str]:
    """Every file, finished or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def content_of(spool: Spool, spooled: Spooled) -> bytes:
    return Path(spool.path(spooled.name)).read_bytes()


def modes(*paths: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


def descriptors(folder: Path) -> list[Path]:
    """What this process has open there; others come and go by themselves."""
    linked = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            linked.append(entry.readlink())
    return sorted(path for path in linked if path.is_relative_to(folder))


async def cut(work: Awaitable[None], after: float) -> None:
    """Cancel `work` after so many seconds, wherever it is by then; if it has ended, it is over."""
    with suppress(TimeoutError):
        await asyncio.wait_for(work, after)


async def cut_at_once(work: Coroutine[Any, Any, None]) -> bool:
    """Cancel `work` as soon as it waits for its first visit to a thread; say whether that ended it."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        asyncio.get_running_loop().call_soon(task.cancel)
    return task.cancelled()


async def threads_end() -> None:
    """Wait for all that the threads were given, however it ends."""
    await asyncio.get_running_loop().shutdown_default_executor()


# ---- round trip ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1000, 64 * 1024, 5 * MIB])
@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])
async def test_a_file_is_what_was_written(folder: Path, size: int, step: int) -> None:
    """Blocks of a mebibyte, chunks of any size: bytes, size and hash are those of the whole."""
    spool = await opened(folder)
    content = os.urandom(size)

    spooled = await put(spool, content, step=step)

    assert content_of(spool, spooled) == content
    assert (spooled.size, spooled.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert lying_in(folder) == [spooled.name]
    assert spool.used_bytes == size


async def test_the_name_is_known_from_the_beginning(folder: Path) -> None:
    """The journal refers to a file before it exists."""
    spool = await opened(folder)
    file = spool.begin()
    before = lying_in(folder)

    spooled = await file.finish()

    assert before == []
    assert spooled.name == file.name


async def test_a_small_file_takes_one_visit_to_a_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each visit is a switch of threads, and most artifacts are small."""
    spool = await opened(folder)
    visits: list[object] = []
    real = asyncio.to_thread

    async def counted(*given: object) -> object:
        visits.append(given[0])
        return await real(*given)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(asyncio, "to_thread", counted)
    await put(spool, bytes(MIB))
    small = len(visits)
    await put(spool, bytes(4 * MIB))

    assert small == 1
    assert len(visits) - small == 4


async def test_many_at_once_do_not_mix(folder: Path) -> None:
    spool = await opened(folder)
    contents = [bytes([number]) * (number * 40_000) for number in range(40)]

    spooled = await asyncio.gather(*(put(spool, content) for content in contents))

    assert [content_of(spool, each) for each in spooled] == contents
    assert len(lying_in(folder)) == 40
    assert spool.used_bytes == sum(map(len, contents))


async def test_memory_is_a_few_blocks_whatever_the_size(folder: Path) -> None:
    """P8: 64 MiB pass through in chunks."""
    spool = await opened(folder)
    chunk = os.urandom(64 * 1024)
    file = spool.begin()
    tracemalloc.start()
    try:
        for _ in range(1024):
            await file.write(chunk)
        await file.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 3 * MIB
    assert spool.used_bytes == 64 * MIB


async def test_files_are_for_their_owner_alone(folder: Path) -> None:
    """Artifacts are as private as the journal (design 11), whatever the umask."""
    before = os.umask(0)
    try:
        spool = await opened(folder)
        file = spool.begin()
        for _ in range(3):
            await file.write(bytes(MIB))
        await put(spool, b"x")
    finally:
        os.umask(before)

    assert len(lying_in(folder)) == 2
    assert modes(*(folder / name for name in lying_in(folder))) == {0o600}
    assert modes(folder, folder / "incoming") == {0o700}


# ---- the bound -----------------------------------------------------------------------------------------------------


async def test_what_does_not_fit_is_refused_at_the_beginning(folder: Path) -> None:
    spool = await opened(folder, 1000)
    await put(spool, bytes(600))

    with pytest.raises(SpoolFullError, match=r"holds 600 bytes of its 1000 \(spool.max_size\); 401 more do not fit"):
        spool.begin(401)

    assert spool.begin(400) is not None
    assert (spool.used_bytes, spool.capacity_bytes) == (1000, 1000)


@pytest.mark.parametrize("size", [None, 10])
async def test_what_turns_out_too_large_is_refused_on_the_way(folder: Path, size: int | None) -> None:
    """Of unknown size, or larger than was said; nothing of it stays, and it cannot be finished after all."""
    spool = await opened(folder, 3 * MIB)
    file = spool.begin(size)
    for _ in range(3):
        await file.write(bytes(MIB))
    before = lying_in(folder)

    with pytest.raises(SpoolFullError, match=r"spool\.max_size"):
        await file.write(b"x")

    assert before == [f"incoming/{file.name}"]
    assert lying_in(folder) == []
    assert spool.used_bytes == 0
    with pytest.raises(SpoolError, match="ended"):
        await file.write(b"x")
    with pytest.raises(SpoolError, match="ended"):
        await file.finish()


async def test_a_promise_counts_until_it_is_kept_or_given_up(folder: Path) -> None:
    spool = await opened(folder, 1000)
    first, second = spool.begin(600), spool.begin(400)
    promised = spool.used_bytes

    await first.abandon()
    await second.write(bytes(100))
    await second.finish()

    assert promised == 1000
    assert spool.used_bytes == 100


async def test_abandoning_leaves_nothing_and_may_be_repeated(folder: Path) -> None:
    spool = await opened(folder)
    file = spool.begin(5 * MIB)
    for _ in range(3):
        await file.write(bytes(MIB))

    await file.abandon()
    await file.abandon()

    assert lying_in(folder) == []
    assert spool.used_bytes == 0


async def test_abandoning_a_finished_file_does_nothing(folder: Path) -> None:
    spool = await opened(folder)
    file = spool.begin()
    await file.write(b"content")
    spooled = await file.finish()

    await file.abandon()

    assert lying_in(folder) == [spooled.name]
    assert spool.used_bytes == 7


async def test_a_file_is_finished_once(folder: Path) -> None:
    spool = await opened(folder)
    file = spool.begin()
    await file.finish()

    with pytest.raises(SpoolError, match="ended"):
        await file.finish()


# ---- a disk that refuses -------------------------------------------------------------------------------------------


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from dualtrack.errors import SpoolFullError
from dualtrack.store.spool import DiskSpool

async def main():
    spool = DiskSpool(Path(sys.argv[1]), 1 << 30)
    await spool.open()
    file = spool.begin()
    try:
        for _ in range(int(sys.argv[2])):
            await file.write(bytes(1024**2))
        await file.finish()
    except SpoolFullError as error:
        print(error, spool.used_bytes)

resource.setrlimit(resource.RLIMIT_FSIZE, (700 * 1024, 700 * 1024))
asyncio.run(main())
"""


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_limit_of_the_system_is_a_full_disk(folder: Path, blocks: int) -> None:
    """The kernel writes a part and refuses the rest, in `finish` or before: nothing of it stays."""
    argv = [sys.executable, "-c", LIMITED, str(folder), str(blocks)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)

    assert done.stderr == ""
    assert done.stdout == f"no room on the disk of the spool {folder}: File too large 0\n"
    assert lying_in(folder) == []


def fill_with_files(folder: Path) -> None:
    for number in range(1000):
        (folder / f"somebody-elses.{number}").touch()


@pytest.fixture
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A file system of two MiB and few files, all of it real."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system of its own")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=32,mode=700", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_full_disk_is_told_from_the_bound_and_room_ends_it(tiny_disk: Path) -> None:
    spool = await opened(tiny_disk)
    with pytest.raises(SpoolFullError, match=r"no room on the disk of the spool .*No space left"):
        await put(spool, bytes(4 * MIB))
    left = lying_in(tiny_disk), spool.used_bytes

    await put(spool, bytes(MIB))

    assert left == ([], 0)
    assert spool.used_bytes == MIB


async def test_a_full_disk_is_no_reason_not_to_start(tiny_disk: Path) -> None:
    """Deliveries make room; until then uploads are refused one by one."""
    spool = await opened(tiny_disk)
    waiting = await put(spool, bytes(MIB))
    with pytest.raises(OSError, match="No space left"):
        fill_with_files(tiny_disk)

    await spool.close()
    spool = await opened(tiny_disk)
    await spool.remove(waiting.name)

    assert (await put(spool, bytes(MIB))).size == MIB


async def test_any_other_trouble_of_the_disk_is_an_error_that_leaves_nothing(folder: Path) -> None:
    spool = await opened(folder)
    (folder / "incoming").rmdir()

    with pytest.raises(SpoolError, match=r"the spool .* failed: .*No such file") as caught:
        await put(spool, b"content", size=7)

    assert not isinstance(caught.value, SpoolFullError)
    assert spool.used_bytes == 0


# ---- cancellation --------------------------------------------------------------------------------------------------


async def _written(file: SpoolFile) -> None:
    for _ in range(4):
        await file.write(bytes(MIB))


async def _finished(file: SpoolFile) -> None:
    await file.write(bytes(MIB // 2))
    await file.finish()


@pytest.mark.parametrize("after", [0.0, 0.0002, 0.001, 0.003])
@pytest.mark.parametrize("work", [_written, _finished])
async def test_a_cancelled_file_leaves_nothing(
    folder: Path, work: Callable[[SpoolFile], Awaitable[None]], after: float
) -> None:
    """Wherever it strikes: before the thread, in it, after it. The client that hung up is the common case."""
    spool = await opened(folder)
    for _ in range(10):
        file = spool.begin(4 * MIB)

        await cut(work(file), after)
        await file.abandon()

        left = lying_in(folder)
        assert left in ([], [file.name])  # finished in time, or nothing
        await spool.remove(file.name)
        assert spool.used_bytes == 0


async def test_a_cancellation_needs_nobody_to_clear_up(folder: Path) -> None:
    spool = await opened(folder)
    file = spool.begin()
    await file.write(bytes(MIB))

    is_cut = await cut_at_once(file.write(bytes(MIB)))
    with pytest.raises(SpoolError, match="ended"):
        await file.finish()
    await threads_end()

    assert is_cut
    assert lying_in(folder) == []
    assert spool.used_bytes == 0


async def test_a_cancelled_abandon_goes_on(folder: Path) -> None:
    spool = await opened(folder)
    file = spool.begin()
    await file.write(bytes(MIB))
    await file.write(bytes(MIB))
    before = lying_in(folder)

    is_cut = await cut_at_once(file.abandon())
    await threads_end()

    assert is_cut
    assert before == [f"incoming/{file.name}"]
    assert lying_in(folder) == []
    assert spool.used_bytes == 0


async def test_a_visit_that_begins_after_clearing_up_does_nothing(folder: Path) -> None:
    """Threads begin in any order; a cancelled write may be the later one."""
    spool = await opened(folder)
    file: Any = spool.begin()
    await file.abandon()

    file._alone(file._append, bytearray(b"late"))

    assert lying_in(folder) == []


async def test_no_descriptor_is_left_open(folder: Path) -> None:
    spool = await opened(folder)
    before = descriptors(folder)
    for _ in range(5):
        await put(spool, b"finished")
        abandoned, cancelled = spool.begin(), spool.begin()
        await _written(abandoned)
        await abandoned.abandon()
        await cut(_written(cancelled), 0.001)
        await cancelled.abandon()

    assert descriptors(folder) == before


# ---- after a restart -----------------------------------------------------------------------------------------------


async def test_finished_files_are_counted_and_the_rest_of_a_crash_goes(folder: Path) -> None:
    spool = await opened(folder)
    kept = await put(spool, bytes(5000))
    await _written(spool.begin())
    (folder / "notes.txt").write_bytes(bytes(300))
    (folder / "incoming" / "notes.txt").touch()

    await spool.close()
    spool = await opened(folder)

    assert lying_in(folder) == sorted([kept.name, "incoming/notes.txt", "notes.txt"])
    assert spool.used_bytes == 5000


async def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    spool = await opened(tmp_path / "var" / "lib" / "spool")

    assert (await put(spool, b"x")).size == 1


async def test_a_parent_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match=r"spool\.dir: cannot write in .*: Not a directory\. .*point spool\.dir"):
        await opened(tmp_path / "file" / "spool")


OPEN_AS_NOBODY = """
import asyncio, os
import concurrent.futures.thread  # while it may be read
from pathlib import Path
from dualtrack.errors import StartError
from dualtrack.store.spool import DiskSpool

if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    asyncio.run(DiskSpool(Path("sealed"), 1 << 30).open())
except StartError as error:
    print(error)
"""


@pytest.mark.parametrize("inner", ["", "incoming"])
def test_a_folder_that_is_not_writable_is_one_line(tmp_path: Path, inner: str) -> None:
    """Found at the start, not by the first upload; also where an earlier start has made the inner folder."""
    tmp_path.chmod(0o755)
    (tmp_path / "sealed" / inner).mkdir(parents=True)
    (tmp_path / "sealed").chmod(0o555)
    (tmp_path / "sealed" / inner).chmod(0o555 if not inner else 0o777)

    argv = [sys.executable, "-c", OPEN_AS_NOBODY]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=60)

    assert done.stderr == ""
    assert done.stdout.startswith("spool.dir: cannot write in sealed: Permission denied. Make the folder writable")
    assert done.stdout.count("\n") == 1


# ---- removing ------------------------------------------------------------------------------------------------------


async def test_removing_makes_room_once(folder: Path) -> None:
    spool = await opened(folder)
    first, second = await put(spool, bytes(10)), await put(spool, bytes(5))

    await asyncio.gather(*(spool.remove(first.name) for _ in range(4)))

    assert spool.used_bytes == 5
    assert lying_in(folder) == [second.name]


@pytest.mark.parametrize("name", ["", "x", "../secret", "a" * 31, "A" * 32, "a" * 32 + "\n", "a" * 33])
async def test_only_names_of_ours_have_a_path(folder: Path, name: str) -> None:
    spool = await opened(folder)

    with pytest.raises(ValueError, match="not the name"):
        spool.path(name)
    with pytest.raises(ValueError, match="not the name"):
        await spool.remove(name)


async def test_a_file_that_cannot_be_removed_is_an_error(folder: Path) -> None:
    spool = await opened(folder)
    (folder / ("a" * 32)).mkdir()

    with pytest.raises(SpoolError, match="cannot be removed"):
        await spool.remove("a" * 32)


async def test_a_sweep_keeps_what_the_journal_refers_to_and_what_is_on_its_way(folder: Path) -> None:
    spool = await opened(folder)
    kept, gone = await put(spool, bytes(10)), await put(spool, bytes(5))
    on_its_way = spool.begin()
    await _written(on_its_way)
    (folder / "notes.txt").touch()

    async def referred() -> set[str]:
        return {kept.name, "b" * 32}

    assert await spool.sweep(referred) == 1
    assert lying_in(folder) == sorted([kept.name, f"incoming/{on_its_way.name}", "notes.txt"])
    assert not (folder / gone.name).exists()
    assert spool.used_bytes == 10 + 4 * MIB


async def test_a_sweep_asks_the_journal_after_it_looked(folder: Path) -> None:
    """A file that is finished while the journal answers is referred to, though that answer does not say so."""
    spool = await opened(folder)
    meanwhile: list[Spooled] = []

    async def referred() -> set[str]:
        meanwhile.append(await put(spool, b"young"))
        return set()

    assert await spool.sweep(referred) == 0
    assert lying_in(folder) == [meanwhile[0].name]


async def test_one_process_has_a_spool(tmp_path: Path) -> None:
    """Two would sweep each other's files; the second is told what to do, and may have it once the first has ended."""
    first, second = DiskSpool(tmp_path / "spool", MIB), DiskSpool(tmp_path / "spool", MIB)
    await first.open()
    with pytest.raises(StartError, match=r"spool\.dir.*in use"):
        await second.open()

    await first.close()
    await second.open()
    await second.close()


async def test_a_transient_file_that_no_delivery_needs_is_bounded(tmp_path: Path) -> None:
    """What came to nothing is not remembered either."""
    spool = DiskSpool(tmp_path / "spool", 10)
    await spool.open()
    with pytest.raises(SpoolFullError):
        spool.begin(100, transient=True)
    file = spool.begin(transient=True)
    await file.write(b"x")
    await file.abandon()

    assert not spool._transient
    assert spool.used_bytes == 0


async def test_a_transient_file_is_neither_bounded_nor_swept(tmp_path: Path) -> None:
    """What a full spool waits for is a delivery, and this is one under way."""

    async def none_kept() -> set[str]:
        return set()

    spool = DiskSpool(tmp_path / "spool", 10)
    await spool.open()
    file = spool.begin(100, transient=True, is_bounded=False)
    await file.write(b"x" * 100)
    done = await file.finish()

    assert await spool.sweep(none_kept) == 0
    assert await spool.read(done.name, 1000) == b"x" * 100
    assert await spool.read(done.name, 99) is None
    assert (await spool.size(done.name), await spool.holds(done.name)) == (100, True)

    await spool.remove(done.name)
    assert not await spool.holds(done.name)
