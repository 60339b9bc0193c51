"""The primary as it looks to everybody here: with logged models, whether it has them or not.

A backend without them (Azure ML, a server of MLflow 2) answers every other call itself. These are answered here, so
that an MLflow 3 client can log a model there, and mirroring, settling and reading see a primary like any other:

    logged-models/…           kept on a shelf; the files are below the run's artifacts, in a folder named as the model
    runs/outputs, log-inputs  the links between runs and models, which a run's own answers then show
    log-batch, log-metric     a metric of a model is one of its run; what the run has already is not sent twice
    model-versions/create     a version's source is the folder of the run; on Databricks it is the model's own root,
                              because its workspace registry takes no `models:/m-…` (facts B8)

Whether the backend lacks them is seen when it refuses the first such call for having no such route; it is then probed
until an answer of its own says so (`Looker.has_models`), and asked for none any more. What is read besides, always of
the backend and as dualtrack:

    a run                     once for a create, for a link and for metrics of a model
    its metric histories      where the run's latest points leave a doubt whether it has a model's point (`doubt`)
    a folder of its files     before it becomes a model's
    a logged model            for its root, where the registry wants it spelled

Everything else goes on unread. A primary to which only its clients sign in has no front like this (`app`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from dualtrack.core.artifact import folder_of
from dualtrack.core.exchange import JSON, Answer, Call, Document
from dualtrack.core.ids import EntityKind
from dualtrack.core.routes import Match, classify
from dualtrack.core.verdict import lacks_route
from dualtrack.errors import RejectedError
from dualtrack.models.documents import (
    RefusedError,
    created,
    finalized,
    name_of,
    point_of,
    shown,
    tagged,
    untagged,
    with_links,
    with_params,
)
from dualtrack.models.search import experiments_of, reads_points, search
from dualtrack.ports import ArtifactStore, Backend, KeptModel, Looker, ModelLink, ModelShelf, Reply, Whole
from dualtrack.translate.document import MalformedError, field, objects, parse, text, write
from dualtrack.translate.doubt import missing, unread
from dualtrack.translate.evidence import point

_JSON: Final = (("Content-Type", "application/json"),)
_GONE: Final = "RESOURCE_DOES_NOT_EXIST"
_BAD: Final = "INVALID_PARAMETER_VALUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer, whoever gave it: `error_code` and `message` are read already where dualtrack itself asked."""

    status: int
    body: bytes
    given: Whole | Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that may be about models. `passed` sends it, with this body, to the backend."""

    match: Match
    body: bytes
    passed: Callable[[bytes], Awaitable[Said]]
    document: Document


Handler: TypeAlias = Callable[["ModelFront", Asked], Awaitable[Said]]


class ModelFront:
    """A `Backend`. `looker` reads the backend itself, `store` is where its files lie, `now` is seconds.

    `spells_sources`: its registry wants to be told where a logged model's files are.
    """

    def __init__(
        self,
        backend: Backend,
        shelf: ModelShelf,
        looker: Looker,
        store: ArtifactStore,
        now: Callable[[], float],
        new_id: Callable[[], str],
        *,
        spells_sources: bool = False,
    ) -> None:
        self._backend = backend
        self._shelf = shelf
        self._looker = looker
        self._store = store
        self._now = now
        self._new_id = new_id
        self._spells_sources = spells_sources
        self._has_models: bool | None = None
        self.name = backend.name

    def stream(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | AsyncIterator[bytes] | None
    ) -> AbstractAsyncContextManager[Reply]:
        """Pass a request on as it is: nothing that is about models is streamed."""
        return self._backend.stream(method, target, headers, body)

    async def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Whole:
        async def passed(body: bytes) -> Said:
            whole = await self._backend.exchange(method, target, headers, body)
            return Said(status=whole.status, body=whole.body, given=whole)

        said = await self._answered(method, target, body, passed)
        if said is None:
            return await self._backend.exchange(method, target, headers, body)
        if isinstance(said.given, Whole):
            return said.given if said.given.body is said.body else _reworded(said.given, said.body)
        return Whole(status=said.status, reason="", headers=_JSON, body=said.body)

    async def send(self, call: Call) -> Answer:
        async def passed(body: bytes) -> Said:
            answer = await self._backend.send(replace(call, body=body))
            return Said(status=answer.status, body=answer.body, given=answer)

        said = await self._answered(call.method, call.target, call.body, passed)
        if said is None:
            return await self._backend.send(call)
        if isinstance(said.given, Answer):
            return replace(said.given, body=said.body)
        if said.status < 300:
            return Answer(status=said.status, body=said.body)
        told = parse(said.body)
        return Answer(
            status=said.status,
            body=said.body,
            error_code=text(told.get("error_code")),
            message=text(told.get("message")),
        )

    async def _answered(
        self, method: str, target: str, body: bytes, passed: Callable[[bytes], Awaitable[Said]]
    ) -> Said | None:
        """Answer what is about models; None for everything else, which goes on unread."""
        match = classify(method, target.partition("?")[0])
        handler = _HANDLERS.get(match.route.operation) if match is not None else None
        if match is None or handler is None or not await self._is_concerned(match, body):
            return None
        try:
            asked = Asked(match=match, body=body, passed=passed, document=parse(body))
            return await handler(self, asked)
        except (RefusedError, MalformedError) as error:
            return _refusal(error)

    async def _is_concerned(self, match: Match, body: bytes) -> bool:
        operation = match.route.operation
        if _MENTIONS.get(operation, b"") not in body:
            return False
        if operation == "createModelVersion" and self._spells_sources:
            return True
        if operation in _BEGINNINGS:
            return self._has_models is not True
        return (operation in _OF_MODELS and self._has_models is False) or await self._shelf.is_used()

    async def _from_backend(self, asked: Asked) -> Said | None:
        """Let the backend answer, if it may know logged models; None from when on it is known not to."""
        if self._has_models is False:
            return None
        said = await asked.passed(asked.body)
        if not _lacks_route(said):
            self._has_models = True if said.status < 300 else self._has_models
            return said
        self._has_models = await self._looker.has_models()
        return said if self._has_models else None

    # --- models ---------------------------------------------------------------------------------------------------

    async def create(self, asked: Asked) -> Said:
        if (said := await self._from_backend(asked)) is not None:
            return said
        name = name_of(asked.document)
        run = await self._source_run(text(asked.document.get("source_run_id")))
        run_root, experiment_id = text(run.get("artifact_uri")), text(run.get("experiment_id"))
        if text(asked.document.get("experiment_id")) not in {"", experiment_id}:
            raise RefusedError(400, _BAD, f"the run is not of that experiment, but of {experiment_id}")
        model_id = f"m-{self._new_id()}"
        for folder in (folder_of(name), folder_of(f"{name}-{model_id}")):
            root = f"{run_root.rstrip('/')}/{folder}"
            document = created({**asked.document, "experiment_id": experiment_id}, model_id, root, self._at())
            model = KeptModel(model_id=model_id, experiment_id=experiment_id, root=root, document=write(document))
            # a folder of the run's own may be called so
            if (folder.endswith(model_id) or await self._is_free(run_root, folder)) and await self._shelf.add(model):
                return _ok({"model": document})
        raise RefusedError(409, "RESOURCE_CONFLICT", f"the run has files below {name!r} and below its id")

    async def _source_run(self, run_id: str) -> Document:
        """Answer the `info` of the run that a model is to be a folder of."""
        if not run_id:
            words = (
                f"{self.name} keeps no logged models: one that is logged here is files of a run, and this one names"
                " none. Log it inside `with mlflow.start_run():`"
            )
            raise RefusedError(400, _BAD, words)
        return await self._run(run_id)

    async def _run(self, run_id: str) -> Document:
        """Answer a run's `info`; refuse where there is no such run."""
        try:
            found = await self._looker.get(EntityKind.RUN, run_id)
        except RejectedError as error:
            raise RefusedError(400, _BAD, str(error)) from error
        info = field(found, "run", "info")
        if not isinstance(info, dict) or not info.get("artifact_uri"):
            raise RefusedError(404, _GONE, f"Run with id={run_id} not found")
        return info

    async def _is_free(self, run_root: str, folder: str) -> bool:
        try:
            return not await self._store.list(run_root, folder)
        except RejectedError as error:
            raise RefusedError(400, _BAD, str(error)) from error

    async def get(self, asked: Asked) -> Said:
        return await self._told(await self._shelf.model(asked.match.params["model_id"]), asked)

    async def _told(self, model: KeptModel | None, asked: Asked) -> Said:
        """Answer a model whole; the backend says what is to be said about one that is not ours."""
        if model is None:
            return await self._elsewhere(asked)
        (document,) = await self._whole([model])
        return _ok({"model": document})

    async def _elsewhere(self, asked: Asked) -> Said:
        if (said := await self._from_backend(asked)) is not None:
            return said
        raise RefusedError(404, _GONE, f"Logged model with ID '{_model_id(asked)}' not found.")

    async def _whole(self, models: list[KeptModel]) -> list[Document]:
        return _documents(models, await self._shelf.points([model.model_id for model in models]))

    async def find(self, asked: Asked) -> Said:
        if (said := await self._from_backend(asked)) is not None:
            return said
        models = {model.model_id: model for model in await self._shelf.models(experiments_of(asked.document))}
        if not models:
            return _ok({})
        points = await self._shelf.points(list(models)) if reads_points(asked.document) else {}
        found, token = await asyncio.to_thread(_searched, list(models.values()), points, asked.document)
        page = await self._whole([models[model_id] for model_id in found])
        return _ok({"models": list[JSON](page)} | ({"next_page_token": token} if token else {}))

    async def finalize(self, asked: Asked) -> Said:
        return await self._changed(asked, lambda document: finalized(document, asked.document, self._at()))

    async def set_tags(self, asked: Asked) -> Said:
        return await self._changed(asked, lambda document: tagged(document, asked.document, self._at()))

    async def delete_tag(self, asked: Asked) -> Said:
        key = asked.match.params["tag_key"]
        said = await self._changed(asked, lambda document: untagged(document, key, self._at()))
        return said if said.given is not None else _ok({})

    async def log_params(self, asked: Asked) -> Said:
        said = await self._changed(asked, lambda document: with_params(document, asked.document, self._at()))
        return said if said.given is not None else _ok({})

    async def _changed(self, asked: Asked, change: Callable[[Document], Document]) -> Said:
        model = await self._shelf.change(_model_id(asked), lambda document: write(change(parse(document))))
        return await self._told(model, asked)

    async def delete(self, asked: Asked) -> Said:
        is_ours = await self._shelf.remove(_model_id(asked))
        return _ok({}) if is_ours else await self._elsewhere(asked)

    def _at(self) -> int:
        return int(self._now() * 1000)

    # --- runs -----------------------------------------------------------------------------------------------------

    async def log_outputs(self, asked: Asked) -> Said:
        return await self._linked(asked, is_input=False)

    async def log_inputs(self, asked: Asked) -> Said:
        return await self._linked(asked, is_input=True)

    async def _linked(self, asked: Asked, *, is_input: bool) -> Said:
        """Link our models to their run; other models, and data sets, are the backend's, and it is told first."""
        ours, others = await self._parted(asked)
        if not ours:
            return await asked.passed(asked.body)
        run_id = _run_id(asked.document)
        await self._run(run_id)
        said = _ok({})
        if others or asked.document.get("datasets"):
            said = await asked.passed(write({**asked.document, "models": list[JSON](others)}))
        if said.status < 300:
            await self._shelf.link(
                [ModelLink(run_id=run_id, model_id=_id(item), is_input=is_input, step=_step(item)) for item in ours]
            )
        return said

    async def _parted(self, asked: Asked) -> tuple[list[Document], list[Document]]:
        """The models that a request links to its run: ours, and others."""
        named = objects(asked.document.get("models"))
        ours = await self._ours(named)
        return [item for item in named if _id(item) in ours], [item for item in named if _id(item) not in ours]

    async def _ours(self, items: list[Document]) -> dict[str, KeptModel]:
        found = {model_id: await self._shelf.model(model_id) for model_id in {_id(item) for item in items} - {""}}
        return {model_id: model for model_id, model in found.items() if model is not None}

    async def show_links(self, asked: Asked) -> Said:
        """Pass a read of runs on, and tell in its answer which models belong to them."""
        said = await asked.passed(asked.body)
        if said.status != 200:
            return said
        document = parse(said.body)
        runs = [run for run in (document.get("run"), *objects(document.get("runs"))) if isinstance(run, dict)]
        links = await self._shelf.links([text(field(run, "info", "run_id")) for run in runs])
        if not links:
            return said

        def linked(run: Document) -> Document:
            own = [link for link in links if link.run_id == field(run, "info", "run_id")]
            inputs = [link.model_id for link in own if link.is_input]
            return with_links(run, inputs, {link.model_id: link.step for link in own if not link.is_input})

        if isinstance(run := document.get("run"), dict):
            document["run"] = linked(run)
        if "runs" in document:
            document["runs"] = [linked(run) for run in objects(document["runs"])]
        return replace(said, body=write(document))

    # --- metrics --------------------------------------------------------------------------------------------------

    async def log_metrics(self, asked: Asked) -> Said:
        """Keep the metrics of our models, and give the run those of them that it does not have yet."""
        is_batch = asked.match.route.operation == "logBatch"
        metrics = objects(asked.document.get("metrics")) if is_batch else [asked.document]
        ours = await self._ours(metrics)
        if not ours:
            return await asked.passed(asked.body)
        run_id = _run_id(asked.document)
        of_models = [metric for metric in metrics if _id(metric) in ours]
        of_run = [metric for metric in metrics if _id(metric) not in ours]
        new = await self._unlogged(run_id, of_models, of_run)
        if is_batch:
            rest = {**asked.document, "metrics": list[JSON]([*of_run, *new])}
            is_empty = not (rest["metrics"] or rest.get("params") or rest.get("tags"))
            said = _ok({}) if is_empty else await asked.passed(write(rest))
        else:
            said = await asked.passed(write(new[0])) if new else _ok({})
        if said.status < 300:
            await self._shelf.add_points([(_id(metric), write(point_of(metric, run_id))) for metric in of_models])
        return said

    async def _unlogged(self, run_id: str, of_models: list[Document], of_run: list[Document]) -> list[Document]:
        """Those points that the run does not have: MLflow 3's `log_model` sends all of a step once more (facts 11)."""
        sent = {_named(metric) for metric in of_run}
        once = {_named(metric): metric for metric in of_models if _named(metric) not in sent}
        points = [{name: value for name, value in metric.items() if name != "model_id"} for metric in once.values()]
        try:
            run = await self._looker.get(EntityKind.RUN, run_id) or {}
            histories = await self._looker.histories(run_id, unread(points, run))
        except RejectedError:  # the backend itself says what is wrong with it; rather a point twice than none
            return points
        return missing(points, run, histories, {})

    # --- the registry ---------------------------------------------------------------------------------------------

    async def create_version(self, asked: Asked) -> Said:
        """Say where a model's files are, where the registry cannot follow `models:/m-…` by itself."""
        source = text(asked.document.get("source"))
        named = source.removeprefix("models:/") if source.startswith("models:/m-") else _id(asked.document)
        model = await self._shelf.model(named)
        if model is not None:
            run_id = text(field(parse(model.document), "info", "source_run_id"))
            rest = {name: value for name, value in asked.document.items() if name != "model_id"}
            return await asked.passed(write({"run_id": run_id, **rest, "source": model.root}))
        if self._spells_sources and source == f"models:/{named}":
            found = await self._looker.get(EntityKind.MODEL, named)
            root = text(field(found, "model", "info", "artifact_uri"))
            if root:
                return await asked.passed(write({**asked.document, "source": root}))
        return await asked.passed(asked.body)


