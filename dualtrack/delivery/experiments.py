"""An experiment's place on a backend: found by its translated name, made if absent, never shared by two.

Names are the identity here, so this asks before it makes, every time; a lost answer finds what it made. What is brought
over from a journal that was lost may have been renamed since: it is looked for by its mark as well, and renamed.

A name that is another's is not qualified while what was acknowledged earlier of any experiment is on its way: that may
be the other's rename. Two answers of status 409 are ours: `NAME_MAY_BE_FREED`, and `NAME_COLLISION` if it will not be.

Two lanes may want one name at once. They look and make one after the other, and what one of them takes is claimed by it
here at once: it may stand there without a mark for a while, and in the map only once the lane's outcome is recorded.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

from dualtrack.core.exchange import Answer, Call, Document
from dualtrack.core.ids import BackendId, EntityKind, Ref, Twin
from dualtrack.core.views import whole
from dualtrack.delivery.plan import SingleStep
from dualtrack.errors import UnreachableError
from dualtrack.ports import Backend, Lane, Queue
from dualtrack.translate.databricks import lacks_parent, make_parent
from dualtrack.translate.document import field, objects, parse, parse_answer, text
from dualtrack.translate.fitting import Fitter
from dualtrack.translate.mlflow import (
    experiment_by_name,
    mark_of,
    marks,
    rename_experiment,
    search_experiment,
    set_experiment_tag,
    split_tags,
    translate,
)
from dualtrack.translate.names import NameRule, names_for
from dualtrack.translate.operations import Reading, learn

NAME_COLLISION, NAME_MAY_BE_FREED = "NAME_COLLISION", "NAME_MAY_BE_FREED"
_NO = frozenset({400, 404, 405, 409, 413, 422})  # a tag that is not taken is no reason to have no experiment
_TAKEN = frozenset({400, 409})  # MLflow refuses a new name that another has with the words of its database alone
_NO_SEARCH = frozenset({400, 403, 404, 405, 422, 501})  # experiments cannot be found by their tags there
_SKEW_MS = 10_000  # by how much two servers' clocks may differ
_CLAIMS: Final = 10_000  # remembered: those of a moment ago are what counts


class Experiments:
    """The experiments of one backend. `most_tags` is how many a create may have there."""

    def __init__(
        self,
        backend: Backend,
        queue: Queue,
        source: str,
        rule: NameRule,
        fitter: Fitter,
        most_tags: int | None = None,
    ) -> None:
        self._backend = backend
        self._queue = queue
        self._source = source
        self._rule = rule
        self._fitter = fitter
        self._most_tags = most_tags
        # a lock lives as long as somebody holds or awaits it
        self._names: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._claimed: dict[str, Ref] = {}

    async def send(self, call: Call, name: str) -> Answer:
        """Make a call that gives an experiment `name`; a workspace's folder that is not there is made first."""
        answer = await self._backend.send(call)
        if not lacks_parent(answer):
            return answer
        made = await self._backend.send(make_parent(name))
        return await self._backend.send(call) if made.is_success else made

    async def rename(self, lane: Lane, step: SingleStep, backend_id: str) -> tuple[Answer, str]:
        """Give a mirror the name that its original was given, or the qualified one: the last answer, and to which."""
        reading = step.reading
        assert reading.subject is not None, "who is renamed is named"
        may_be_freed = await self._may_be_freed(lane, step)
        names = names_for(text(reading.document.get("new_name")), self._rule, reading.subject.client_id)
        for name in names:
            answer = await self.send(rename_experiment(backend_id, name), name)
            if answer.error_code == "INVALID_STATE":  # a deleted one: MLflow calls it a 500, and no wait changes it
                return replace(answer, status=409), name
            if answer.status not in _TAKEN:
                return answer, name
            holder = await self._backend.send(experiment_by_name(name))
            if holder.status == 404 and _is_taken(answer):
                continue
            if holder.status in _NO_SEARCH:
                return answer, name
            if not holder.is_success:
                return holder, name
            if self._experiment(holder).get("experiment_id") == backend_id:
                return Answer(status=200), name  # it was given the name before, and no answer came
            if may_be_freed:
                break
        return self._collision(names[0], may_be_freed), name

    async def place(self, lane: Lane, step: SingleStep) -> tuple[Answer, Twin | None, bool]:
        """Find or make the experiment: the last answer, its twin if it has one now, and whether it was there.

        Without a twin the answer says why.
        """
        reading, ref = step.reading, step.reading.subject
        assert ref is not None, "an experiment is placed after the primary made it"
        may_be_freed = await self._may_be_freed(lane, step)
        names = names_for(text(reading.document.get("name")), self._rule, ref.client_id)
        for name in names:
            async with self._names.setdefault(name, asyncio.Lock()):
                answer = await self._backend.send(experiment_by_name(name))
                if answer.status == 404 and answer.error_code in {"RESOURCE_DOES_NOT_EXIST", ""}:
                    made = await self._find_or_make(reading, ref, name)
                    if not _is_taken(made[0]):
                        return made
                    # another process made one of that name in between, or it is a folder's
                    answer = await self._backend.send(experiment_by_name(name))
                    if answer.status == 404:
                        continue
                if not answer.is_success:
                    return answer, None, False
                found = self._experiment(answer)
                if await self._is_ours(found, ref, name):
                    return await self._take(found, reading, name)
                if may_be_freed:
                    break
        return self._collision(names[0], may_be_freed), None, False

    async def _may_be_freed(self, lane: Lane, step: SingleStep) -> bool:
        """Asked before anything is sent: what is on its way may arrive meanwhile."""
        return await self._queue.has_older(lane.backend, lane.key, step.settled_at, EntityKind.EXPERIMENT)

    def _experiment(self, answer: Answer) -> Document:
        found = field(parse_answer(answer.body), "experiment")
        if not isinstance(found, dict) or not found:
            raise UnreachableError(self._backend.name, "getExperimentByName", "an answer without an experiment")
        return found

    def _collision(self, name: str, may_be_freed: bool) -> Answer:
        message = f"experiment name {name!r} belongs to another experiment on {self._backend.name}"
        return Answer(status=409, error_code=NAME_MAY_BE_FREED if may_be_freed else NAME_COLLISION, message=message)

    async def _find_or_make(self, reading: Reading, ref: Ref, name: str) -> tuple[Answer, Twin | None, bool]:
        """Nothing has that name: take the mirror, if it has another one, or make it."""
        created_at = whole(field(parse(reading.exchange.answer), "creation_time"))
        if created_at:  # what a client just made has no mirror yet, and says no time
            answer = await self._backend.send(search_experiment(ref))
            if not answer.is_success and answer.status not in _NO_SEARCH:
                return answer, None, False
            listed = objects(parse_answer(answer.body).get("experiments")) if answer.is_success else []
            found = next((each for each in listed if self._is_mirror(each, ref, created_at)), None)
            if found is not None:
                renamed = await self._rename_found(found, name)
                return await self._take(found, reading, name) if renamed.is_success else (renamed, None, False)
        return await self._make(reading, ref, name)

    async def _rename_found(self, found: Document, name: str) -> Answer:
        if found.get("lifecycle_stage") == "deleted":
            return Answer(status=200)  # no server renames it: `verify` tells, and `reconcile` restores it first
        return await self.send(rename_experiment(text(found.get("experiment_id")), name), name)

    def _is_mirror(self, found: Document, ref: Ref, created_at: int) -> bool:
        """Say whether this mirrors `ref`. A mirror is younger: a server that was set up anew counts its ids from 1."""
        is_marked = mark_of(found) == (ref.client_id, self._source)
        return is_marked and whole(found.get("creation_time", 0)) >= created_at - _SKEW_MS

    async def _make(self, reading: Reading, ref: Ref, name: str) -> tuple[Answer, Twin | None, bool]:
        call, later = self._create_of(reading, name)
        answer = await self.send(call, name)
        if not answer.is_success:
            return answer, None, False
        twin = learn(EntityKind.EXPERIMENT, ref, self._backend.name, parse_answer(answer.body), name)
        if twin is not None:
            self._claim(twin.backend_id, ref)
        refusal = await self._set(twin.backend_id, later) if twin is not None else None
        return (answer, twin, False) if refusal is None else (refusal, None, False)

    def _create_of(self, reading: Reading, name: str) -> tuple[Call, list[Document]]:
        """The create, and the tags for which it has no room."""
        call, _ = self._fitter.fit(translate(reading, {}, self._source, name))
        return split_tags(call, self._most_tags)

    async def _set(self, backend_id: str, tags: Iterable[Document]) -> Answer | None:
        """Set tags one by one; answer what stood in the way."""
        for tag in tags:
            answer = await self._backend.send(set_experiment_tag(backend_id, tag))
            if not answer.is_success:
                return answer
        return None

    async def _is_ours(self, experiment: Document, ref: Ref, name: str) -> bool:
        """Say whether the experiment that has the name may be the mirror: marked so, or nobody's and alive.

        What is nobody's is claimed: the answer holds for one of those who ask, until the map knows.
        """
        marked, source = mark_of(experiment)
        if marked:
            return marked == ref.client_id and source in {self._source, ""}
        if experiment.get("lifecycle_stage") == "deleted":
            return False
        backend_id = BackendId(text(experiment.get("experiment_id")))
        known = await self._queue.named(EntityKind.EXPERIMENT, self._backend.name, name)
        owner = await self._queue.client_ref(EntityKind.EXPERIMENT, self._backend.name, backend_id)
        return {known.ref if known is not None else ref, owner or ref} == {ref} and self._claim(backend_id, ref)

    def _claim(self, backend_id: BackendId, ref: Ref) -> bool:
        """Keep an experiment without a mark for `ref`, while the process lives; False when it is kept for another."""
        if len(self._claimed) >= _CLAIMS:
            del self._claimed[next(iter(self._claimed))]
        return self._claimed.setdefault(backend_id, ref) == ref

    async def _take(self, experiment: Document, reading: Reading, name: str) -> tuple[Answer, Twin | None, bool]:
        """Make what is there the mirror: its marks, and the tags that the experiment was told with."""
        ref = reading.subject
        assert ref is not None, "an experiment is placed after the primary made it"
        backend_id = text(experiment.get("experiment_id"))
        stored = {text(tag.get("key")): text(tag.get("value")) for tag in objects(experiment.get("tags"))}
        call, _ = self._fitter.fit(translate(reading, {}, self._source, name))
        marked = {text(tag["key"]) for tag in marks(ref, self._source)}
        for tag in objects(parse(call.body).get("tags")):
            key = text(tag.get("key"))
            if key in stored and (key in marked or stored[key] == text(tag.get("value"))):
                continue
            answer = await self._backend.send(set_experiment_tag(backend_id, tag))
            if not answer.is_success and (key in marked or answer.status not in _NO):
                return answer, None, False
        return Answer(status=200), learn(EntityKind.EXPERIMENT, ref, self._backend.name, experiment, name), True


def _is_taken(answer: Answer) -> bool:
    return "ALREADY_EXISTS" in answer.error_code
