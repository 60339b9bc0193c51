"""What is SQLite's own: files and rights, the lock, migrations, damage, group commit, a full disk, a killed process."""

import asyncio
import os
import random
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from dualtrack.core.loss import LossKind
from dualtrack.errors import JournalError, StartError
from dualtrack.ports import ArtifactNote, Lane, Loss, Progress, Settlement
from dualtrack.store.parking import last_cause
from dualtrack.store.record import seal
from dualtrack.store.steps import SQL, find_rooted
from tests.support.journal_child import LANES
from tests.support.journals import fill, keep
from tests.support.sqlite_shelf import ROOT, SqliteShelf
from tests.support.writes import note, run, twin

SCHEMA = ROOT / "dualtrack/store/schema/sqlite"
NEWEST = len(list(SCHEMA.glob("*.sql")))
MUCH = 1 << 30
RUN_1 = Lane(backend="b", key="run:1", attempts=0)


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[SqliteShelf]:
    shelf = SqliteShelf(tmp_path / "journal.db")
    yield shelf
    await shelf.close()


def execute(path: Path, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
    """Reach around the journal, as damage and other programs do."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def damage(path: Path, text: str) -> None:
    """Flip one bit in the record that holds `text`."""
    ((entry_id, record),) = execute(path, "SELECT id, record FROM entries WHERE instr(record, ?)", (text.encode(),))
    damaged = bytearray(record)
    damaged[-1] ^= 1
    execute(path, "UPDATE entries SET record = ? WHERE id = ?", (bytes(damaged), entry_id))


async def read(journal: Any, lane: Lane = RUN_1) -> list[str]:
    return [entry.exchange.body.decode() for entry in await journal.read(lane, MUCH)]


# ---- files, rights, the lock ---------------------------------------------------------------------------------------


async def test_files_are_for_their_owner_alone(shelf: SqliteShelf) -> None:
    """Journals hold parameters and tags: nobody else reads them (design 11), whatever the umask."""
    before = os.umask(0)
    try:
        journal = await shelf.open()
        await keep(journal, "run:1", "x")
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in shelf.path.parent.iterdir()}
    assert modes == dict.fromkeys(
        ("journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock", "journal.db.reserve"), 0o600
    )


async def test_a_second_process_is_told_who_has_the_journal(shelf: SqliteShelf) -> None:
    with shelf.write_elsewhere("open") as child:
        assert child.stdout is not None
        child.stdout.readline()

        with pytest.raises(StartError, match=rf"in use by process {child.pid}\. Stop that dualtrack"):
            await shelf.open()


async def test_the_lock_ends_with_its_process(shelf: SqliteShelf) -> None:
    with shelf.write_elsewhere("open") as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        child.wait()

        journal = await shelf.open()

    assert await read(journal) == ["settled"]


async def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    shelf = SqliteShelf(tmp_path / "var" / "lib" / "journal.db")

    await shelf.open()
    await shelf.close()

    assert shelf.path.exists()


async def test_a_parent_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match=r"cannot write in .*file: .*point store.url somewhere else"):
        await SqliteShelf(tmp_path / "file" / "journal.db").open()


OPEN_AS_NOBODY = """
import asyncio, os, sys, time
from pathlib import Path
from dualtrack.errors import StartError
from dualtrack.store.sqlite import open_journal

async def main():
    open_journal(Path(sys.argv[1]), secondaries=("b",), max_bytes=1 << 30, linger=0.0, now=time.time)

if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    asyncio.run(main())
except StartError as error:
    print(error)
"""


def test_a_folder_that_is_not_writable_is_one_line(tmp_path: Path) -> None:
    """As somebody without root's rights; root gives them up in a process of its own."""
    tmp_path.chmod(0o755)
    (tmp_path / "sealed").mkdir(mode=0o555)

    argv = [sys.executable, "-c", OPEN_AS_NOBODY, "sealed/journal.db"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=60)

    assert done.stderr == ""
    assert re.fullmatch(r"store\.url: cannot write in sealed: Permission denied\. Make the folder .*\n", done.stdout)


# ---- schema and file -----------------------------------------------------------------------------------------------


async def test_an_empty_file_becomes_a_journal(shelf: SqliteShelf) -> None:
    shelf.path.touch()

    await shelf.open()

    assert execute(shelf.path, "PRAGMA user_version") == [(NEWEST,)]
    assert execute(shelf.path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_journal_of_a_newer_dualtrack_is_left_alone(shelf: SqliteShelf) -> None:
    await shelf.open()
    await shelf.close()
    execute(shelf.path, "PRAGMA user_version = 99")

    with pytest.raises(StartError, match=r"schema 99, newer than this dualtrack knows .*Upgrade"):
        await shelf.open()

    assert execute(shelf.path, "PRAGMA user_version") == [(99,)]


async def test_a_migration_that_was_cut_off_starts_again(shelf: SqliteShelf) -> None:
    """Each numbered file is one transaction: what a kill left of it is nothing."""
    script = (ROOT / "dualtrack/store/schema/sqlite/0001_journal.sql").read_text()
    connection = sqlite3.connect(shelf.path, isolation_level=None)
    connection.executescript(f"BEGIN IMMEDIATE;\n{script}")
    connection.close()

    journal = await shelf.open()
    await keep(journal, "run:1", "x")

    assert await read(journal) == ["x"]


async def test_a_journal_of_the_first_release_goes_on(shelf: SqliteShelf) -> None:
    """Open, queued and parked writes of version 1 are read, delivered and retried by this one."""
    script = (ROOT / "dualtrack/store/schema/sqlite/0001_journal.sql").read_text()
    opened, queued, parked = (seal(note(text)) for text in ("open", "queued", "parked"))
    with closing(sqlite3.connect(shelf.path, isolation_level=None)) as connection:
        connection.executescript(f"{script}\nPRAGMA user_version=1;")
        insert = "INSERT INTO entries (id, at, record, pending) VALUES (?, 1.0, ?, ?)"
        connection.execute(insert, (7, queued, 1))
        connection.execute(insert, (8, opened, None))
        connection.execute("INSERT INTO deliveries VALUES ('b', 'run:1', 9, 7, 1.0, 0)")
        connection.execute("INSERT INTO lanes (backend, key, next_at, oldest_at) VALUES ('b', 'run:1', 1.0, 1.0)")
        connection.execute(
            "INSERT INTO parked VALUES (3, 'b', 'run:1', 6, ?, 'logMetric', 'refused', 'no', 0, 1.0)", (parked,)
        )
        connection.execute("INSERT INTO ids VALUES ('run', '1', 'b', 'on-b', '', 's3://1')")

    journal = await shelf.open()
    await journal.retry_parked(3, shelf.now)
    (found,) = await journal.left_open(lambda _: "run:1")
    await journal.settle(Settlement(entry_id=found.entry_id, key="run:1", seq=found.seq))
    new = await journal.open(note("upload"), "kept")
    await journal.settle(
        Settlement(entry_id=new, key="run:2", artifact=ArtifactNote(path="p", size=1, sha256="5a", spool="kept"))
    )

    assert execute(shelf.path, "PRAGMA user_version") == [(NEWEST,)]
    entries = await journal.read(RUN_1, MUCH)
    assert [(entry.exchange.body, entry.spool) for entry in entries] == [
        (b"parked", ""),
        (b"open", ""),
        (b"queued", ""),
    ]
    assert found.entry_id == 8
    assert await journal.rooted("b", ["s3://1"]) == twin(run("1"), "b", "on-b", root="s3://1")
    assert await journal.spooled() == {"kept"}
    assert new > 9


async def test_losses_of_an_earlier_release_stay_on_record(shelf: SqliteShelf) -> None:
    """They said only a reason; what is lost again from now on says what it is."""
    with closing(sqlite3.connect(shelf.path, isolation_level=None)) as connection:
        for number in (1, 2):
            connection.executescript(next(SCHEMA.glob(f"000{number}_*.sql")).read_text())
        connection.execute("PRAGMA user_version=2")
        connection.execute("INSERT INTO losses VALUES ('b', 'run:1', 'shortened', 'tag t: too long', 3, 2.0)")
        connection.execute("INSERT INTO losses VALUES ('b', 'run:1', 'over_limit', 'param p: too many', 1, 1.0)")
    journal = await shelf.open()
    new = Loss(kind=LossKind.TAG, item="t", reason="shortened", detail="tag t: too long")
    await journal.record(Progress(backend="b", key="run:1", losses=(new,)))

    found = await journal.losses("run:1")
    assert [(each.loss.kind, each.loss.item, each.loss.reason, each.times) for each in found] == [
        ("tag", "t", "shortened", 1),
        ("unknown", "", "shortened", 3),
        ("unknown", "", "over_limit", 1),
    ]
    assert (await journal.backlogs())[0].losses == 5


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda connection: find_rooted(connection, "b", ["s3://1/x", "s3://1"]), "ids_root (root=? AND backend=?)"),
        (lambda connection: last_cause(connection, "b", "run:1", ["x", "y"]), "parked_lane (backend=? AND key=?)"),
        (lambda connection: connection.execute(SQL["is_spooled"], ("x",)), "entries_spool (spool=?)"),
        (lambda connection: connection.execute(SQL["is_spooled"], ("x",)), "parked_spool (spool=?)"),
        (
            lambda connection: connection.execute(SQL["losses_of"], (None, 9, 9, "run:1")),
            "sqlite_autoindex_losses_1 (key=?",
        ),
        (lambda connection: connection.execute(SQL["delete_artifact"], ("x", "y")), "(key=? AND path>? AND path<?)"),
    ],
)
async def test_what_every_upload_asks_is_found_by_an_index(
    shelf: SqliteShelf, ask: Callable[[sqlite3.Connection], object], index: str
) -> None:
    """A partial index is passed over in silence when a query does not repeat its condition."""
    await shelf.open()
    asked: list[str] = []
    with closing(sqlite3.connect(shelf.path, isolation_level=None)) as connection:
        connection.set_trace_callback(asked.append)
        ask(connection)
        connection.set_trace_callback(None)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]

    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN") and "subquery" not in step for step in plan), plan


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to have a header" * 100, b"SQLite format 3\0" * 64]
)
async def test_a_file_that_is_no_journal_is_one_line(shelf: SqliteShelf, content: bytes) -> None:
    shelf.path.write_bytes(content)

    with pytest.raises(StartError, match=r"cannot be opened: .*move the file away") as caught:
        await shelf.open()

    assert "\n" not in str(caught.value)
    assert shelf.path.read_bytes() == content


