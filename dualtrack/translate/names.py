"""Experiment names of one backend, written so that another takes them.

| rule         | `/Users/ann/churn` becomes                                     |
|--------------|----------------------------------------------------------------|
| keep         | `/Users/ann/churn`                                             |
| last-segment | `churn`                                                        |
| replace      | `Users-ann-churn`: letters, digits, `_` and `-` stay           |
| template     | `{name}` of the template is what `replace` gives               |

For a Databricks workspace the outcome is a path in its tree (`databricks.workspace_path`).

Two experiments never silently share a name: when the translated one belongs to another experiment already, it is
qualified by a hash of the primary's name, the original's id and its whole name, which is the same at every attempt. The
third of a name (the second was deleted and made anew, or another proxy's primary has one too) gets one of its own so.
"""

import hashlib
import re
from dataclasses import dataclass

from dualtrack.translate.databricks import workspace_path

_FOREIGN = re.compile(r"[^\w-]+", re.ASCII)
_LIMIT = 240  # Azure ML allows 256 characters; what is left is for the qualifier


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRule:
    """How names are written for one backend. `source` is the primary's name: whose experiments these are."""

    rule: str = "keep"
    qualifies: bool = True
    template: str = ""
    default_experiment: str = ""
    source: str = ""
    is_path: bool = False  # of a Databricks workspace


DEFAULT_EXPERIMENT_ID = "0"


def names_for(name: str, rule: NameRule, experiment_id: str = "") -> tuple[str, ...]:
    """What a mirror may be called, in the order in which it is tried."""
    translated = translate_name(name, rule, experiment_id)
    return (translated, qualify(translated, rule.source, experiment_id, name)) if rule.qualifies else (translated,)


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


def qualify(translated: str, source: str, experiment_id: str, name: str) -> str:
    return f"{translated}-{_digest(source, experiment_id, name)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
