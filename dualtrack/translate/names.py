"""Experiment names of one backend, written so that another takes them.

| rule         | `/Users/ann/churn` becomes                                     |
|--------------|----------------------------------------------------------------|
| keep         | `/Users/ann/churn`                                             |
| last-segment | `churn`                                                        |
| replace      | `Users-ann-churn`: letters, digits, `_` and `-` stay           |
| template     | `{name}` of the template is what `replace` gives               |

For a Databricks workspace the outcome is a path in its tree (`databricks.workspace_path`).

Two experiments never silently share a name: when the translated one belongs to another experiment already, it is
qualified by a hash of the whole original, which is the same at every attempt.
"""

import hashlib
import re
from dataclasses import dataclass

from dualtrack.translate.databricks import workspace_path

_FOREIGN = re.compile(r"[^\w-]+", re.ASCII)
_LIMIT = 240  # Azure ML allows 256 characters; what is left is for the qualifier


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRule:
    rule: str = "keep"
    qualifies: bool = True
    template: str = ""
    default_experiment: str = ""
    is_path: bool = False  # of a Databricks workspace


DEFAULT_EXPERIMENT_ID = "0"


def translate_name(name: str, rule: NameRule, experiment_id: str = "") -> str:
    translated = _translated(name, rule, experiment_id)
    return workspace_path(translated) if rule.is_path else translated


def _translated(name: str, rule: NameRule, experiment_id: str) -> str:
    if experiment_id == DEFAULT_EXPERIMENT_ID and rule.default_experiment:
        return rule.default_experiment
    match rule.rule:
        case "last-segment":
            return _flat(name.rstrip("/").rpartition("/")[2])
        case "replace":
            return _flat(name)
        case "template":
            return rule.template.replace("{name}", _flat(name))
        case _:
            return name


def _flat(name: str) -> str:
    flat = _FOREIGN.sub("-", name).strip("-_") or "experiment"
    return flat if len(flat) <= _LIMIT else f"{flat[: _LIMIT - 9]}-{_digest(name)}"


def qualify(translated: str, original: str) -> str:
    return f"{translated}-{_digest(original)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]
