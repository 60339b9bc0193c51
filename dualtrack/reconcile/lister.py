"""Pages through what one backend holds, one page in memory at a time."""

from collections.abc import AsyncIterator, Callable

from dualtrack.core.exchange import Answer, Call, Document
from dualtrack.core.ids import EntityKind
from dualtrack.errors import RejectedError, UnreachableError
from dualtrack.reconcile.patience import Patience
from dualtrack.reconcile.reader import Reader
from dualtrack.translate.document import MalformedError, field, objects, parse, text
from dualtrack.translate.listing import (
    NEWEST_FIRST,
    OLDEST_FIRST,
    from_source,
    search_experiments,
    search_models,
    search_runs,
)
from dualtrack.translate.mlflow import experiment_by_name, get_call


class Lister:
    """`backend` is the name of the one that `reader` reads; `patience` asks again what got no answer."""

    def __init__(self, reader: Reader, backend: str, patience: Patience) -> None:
        self._reader = reader
        self._backend = backend
        self._patience = patience

    async def _ask(self, call: Call) -> Answer | None:
        return await self._patience(lambda: self._reader.ask(call))

    async def experiments(self) -> AsyncIterator[list[Document]]:
        async for page in self._pages(search_experiments, "experiments"):
            yield page

    async def experiment(self, name_or_id: str) -> Document | None:
        """Find one experiment, by its name if there is one of that name, else by its id."""
        for call in (experiment_by_name(name_or_id), get_call(EntityKind.EXPERIMENT, name_or_id)):
            try:
                answer = await self._ask(call)
            except RejectedError:
                continue  # what cannot be an id is none
            found = field(parse(answer.body), "experiment") if answer is not None else None
            if isinstance(found, dict):
                return found
        return None

    async def runs(
        self, experiment_id: str, *, wanted: str = "", since: float | None = None
    ) -> AsyncIterator[list[Document]]:
        """List runs, parents before the children that they started.

        With `since` the newest come first, page by page, and the listing ends at the first page that is older: a
        condition on the start time is not written alike for all backends (facts A8).
        """
        order = OLDEST_FIRST if since is None else NEWEST_FIRST
        async for page in self._pages(lambda token: search_runs(experiment_id, wanted, order, token), "runs"):
            if since is None:
                yield page
                continue
            young = [run for run in page if started_at(run) >= since]
            yield young[::-1]
            if len(young) < len(page):
                return

    async def models(self, experiment_id: str) -> AsyncIterator[list[Document]]:
        """List logged models; nothing where the backend has none."""
        if await self._patience(self._reader.has_models):
            async for page in self._pages(lambda token: search_models(experiment_id, token), "models"):
                yield page

    async def has_mirrors(self, experiment_id: str, source: str) -> bool:
        """Say whether an experiment holds any run that mirrors one of `source`."""
        call = search_runs(experiment_id, from_source(source), OLDEST_FIRST, "", 1)
        answer = await self._ask(call)
        return answer is not None and bool(objects(parse(answer.body).get("runs")))

    async def _pages(self, page_of: Callable[[str], Call], name: str) -> AsyncIterator[list[Document]]:
        token = ""
        while True:
            call = page_of(token)
            answer = await self._ask(call)
            try:
                page = parse(answer.body) if answer is not None else {}
            except MalformedError as error:
                raise UnreachableError(self._backend, call.operation, f"an unreadable answer: {error}") from error
            yield objects(page.get(name))
            token = text(page.get("next_page_token"))
            if not token:
                return


def started_at(run: Document) -> float:
    """When a run began, in seconds since the epoch; 0 when it does not say."""
    started = text(field(run, "info", "start_time"))
    return int(started) / 1000 if started.isdecimal() else 0.0
