"""`python -m tests.support.journal_child FILE TASK`: a process that writes a journal until somebody kills it.

    settle   acknowledge writes in eight lanes, for ever; each acknowledged text is printed, flushed
    open     settle one write, open two more (one a create), say so, and wait

Prints only what the journal has promised to keep.
"""

import asyncio
import itertools
import sys
import time
from pathlib import Path

from dualtrack.ports import Settlement
from dualtrack.store.sqlite import SqliteJournal, open_journal
from tests.support.journals import keep
from tests.support.writes import create, note

LANES = 8


async def settle(journal: SqliteJournal) -> None:
    async with asyncio.TaskGroup() as group:
        for lane in range(LANES):
            group.create_task(_settle_in(journal, f"run:{lane}"))


async def _settle_in(journal: SqliteJournal, key: str) -> None:
    for number in itertools.count():
        text = f"{key}/{number}"
        await keep(journal, key, text)
        print(text, flush=True)


async def leave_open(journal: SqliteJournal) -> None:
    first = await journal.open(note("settled"))
    await journal.open(note("in doubt"))
    await journal.open(create("made?"))
    await journal.settle(Settlement(entry_id=first, key="run:1"))
    print("open", flush=True)
    await asyncio.Event().wait()


async def main(path: Path, task: str) -> None:
    journal = open_journal(path, secondaries=("b",), max_bytes=1 << 30, linger=0.0, now=time.time)
    await (settle(journal) if task == "settle" else leave_open(journal))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
