"""The ids of an Azure ML workspace, and what they are on the real server behind it (facts/backends A4, items 4 and 15).

A run may have an id that a client chose, through run history; the table of those is in memory and ends with the
process. All others are the real server's, as they are or, `dashed`, as the UUIDs that the service shows: a run's 32
digits with dashes, an experiment's number in the lower 62 bits of a UUID that names the workspace in its upper ones. So
dashed ids need no table, outlive a restart, and nobody's foreign id is taken for one.

Calls come in with the workspace's ids and go on with the real ones, answers the other way round: ids lie at known keys
of bodies and queries, in filters on `run_id`, in sources `runs:/…` and in the texts of errors. Tags and params are a
client's own and stay.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeAlias
from uuid import UUID

from dualtrack.emulators.azureml_errors import MISSING, refused
from dualtrack.emulators.tracking import Call, Reply, Send

JSON: TypeAlias = Any
Turn: TypeAlias = Callable[[str], str]

OF_RUN: Final = frozenset({"run_id", "run_uuid", "run_ids", "source_run_id"})
OF_EXPERIMENT: Final = frozenset({"experiment_id", "experiment_ids"})
BY_RUN = re.compile(
    r"(?<![\w.])(?:(?:attributes?|attr|run)\.)?run_(?:id|uuid)\s*(?:!?=|(?i:NOT\s+IN|IN))\s*(?:'[^']*'|\"[^\"]*\"|\([^)]*\))"
)
QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
DASHED = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
REAL_RUN = re.compile(r"\b[0-9a-f]{32}\b")
REAL_EXPERIMENT = re.compile(r"(?<=\bid=)\d+\b")
RUNS = re.compile(r"runs:/([^/]+)")
NUMBER_BITS: Final = 62


class UnknownIdError(LookupError):
    """No run or experiment of this workspace can have that id."""


class Ids:
    """Both ways between the ids of one workspace and those of the real server; a middleware, the innermost."""

    def __init__(self, scope: str, *, dashed: bool = False) -> None:
        self._dashed = dashed
        self._chosen: dict[str, str] = {}
        self._chosen_for: dict[str, str] = {}
        digest = int.from_bytes(hashlib.sha256(scope.encode()).digest()[:8])
        self._upper = digest & ~0xF000 | 0x4000  # the version of a UUID that nobody computed

    def choose(self, chosen: str, run: str) -> None:
        """Call a run of this workspace by a client's id from now on."""
        real = self.real_run(run)
        self._chosen[chosen], self._chosen_for[real] = real, chosen

    def run(self, real: str) -> str:
        if chosen := self._chosen_for.get(real):
            return chosen
        return str(UUID(real)) if self._dashed and REAL_RUN.fullmatch(real) else real

    def experiment(self, real: str) -> str:
        if not self._dashed or not real.isdecimal():
            return real
        return str(UUID(int=self._upper << 64 | 0b10 << NUMBER_BITS | int(real)))

    def real_run(self, run: str) -> str:
        """Give the real server's id; raise UnknownIdError."""
        if real := self._chosen.get(run):
            return real
        if not self._dashed or not run:
            return run
        if not DASHED.fullmatch(run) or UUID(run).hex in self._chosen_for:
            raise UnknownIdError(f"Run {run} not found.")
        return UUID(run).hex

    def real_experiment(self, experiment: str) -> str:
        """Give the real server's id; raise UnknownIdError."""
        if not self._dashed or not experiment:
            return experiment
        bits = UUID(experiment).int if DASHED.fullmatch(experiment) else 0
        if bits >> NUMBER_BITS != self._upper << 2 | 0b10:
            raise UnknownIdError(f"Experiment {experiment} not found.")
        return str(bits & (1 << NUMBER_BITS) - 1)

    async def __call__(self, call: Call, send: Send) -> Reply:
        try:
            reply = await send(self._inward(call))
        except UnknownIdError as exc:
            return refused(404, MISSING, str(exc))
        if reply.status >= 400 and reply.document is not None:
            return replace(reply, document=self._in_error(reply.document))
        return replace(reply, document=_turned(reply.document, self.run, self.experiment))

    def _inward(self, call: Call) -> Call:
        turned = _turned({**call.document}, self.real_run, self.real_experiment)
        if "filter" in turned:
            turned["filter"] = self._in_filter(str(turned["filter"] or ""))
        query: dict[str, list[str]] = {}
        for key, value in call.query.items():  # a key may come more than once
            real = _one(key, value, self.real_run, self.real_experiment)
            query.setdefault(key, []).append(self._in_filter(real) if key == "filter" else real)
        return replace(call, document=turned, query=query)

    def _in_filter(self, text: str) -> str:
        def quoted(found: re.Match[str]) -> str:
            return f"'{self.real_run(found[1] or found[2] or '')}'"

        return BY_RUN.sub(lambda found: QUOTED.sub(quoted, found[0]), text)

    def _in_error(self, document: JSON) -> JSON:
        """Name the workspace's own ids in the text of an error."""
        shaped = document.get("Error")
        if not isinstance(shaped, dict):
            return document
        text = REAL_RUN.sub(lambda found: self.run(found[0]), str(shaped.get("Message", "")))
        text = REAL_EXPERIMENT.sub(lambda found: self.experiment(found[0]), text)
        return {**document, "Error": {**shaped, "Message": text}}


def _turned(document: JSON, run: Turn, experiment: Turn) -> JSON:
    """Turn every id at a known key, however deep."""
    if isinstance(document, list):
        return [_turned(each, run, experiment) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        key: _one(key, value, run, experiment)
        if isinstance(value, str)
        else [_one(key, each, run, experiment) if isinstance(each, str) else each for each in value]
        if isinstance(value, list) and key in OF_RUN | OF_EXPERIMENT
        else _turned(value, run, experiment)
        for key, value in document.items()
    }


def _one(key: str, value: str, run: Turn, experiment: Turn) -> str:
    if key in OF_RUN:
        return run(value)
    if key == "source" and (found := RUNS.match(value)):  # of a model version: the real server looks the run up
        return value.replace(found[1], run(found[1]), 1)
    return experiment(value) if key in OF_EXPERIMENT else value