_HANDLERS: Final[dict[str, Handler]] = {
    "createLoggedModel": ModelFront.create,
    "searchLoggedModels": ModelFront.find,
    "getLoggedModel": ModelFront.get,
    "finalizeLoggedModel": ModelFront.finalize,
    "setLoggedModelTags": ModelFront.set_tags,
    "deleteLoggedModelTag": ModelFront.delete_tag,
    "logLoggedModelParams": ModelFront.log_params,
    "deleteLoggedModel": ModelFront.delete,
    "logOutputs": ModelFront.log_outputs,
    "logInputs": ModelFront.log_inputs,
    "logBatch": ModelFront.log_metrics,
    "logMetric": ModelFront.log_metrics,
    "createModelVersion": ModelFront.create_version,
    "getRun": ModelFront.show_links,
    "searchRuns": ModelFront.show_links,
}
# without this in its body a request is not about models
_MENTIONS: Final = {
    "logBatch": b"odel",  # model_id, modelId
    "logMetric": b"odel",
    "logInputs": b"models",
    "createModelVersion": b"m-",
}
# these are ours from the start, where there are no models
_BEGINNINGS: Final = frozenset({"createLoggedModel", "searchLoggedModels"})
_OF_MODELS: Final = frozenset(name for name in _HANDLERS if "LoggedModel" in name)


