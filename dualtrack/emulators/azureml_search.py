"""What `runs/search` and `metrics/get-history` of an Azure ML workspace refuse (facts/backends A7, A8, items 7 and 8).

The comparisons of a filter are judged one by one; what is no filter at all is left to the real server. The other way
round, `as_mlflow` rewrites what only the service takes: quoted numbers, and its words for states. Its attribute
`duration` is not imitated.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from dualtrack.emulators.azureml_errors import Objection
from dualtrack.emulators.tracking import Call, Reply, Send

JSON: TypeAlias = Any

HISTORY_PAGE = 1000  # `max_results` is refused from here on, mlflow#10694
UNSORTED: Final = frozenset({"metric", "metrics", "param", "params", "parameter", "parameters", "tag", "tags"})
METRICS: Final = frozenset({"metric", "metrics"})
PARAMS: Final = frozenset({"param", "params", "parameter", "parameters"})
ATTRIBUTES: Final = frozenset({"attribute", "attributes", "attr", "run"})
TAGS: Final = frozenset({"tag", "tags"})
PARAM_OPERATORS: Final = frozenset({"=", "!=", "LIKE"})
NUMBERS: Final = frozenset({"start_time", "end_time", "created"})
STATES: Final = {
    "scheduled": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
}

# a name may have quoted parts: tags."mlflow.user", metrics.`a b`
NAME = r"""[A-Za-z_][\w.\-/]*(?:\.(?:"[^"]*"|`[^`]*`))?"""
COMPARISON = re.compile(
    rf"""(?P<name>{NAME}|"[^"]*"|`[^`]*`)\s*(?P<operator><=|>=|!=|=|<|>|(?i:NOT\s+IN|NOT\s+LIKE|IN|LIKE|ILIKE)\b)\s*"""
    r"""(?P<value>'[^']*'|"[^"]*"|\([^)]*\)|[^\s()'"]+)"""
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a filter: `entity.key operator value`, the value as it was written."""

    entity: str
    key: str
    operator: str
    value: str


def comparisons(text: str) -> Iterator[Comparison]:
    return map(_comparison, COMPARISON.finditer(text))


def _comparison(found: re.Match[str]) -> Comparison:
    """Take a match apart; a name alone is an attribute's."""
    entity, dot, key = found["name"].partition(".")
    if not dot:
        entity, key = "attributes", entity
    return Comparison(entity.lower(), key, re.sub(r"\s+", " ", found["operator"].upper()), found["value"])


def of_search(call: Call) -> Objection | None:
    """Say why the service would refuse this search, as far as its documentation tells."""
    if not call.path.endswith("/mlflow/runs/search"):
        return None
    why = _of_order(call.document) or _of_filter(str(call.document.get("filter") or ""))
    return Objection(message=why) if why else None


def of_history(call: Call) -> Objection | None:
    """Refuse pages of a metric's history that are too long, which MLflow's own client asks for."""
    asked = call.asked("max_results") if call.path.endswith("/mlflow/metrics/get-history") else ""
    if not asked.isdecimal() or int(asked) < HISTORY_PAGE:
        return None
    message = f"MaxResults = {asked} is invalid: MaxResults must be less than {HISTORY_PAGE}."
    return Objection(message=message, code="BAD_REQUEST")


def _of_order(document: Mapping[str, JSON]) -> str:
    for item in document.get("order_by") or ():
        entity = str(item).partition(".")[0].strip().lower()
        if entity in UNSORTED:
            return f"Runs cannot be ordered by {entity}: '{item}'."
    return ""


def _of_filter(text: str) -> str:
    bare = re.sub(r"""'[^']*'|"[^"]*"|`[^`]*`""", "''", text)
    if re.search(r"\bOR\b", bare, re.IGNORECASE):
        return "The operator OR is not supported in a filter."
    return next((why for each in comparisons(text) if (why := _of_comparison(each))), "")


def _of_comparison(asked: Comparison) -> str:
    match asked.entity:
        case entity if entity in METRICS and asked.key[:1] in {'"', "`"}:
            return f"Names of metrics cannot be quoted: {asked.key}."
        case entity if entity in PARAMS and asked.operator not in PARAM_OPERATORS:
            return f"Parameters are compared by =, != and LIKE, not by {asked.operator}."
        case entity if entity in TAGS and asked.operator == "!=":
            return "Tags cannot be compared by !=."
        case entity if entity in ATTRIBUTES and asked.value[:1] not in {"'", '"', "("}:
            return f"The value of attribute {asked.key} must be quoted: {asked.value}."
    return ""


async def as_mlflow(call: Call, send: Send) -> Reply:
    """Say a search in the real server's words: a middleware."""
    if not call.path.endswith("/mlflow/runs/search") or not call.document.get("filter"):
        return await send(call)
    text = COMPARISON.sub(_translated, str(call.document["filter"]))
    return await send(replace(call, document={**call.document, "filter": text}))


def _translated(found: re.Match[str]) -> str:
    asked = _comparison(found)
    key, value = asked.key if asked.entity in ATTRIBUTES else "", asked.value
    if key in NUMBERS and value.strip("'\"").isdecimal():
        return found[0].replace(value, value.strip("'\""))
    if key == "status":
        return found[0].replace(value, re.sub(r"\w+", lambda word: STATES.get(word[0].lower(), word[0]), value))
    return found[0]
