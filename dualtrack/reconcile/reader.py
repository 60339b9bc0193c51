"""Reads of one backend: an entity, its metric histories, the mirror that carries a mark."""

from collections.abc import AsyncIterator, Sequence

from dualtrack.core.exchange import Answer, Call, Document, Observed
from dualtrack.core.ids import EntityKind, Ref, Twin
from dualtrack.core.verdict import describe, lacks_route
from dualtrack.errors import RejectedError, UnreachableError
from dualtrack.ports import Backend
from dualtrack.translate.document import MalformedError, field, objects, parse, text
from dualtrack.translate.mlflow import (
    PROBE,
    PROBE_MODELS,
    found_by_mark,
    get_call,
    history_page,
    search_by_mark,
    search_models_of,
)
from dualtrack.translate.operations import learn


class Reader:
    """`source` is the primary's name, as the marks carry it; `page` bounds one page of a history."""

    def __init__(self, backend: Backend, source: str, page: int) -> None:
        self._backend = backend
        self._source = source
        self._page = page
        self._has_models: bool | None = None

    async def ask(self, call: Call) -> Answer | None:
        """Read; None when it is not there. Raise `RejectedError` for a no, `UnreachableError` for trouble."""
        answer = await self._backend.send(call)
        if answer.status == 404 and not lacks_route(answer):
            return None  # without a code of its own it is no MLflow that says so
        if answer.status in {400, 405, 409, 422, 501}:
            raise RejectedError(self._backend.name, call.operation, describe(answer))
        if not answer.is_success:
            raise UnreachableError(self._backend.name, call.operation, describe(answer), retry_after=answer.retry_after)
        return answer

    async def get(self, kind: EntityKind, backend_id: str) -> Document | None:
        call = get_call(kind, backend_id)
        answer = await self.ask(call)
        return self._parsed(call, answer) if answer is not None else None

    def _parsed(self, call: Call, answer: Answer) -> Document:
        try:
            return parse(answer.body)
        except MalformedError as error:
            raise UnreachableError(self._backend.name, call.operation, f"an unreadable answer: {error}") from error

    async def histories(self, run_id: str, keys: Sequence[str]) -> dict[str, list[Document]]:
        return {key: [point async for page in self.history(run_id, key) for point in page] for key in keys}

    async def history(self, run_id: str, key: str) -> AsyncIterator[list[Document]]:
        """Page through one metric of one run."""
        token = ""
        while True:
            call = history_page(run_id, key, token, self._page)
            answer = await self.ask(call)
            page = self._parsed(call, answer) if answer is not None else {}
            yield objects(page.get("metrics"))
            token = text(page.get("next_page_token"))
            if not token:
                return

    async def observe(self, kind: EntityKind, backend_id: str, metric_keys: Sequence[str]) -> Observed | None:
        entity = await self.get(kind, backend_id)
        if entity is None:
            return None
        return Observed(entity=entity, histories=await self.histories(backend_id, metric_keys))

    async def has_models(self) -> bool:
        """Say whether this backend knows logged models at all; asked once. Raise `UnreachableError` in doubt.

        A missing route and a gateway in trouble look alike, so another route has to answer at the same time; and a
        gateway that refuses (too many, not signed in) says nothing of what is behind it.
        """
        if self._has_models is None:
            answer = await self._backend.send(PROBE_MODELS)
            is_missing = lacks_route(answer)
            proof = await self._backend.send(PROBE) if is_missing else answer
            if not proof.is_success and not _is_mlflows(proof):
                cause = describe(proof)
                raise UnreachableError(self._backend.name, PROBE_MODELS.operation, cause, retry_after=proof.retry_after)
            self._has_models = not is_missing
        return self._has_models

    async def models_of(self, run_id: str, experiment_id: str) -> list[str]:
        """List the logged models that a run is the source of."""
        if not await self.has_models():
            return []
        token, found = "", list[str]()
        while True:
            call = search_models_of(run_id, experiment_id, token)
            answer = await self.ask(call)
            page = self._parsed(call, answer) if answer is not None else {}
            found += [text(field(model, "info", "model_id")) for model in objects(page.get("models"))]
            token = text(page.get("next_page_token"))
            if not token:
                return found

    async def find_mirror(self, ref: Ref, experiment_id: str) -> Twin | None:
        """Find the run or model that carries the mark of `ref`, in an experiment of this backend."""
        if ref.kind is EntityKind.MODEL and not await self.has_models():
            return None
        call = search_by_mark(ref, experiment_id)
        answer = await self.ask(call)
        listed = self._parsed(call, answer) if answer is not None else {}
        found = found_by_mark(ref.kind, listed, ref, self._source)
        return learn(ref.kind, ref, self._backend.name, found[0]) if found else None


def _is_mlflows(refusal: Answer) -> bool:
    """Say whether the endpoint itself refused: it has read the search, and does not like it or finds nothing."""
    return refusal.status in {400, 404} and bool(refusal.error_code) and not lacks_route(refusal)