def _documents(models: Sequence[KeptModel], points: Mapping[str, Sequence[bytes]]) -> list[Document]:
    return [shown(parse(model.document), [parse(kept) for kept in points.get(model.model_id, ())]) for model in models]


def _searched(
    models: Sequence[KeptModel], points: Mapping[str, Sequence[bytes]], request: Document
) -> tuple[list[str], str]:
    return search(_documents(models, points), request)


def _ok(document: Document) -> Said:
    return Said(status=200, body=write(document))


def _refusal(error: RefusedError | MalformedError) -> Said:
    if isinstance(error, RefusedError):
        return Said(status=error.status, body=write({"error_code": error.code, "message": error.message}))
    return Said(status=400, body=write({"error_code": "MALFORMED_REQUEST", "message": str(error)}))


def _reworded(whole: Whole, body: bytes) -> Whole:
    kept = tuple((name, value) for name, value in whole.headers if name.lower() not in {"content-length", "etag"})
    return replace(whole, headers=kept, body=body)


def _lacks_route(said: Said) -> bool:
    if said.status != 404:
        return False
    try:
        code = text(parse(said.body).get("error_code"))
    except MalformedError:  # a web page
        return True
    return lacks_route(Answer(status=404, error_code=code))


def _id(item: Document) -> str:
    return text(item.get("model_id"))


def _model_id(asked: Asked) -> str:
    """The model that a call names: for a finalize the body's id is the one that counts (facts section 3)."""
    return _id(asked.document) or asked.match.params["model_id"]


def _run_id(document: Document) -> str:
    return text(document.get("run_id")) or text(document.get("run_uuid"))


def _step(item: Document) -> int:
    return int(point(item)[0] or 0)


def _named(metric: Document) -> tuple[str, tuple[float | None, ...]]:
    """What makes a point of a run the same as another."""
    return text(metric.get("key")), point(metric)
