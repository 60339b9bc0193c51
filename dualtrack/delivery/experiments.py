"""An experiment's place on a backend: found by its translated name, made if absent, never shared by two.

Names are the identity here, so this asks before it makes, every time; a lost answer finds what it made.
"""

from collections.abc import Iterable

from dualtrack.core.exchange import Answer, Call, Document
from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.errors import UnreachableError
from dualtrack.ports import Backend, IdMap
from dualtrack.translate.databricks import lacks_parent, make_parent
from dualtrack.translate.document import field, objects, parse, parse_answer, text
from dualtrack.translate.fitting import Fitter
from dualtrack.translate.mlflow import experiment_by_name, mark_of, marks, set_experiment_tag, split_tags, translate
from dualtrack.translate.names import NameRule, qualify, translate_name
from dualtrack.translate.operations import Reading, learn

_NO = frozenset({400, 404, 405, 409, 413, 422})  # a tag that is not taken is no reason to have no experiment


class Experiments:
    """The experiments of one backend. `most_tags` is how many a create may have there."""

    def __init__(
        self,
        backend: Backend,
        ids: IdMap,
        source: str,
        rule: NameRule,
        fitter: Fitter,
        most_tags: int | None = None,
    ) -> None:
        self._backend = backend
        self._ids = ids
        self._source = source
        self._rule = rule
        self._fitter = fitter
        self._most_tags = most_tags

    def name_for(self, original: str, ref: Ref) -> str:
        return translate_name(original, self._rule, ref.client_id)

    async def send(self, call: Call, name: str) -> Answer:
        """Make a call that gives an experiment `name`; a workspace's folder that is not there is made first."""
        answer = await self._backend.send(call)
        if not lacks_parent(answer):
            return answer
        made = await self._backend.send(make_parent(name))
        return await self._backend.send(call) if made.is_success else made

    async def place(self, reading: Reading) -> tuple[Answer, Twin | None, bool]:
        """Find or make the experiment: the last answer, its twin if it has one now, and whether it was there.

        Without a twin the answer says why. An answer of status 409 is ours: the name belongs to another experiment.
        """
        ref = reading.subject
        assert ref is not None, "an experiment is placed after the primary made it"
        original = text(reading.document.get("name"))
        wanted = self.name_for(original, ref)
        names = [wanted, qualify(wanted, original)] if self._rule.qualifies else [wanted]
        for name in names:
            answer = await self._backend.send(experiment_by_name(name))
            if answer.status == 404 and answer.error_code in {"RESOURCE_DOES_NOT_EXIST", ""}:
                made, twin, _ = await self._make(reading, ref, name)
                if "ALREADY_EXISTS" not in made.error_code:
                    return made, twin, False
                # another lane made one of that name in between
                answer = await self._backend.send(experiment_by_name(name))
            if not answer.is_success:
                return answer, None, False
            found = field(parse_answer(answer.body), "experiment")
            if not found:
                raise UnreachableError(self._backend.name, "getExperimentByName", "an answer without an experiment")
            if await self._is_ours(found, ref, name):
                return await self._take(found, reading, name)
        message = f"experiment name {wanted!r} belongs to another experiment on {self._backend.name}"
        return Answer(status=409, error_code="NAME_COLLISION", message=message), None, False

    async def _make(self, reading: Reading, ref: Ref, name: str) -> tuple[Answer, Twin | None, bool]:
        call, later = self._create_of(reading, name)
        answer = await self.send(call, name)
        if not answer.is_success:
            return answer, None, False
        twin = learn(EntityKind.EXPERIMENT, ref, self._backend.name, parse_answer(answer.body), name)
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

    async def _is_ours(self, found: object, ref: Ref, name: str) -> bool:
        """Say whether the experiment that has the name may be the mirror: marked so, or nobody's and alive."""
        experiment: Document = found if isinstance(found, dict) else {}
        marked, source = mark_of(experiment)
        if marked:
            return marked == ref.client_id and source in {self._source, ""}
        other = await self._ids.named(EntityKind.EXPERIMENT, self._backend.name, name)
        is_free = other is None or other.ref == ref
        return is_free and experiment.get("lifecycle_stage") != "deleted"

    async def _take(self, found: object, reading: Reading, name: str) -> tuple[Answer, Twin | None, bool]:
        """Make what is there the mirror: its marks, and the tags that the experiment was told with."""
        experiment: Document = found if isinstance(found, dict) else {}
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