async def test_a_failed_start_lets_go_of_the_lock(shelf: SqliteShelf) -> None:
    shelf.path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StartError, match="cannot be opened"):
        await shelf.open()
    shelf.path.unlink()

    journal = await shelf.open()

    await keep(journal, "run:1", "x")


# ---- damage --------------------------------------------------------------------------------------------------------


async def test_a_damaged_record_is_set_aside_and_the_others_arrive(shelf: SqliteShelf) -> None:
    """P7: it is counted and kept for people, it is never delivered, and it is in nobody's way."""
    journal = await shelf.open()
    for text in ("first", "second", "third"):
        await keep(journal, "run:1", text)
    damage(shelf.path, "second")

    arrived = await read(journal)

    assert arrived == ["first", "third"]
    usage = await journal.usage()
    assert (usage.quarantined, usage.entries) == (1, 2)
    (kept,) = await journal.losses()
    assert (kept.key, kept.loss.kind, kept.loss.reason, kept.times) == ("run:1", "write", "damaged_record", 1)
    assert execute(shelf.path, "SELECT count(*) FROM entries WHERE instr(record, 'secon')") == [(0,)]


async def test_a_record_damaged_while_nobody_looked_does_not_stop_the_start(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    await keep(journal, "run:1", "first")
    await keep(journal, "run:1", "second")
    await shelf.close()
    damage(shelf.path, "first")

    journal = await shelf.open()

    assert await read(journal) == ["second"]


async def test_a_damaged_open_write_is_set_aside(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    await journal.open(note("damaged"))
    whole = await journal.open(note("whole"))
    await shelf.close()
    damage(shelf.path, "damaged")
    journal = await shelf.open()

    found = await journal.left_open(lambda _: "run:1")

    assert [entry.entry_id for entry in found] == [whole]
    assert (await journal.usage()).quarantined == 1


async def test_a_missing_record_is_set_aside(shelf: SqliteShelf) -> None:
    journal = await shelf.open(secondaries=("b", "c"))
    lost = await keep(journal, "run:1", "lost")
    await keep(journal, "run:1", "there")
    execute(shelf.path, "DELETE FROM entries WHERE id = ?", (lost,))

    arrived = await read(journal), await read(journal, Lane(backend="c", key="run:1", attempts=0))

    assert arrived == (["there"], ["there"])
    assert (await journal.usage()).entries == 2


async def test_a_lane_of_damaged_records_ends(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    await keep(journal, "run:1", "only")
    damage(shelf.path, "only")

    assert await read(journal) == []
    assert (await journal.usage()).entries == 0


# ---- group commit --------------------------------------------------------------------------------------------------


async def test_writes_that_wait_together_share_one_sync(shelf: SqliteShelf) -> None:
    """Throughput does not fall with durability: 200 acknowledgements cost a few syncs, not 200."""
    journal = await shelf.open()
    opened = await asyncio.gather(*(journal.open(note(str(number))) for number in range(200)))
    before = len(shelf.commits)

    await asyncio.gather(
        *(journal.settle(Settlement(entry_id=entry_id, key=f"run:{entry_id % 7}")) for entry_id in opened)
    )

    assert 1 <= len(shelf.commits) - before <= 3


async def test_opening_costs_no_sync(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    before = len(shelf.commits)

    for number in range(10):
        await journal.open(note(str(number)))

    assert len(shelf.commits) == before


async def test_what_was_only_read_costs_no_sync(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    before = len(shelf.commits)

    await journal.learn([twin(run("1"), "a", "1", root="s3://1")], synced=False)
    unsynced = len(shelf.commits) - before
    await journal.learn([twin(run("2"), "a", "2")])

    assert unsynced == 0
    assert len(shelf.commits) - before == 1


async def test_a_job_that_fails_in_a_group_fails_alone(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    await keep(journal, "run:1", "there")
    (taken,) = await journal.read(RUN_1, MUCH)
    good, bad, other = [await journal.open(note(text)) for text in ("good", "bad", "other")]

    results = await asyncio.gather(
        journal.settle(Settlement(entry_id=good, key="run:1")),
        journal.settle(Settlement(entry_id=bad, key="run:1", seq=taken.seq)),
        journal.settle(Settlement(entry_id=other, key="run:2", twins=(twin(run("2"), "a", "2"),))),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [type(None), JournalError, type(None)]
    assert await read(journal) == ["there", "good"]
    assert await journal.opened(bad) == note("bad")
    assert await journal.twin(run("2"), "a") is not None


async def test_a_cancelled_writer_takes_nobody_along(shelf: SqliteShelf) -> None:
    """A client that went away in the middle leaves an open entry at most; the others are answered."""
    journal = await shelf.open()
    entry_id = await journal.open(note("stays"))
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(journal.open(note("gone")))
        stays = group.create_task(journal.settle(Settlement(entry_id=entry_id, key="run:1")))
        group.create_task(asyncio.sleep(0)).add_done_callback(lambda _: gone.cancel())

    assert gone.cancelled()
    assert stays.done()
    assert await read(journal) == ["stays"]


async def test_a_read_that_waits_for_its_thread_stops_at_a_place_kept_meanwhile(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    await keep(journal, "run:1", "before")
    entry_id = await journal.open(note("in doubt"))
    is_free = threading.Event()
    journal._reader.submit(is_free.wait)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read(journal))
        await asyncio.sleep(0)
        doubtful = journal.doubt(entry_id, "run:1")
        await keep(journal, "run:1", "after")
        is_free.set()

    assert reading.result() == ["before"]
    await journal.settle(Settlement(entry_id=doubtful.entry_id, key="run:1", seq=doubtful.seq))
    assert await read(journal) == ["before", "in doubt", "after"]


async def test_closing_finishes_what_was_submitted(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    entry_id = await journal.open(note("refused"))
    journal.refuse(entry_id)

    journal = await shelf.reopen()

    assert await journal.opened(entry_id) is None


async def test_more_writes_at_once_than_one_statement_takes(shelf: SqliteShelf) -> None:
    journal = await shelf.open(secondaries=("b", "c"))

    opened = await asyncio.gather(*(journal.open(note(str(number))) for number in range(1200)))
    await asyncio.gather(
        *(journal.settle(Settlement(entry_id=entry_id, key=f"run:{entry_id % 600}")) for entry_id in opened)
    )

    assert [each.entries for each in await journal.backlogs()] == [1200, 1200]
    assert execute(shelf.path, "SELECT count(*), sum(pending) FROM entries") == [(1200, 2400)]


# ---- no room -------------------------------------------------------------------------------------------------------


async def test_a_quota_is_a_clear_error_and_ends_with_the_quota(shelf: SqliteShelf) -> None:
    journal = await shelf.open()
    quota = "PRAGMA max_page_count = {}"
    await journal._writer.run(lambda connection: connection.execute(quota.format(300)).fetchall(), synced=False)
    acknowledged = await fill(journal, "run:1", 20_000)
    is_full = journal.is_full
    await journal._writer.run(lambda connection: connection.execute(quota.format(1 << 30)).fetchall(), synced=False)

    await keep(journal, "run:1", "room again")

    assert is_full
    assert await read(journal) == [*acknowledged, "room again"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB, all of it real."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system of its own")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", mount], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


async def test_a_full_disk_is_a_clear_error_and_room_ends_it(tiny_disk: Path) -> None:
    """Every acknowledged write is still there; once something else made room, the next write finds out."""
    filler = tiny_disk / "somebody-elses.log"
    filler.write_bytes(bytes(2 << 20))
    shelf = SqliteShelf(tiny_disk / "journal.db")
    journal = await shelf.open()
    acknowledged = await fill(journal, "run:1", 20_000)
    refused_at_once = journal.is_full
    filler.unlink()
    shelf.now += 2

    await keep(journal, "run:1", "room again")
    journal = await shelf.reopen()

    assert refused_at_once
    assert await read(journal) == [*acknowledged, "room again"]
    await shelf.close()


async def test_a_write_that_meets_the_full_disk_alone_has_the_room_kept_for_it(tiny_disk: Path) -> None:
    """The primary has it already: its client is not told that it failed."""
    shelf = SqliteShelf(tiny_disk / "journal.db")
    journal = await shelf.open()
    entry_id = await journal.open(note("sent"))
    take_all_room(tiny_disk / "somebody-elses.log")

    await journal.settle(Settlement(entry_id=entry_id, key="run:1", exchange=note("x" * 100_000)))

    assert journal.is_full
    assert await read(journal) == ["x" * 100_000]
    await shelf.close()


def take_all_room(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_disk_that_is_full_from_the_start_is_one_line(tiny_disk: Path) -> None:
    (tiny_disk / "somebody-elses.log").write_bytes(bytes(4 << 20))

    with pytest.raises(StartError) as caught:
        await SqliteShelf(tiny_disk / "journal.db").open()

    assert "\n" not in str(caught.value)


# ---- P1 at the store -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(6))
async def test_whatever_was_acknowledged_outlives_a_kill(shelf: SqliteShelf, round_: int) -> None:
    """P1: `kill -9` at any instant; each acknowledged write is there, in order, and nothing of it twice.

    The seed says when to kill; the instant within a commit is the machine's own.
    """
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    wanted = random.Random(seed).randrange(1, 800)
    with shelf.write_elsewhere("settle") as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline() for _ in range(wanted)]
        child.kill()
        acknowledged += child.stdout.readlines()
    journal = await shelf.open()

    kept = [await read(journal, Lane(backend="b", key=f"run:{lane}", attempts=0)) for lane in range(LANES)]

    whole = {line.strip() for line in acknowledged if line.endswith("\n")}
    assert whole <= {text for lane in kept for text in lane}
    assert kept == [[f"run:{lane}/{number}" for number in range(len(kept[lane]))] for lane in range(LANES)]
