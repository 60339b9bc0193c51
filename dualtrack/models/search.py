"""Searches of logged models, in MLflow's own filter and ordering language, by MLflow's own code.

mlflow-skinny reads, judges and sorts, all but patterns (`Pattern`); what one search may cost is bounded here, since
nothing stops it once it runs. It is slow to import (some 2 s and 150 MiB), so that happens with the first search that
has something to look through, and in a thread.
"""

import math
import re
from collections.abc import Container, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from dualtrack.core.exchange import JSON, Document
from dualtrack.core.views import number
from dualtrack.models.documents import RefusedError
from dualtrack.translate.document import field, objects, text

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric

_PAGE = 100  # mlflow/store/tracking, SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
_PAGE_MOST = 1000
_EXPERIMENTS_MOST = 1000
_LISTED_MOST = 100  # orders, and data sets
_FILTER_MOST = 5000  # characters: MLflow takes 0.2 s to read as many
_PATTERNS = frozenset({"LIKE", "ILIKE"})
# what MLflow's code fails with on what it does not foresee: a comparator of another search, a number too large, …
_UNREAD = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


def experiments_of(request: Document) -> list[str]:
    """Name the experiments that are searched, each once. Raise `RefusedError` for too many."""
    listed = request.get("experiment_ids")
    named = list(dict.fromkeys(text(item) for item in listed)) if isinstance(listed, list) else []
    if len(named) > _EXPERIMENTS_MOST:
        raise _refused(f"a search is of at most {_EXPERIMENTS_MOST} experiments")
    return named


def reads_points(request: Document) -> bool:
    """Say whether models have to come with their metrics to be searched; in doubt they do."""
    ordered = [text(item.get("field_name")) for item in objects(request.get("order_by"))]
    words = " ".join([text(request.get("filter")), *ordered])
    return "metric" in words.lower() or bool(_datasets(request))


def search(models: Sequence[Document], request: Document) -> tuple[list[str], str]:
    """Answer the ids of one page of `models` (as `documents.shown` gives them) and the token of the next, if any.

    Raise `RefusedError` for what MLflow cannot read, and for what would take too long. Blocks: call it in a thread.
    """
    most, wanted = _page_size(request), text(request.get("filter"))
    if len(wanted) > _FILTER_MOST:
        raise _refused(f"a filter has at most {_FILTER_MOST} characters")
    if max(len(objects(request.get(name))) for name in ("order_by", "datasets")) > _LISTED_MOST:
        raise _refused(f"a search has at most {_LISTED_MOST} orders and data sets")
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see above

    mlflows = _mlflows()
    entities = [_entity(model) for model in models]
    try:
        found = mlflows.filter_logged_models(entities, wanted, _datasets(request))
        ordered = mlflows.sort(found, objects(request.get("order_by")))
        page, token = mlflows.paginate(ordered, request.get("page_token"), most)
    except MlflowException as error:
        raise _refused(str(error.message)) from error
    except _UNREAD as error:
        raise _refused(f"the search cannot be read: {error}") from error
    return [entity.model_id for entity in page], token.decode() if token else ""


def _refused(words: str) -> RefusedError:
    return RefusedError(400, "INVALID_PARAMETER_VALUE", words)


def _page_size(request: Document) -> int:
    given = request.get("max_results")
    if given is None:
        return _PAGE
    if not isinstance(given, int) or not 1 <= given <= _PAGE_MOST:
        raise _refused(f"max_results is a number from 1 to {_PAGE_MOST}")
    return given


def _datasets(request: Document) -> list[Document] | None:
    return objects(request.get("datasets")) or None


class Pattern:
    """What a string is compared with for LIKE, in place of MLflow's own match.

    That one tries every way of placing a pattern's `%`, which for `%a%a%a…b` does not end. Here each part is looked for
    once, where it comes first: that is enough, since what follows has the more room.
    """

    def __init__(self, pattern: str, *, is_any_case: bool) -> None:
        first, *parts = [re.escape(part).replace("_", ".") for part in pattern.split("%")]
        last = f".*{parts.pop()}\\Z" if parts else "\\Z"
        found = first + "".join(f"(?>.*?{part})" for part in parts if part) + last
        self._expression = re.compile(found, re.DOTALL | (re.IGNORECASE if is_any_case else re.NOFLAG))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._expression.match(other) is not None

    __hash__ = None  # type: ignore[assignment]  # it is equal to many


@cache
def _mlflows() -> Any:  # parts of it are not typed
    from mlflow.utils.search_utils import SearchLoggedModelsUtils  # noqa: PLC0415 - see above

    class Searches(SearchLoggedModelsUtils):
        """MLflow's, with patterns of ours."""

        @classmethod
        def parse_search_filter(cls, filter_string: str) -> list[dict[str, Any]]:
            clauses = super().parse_search_filter(filter_string)  # type: ignore[no-untyped-call]
            return [_matched(clause, cls.NUMERIC_ATTRIBUTES) for clause in clauses]

    return Searches


def _matched(clause: dict[str, Any], numbers: Container[str]) -> dict[str, Any]:
    """Let a clause of a pattern match by `Pattern`; what MLflow refuses (a number like another) stays as it is."""
    comparator, pattern = clause["comparator"].upper(), clause["value"]
    if comparator not in _PATTERNS or clause["type"] == "metric" or clause["key"] in numbers:
        return clause
    return {**clause, "comparator": "=", "value": Pattern(pattern, is_any_case=comparator == "ILIKE")}


def _entity(model: Document) -> "LoggedModel":
    from mlflow.entities import LoggedModel, LoggedModelStatus  # noqa: PLC0415 - see above

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
        metrics=[_metric(point) for point in objects(field(model, "data", "metrics"))],
    )


def _metric(point: Document) -> "Metric":
    from mlflow.entities import Metric  # noqa: PLC0415 - see above

    name, digest = text(point.get("dataset_name")), text(point.get("dataset_digest"))
    is_of_data = bool(name or digest)  # one without the other is none for MLflow, and would end every search
    return Metric(
        key=text(point.get("key")),
        value=_number(point.get("value")),
        timestamp=_whole(point.get("timestamp")),
        step=_whole(point.get("step")),
        dataset_name=name if is_of_data else None,
        dataset_digest=digest if is_of_data else None,
    )


def _fields(node: JSON) -> Document:
    return node if isinstance(node, dict) else {}


def _map(listed: JSON) -> dict[str, str]:
    return {text(item.get("key")): text(item.get("value")) for item in objects(listed)}


def _number(value: JSON) -> float:
    known = number(value)
    return math.nan if known is None else known


def _whole(value: JSON) -> int:
    return int(number(value) or 0)
