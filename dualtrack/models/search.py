"""Searches of logged models, in MLflow's own filter and ordering language, by MLflow's own code.

mlflow-skinny reads, judges and sorts; it is slow to import (some 2 s and 150 MiB), so that happens with the first
search that has something to look through, and in a thread.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dualtrack.core.exchange import JSON, Document
from dualtrack.models.documents import RefusedError
from dualtrack.translate.document import field, objects, text

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

_MOST = 100  # mlflow/store/tracking, SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT


def search(models: Sequence[Document], request: Document) -> tuple[list[Document], str]:
    """Answer one page of `models` (as `documents.shown` gives them) and the token of the next; '' on the last.

    Raise `RefusedError` for what MLflow cannot read. Blocks: call it in a thread.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see above
    from mlflow.utils.search_utils import SearchLoggedModelsUtils  # noqa: PLC0415

    mlflows: Any = SearchLoggedModelsUtils  # parts of it are not typed
    most = request.get("max_results")
    by_id = {text(field(model, "info", "model_id")): model for model in models}
    try:
        entities = [_entity(model) for model in models]
        found = mlflows.filter_logged_models(entities, text(request.get("filter")), _datasets(request))
        ordered = mlflows.sort(found, objects(request.get("order_by")))
        page, token = mlflows.paginate(ordered, request.get("page_token"), most if isinstance(most, int) else _MOST)
    except MlflowException as error:
        raise RefusedError(400, "INVALID_PARAMETER_VALUE", str(error.message)) from error
    except (ValueError, TypeError) as error:
        raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"the search cannot be read: {error}") from error
    return [by_id[entity.model_id] for entity in page], token.decode() if token else ""


def _datasets(request: Document) -> list[Document] | None:
    return objects(request.get("datasets")) or None


def _entity(model: Document) -> "LoggedModel":
    from mlflow.entities import LoggedModel, LoggedModelStatus, Metric  # noqa: PLC0415 - see above

    info = _fields(model.get("info"))
    return LoggedModel(
        experiment_id=text(info.get("experiment_id")),
        model_id=text(info.get("model_id")),
        name=text(info.get("name")),
        artifact_location=text(info.get("artifact_uri")),
        creation_timestamp=_whole(info.get("creation_timestamp_ms")),
        last_updated_timestamp=_whole(info.get("last_updated_timestamp_ms")),
        model_type=text(info.get("model_type")) or None,
        source_run_id=text(info.get("source_run_id")) or None,
        status=LoggedModelStatus(text(info.get("status")).removeprefix("LOGGED_MODEL_").removeprefix("UPLOAD_")),
        tags=_map(info.get("tags")),
        params=_map(field(model, "data", "params")),
        metrics=[
            Metric(
                key=text(point.get("key")),
                value=_number(point.get("value")),
                timestamp=_whole(point.get("timestamp")),
                step=_whole(point.get("step")),
                dataset_name=text(point.get("dataset_name")) or None,
                dataset_digest=text(point.get("dataset_digest")) or None,
            )
            for point in objects(field(model, "data", "metrics"))
        ],
    )


def _fields(node: JSON) -> Document:
    return node if isinstance(node, dict) else {}


def _map(listed: JSON) -> dict[str, str]:
    return {text(item.get("key")): text(item.get("value")) for item in objects(listed)}


def _number(value: JSON) -> float:
    return float(value) if isinstance(value, (int, float, str)) else 0.0


def _whole(value: JSON) -> int:
    return int(text(value) or 0)
