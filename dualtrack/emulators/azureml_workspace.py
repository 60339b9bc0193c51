"""A whole Azure ML workspace: its dialect, its files and its middlewares, put together by what is chosen.

    call ─▶ site (files, storage) ─▶ dialect (address, token, gaps, refusals) ─▶ names ─▶ registry ─▶ asynchronous
         ─▶ run history ─▶ search ─▶ ids ─▶ the real server

`Choices()` differs from a plain MLflow server by address, errors, names, run history and asynchronous logging alone;
`STRICT` is the service as far as facts/backends know it.
"""

from dataclasses import dataclass
from typing import Final

from dualtrack.emulators import azureml_gaps, azureml_names, azureml_search
from dualtrack.emulators.azureml import AzureML, Check
from dualtrack.emulators.azureml_artifacts import AzureArtifacts
from dualtrack.emulators.azureml_async import Deferred
from dualtrack.emulators.azureml_history import History
from dualtrack.emulators.azureml_ids import Ids
from dualtrack.emulators.azureml_registry import Registry
from dualtrack.emulators.azureml_scope import DEFAULT_SCOPE, Scope
from dualtrack.emulators.azureml_throttle import Throttle
from dualtrack.emulators.buckets import Tells
from dualtrack.emulators.tokens import Tokens
from dualtrack.emulators.tracking import Middleware, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a workspace is like; each default is the one with the fewest surprises for an MLflow client.

    Numbers are of the checklist for Azure ML in facts/backends.
    """

    has_logged_models: bool = True  # 9
    has_traces: bool = True  # 9
    has_artifact_list: bool = True  # 9, of MLflow's own route
    has_other_apis: bool = True  # 1, beside /api/2.0/mlflow and its preview
    has_own_files: bool = False  # 11 to 14; without, MLflow's artifact routes work
    has_limits: bool = False  # 6
    has_short_histories: bool = False  # 7
    has_search_rules: bool = False  # 8
    has_registry_rules: bool = False  # 16
    says_why: bool = True  # 16: renames and deletes of models are a 400, else an empty 404
    has_lasting_names: bool = False  # A4: no experiment is renamed
    takes_odd_names: bool = False  # 5: the quirk, instead of a refusal
    has_dashed_ids: bool = False  # 4
    folds_case: bool = True  # 1: ARM's words in a path in any case
    rate: float = 0.0  # 17: MLflow calls per second; 0 is no bound
    tells: Tells = Tells.NOTHING  # 17: what is said of the wait
    polls: int = 1  # 10: how often deferred metrics are not there yet
    page: int = 500  # 13: artifacts in a listing
    storage_origin: str = ""  # 18: where signed URLs lead, if not to the emulator


STRICT: Final = Choices(
    has_logged_models=False,
    has_traces=False,
    has_artifact_list=False,
    has_other_apis=False,
    has_own_files=True,
    has_limits=True,
    has_search_rules=True,
    has_short_histories=True,
    has_registry_rules=True,
    has_lasting_names=True,
    has_dashed_ids=True,
)


def settings_of(choices: Choices, *, upstream: str, tokens: Tokens, scope: str = DEFAULT_SCOPE) -> Settings:
    """Build a workspace in front of a real server."""
    place = Scope(scope, folds_case=choices.folds_case)
    return Settings(
        upstream=upstream,
        tokens=tokens,
        dialect=_dialect(choices, place),
        site=_files(choices, place) if choices.has_own_files else None,
        middlewares=tuple(_middlewares(choices, place)),
    )


def _files(choices: Choices, scope: Scope) -> AzureArtifacts:
    return AzureArtifacts(scope, page=choices.page, storage_origin=choices.storage_origin)


def _dialect(choices: Choices, scope: Scope) -> AzureML:
    gaps = (
        (choices.has_traces, azureml_gaps.TRACES),
        (choices.has_artifact_list, azureml_gaps.ARTIFACT_LIST),
        (not choices.has_own_files, azureml_gaps.ARTIFACT_ROUTES),
        (choices.has_other_apis, azureml_gaps.OTHER_APIS),
    )
    throttle = Throttle(choices.rate, choices.tells)
    checks: tuple[tuple[bool, Check], ...] = (
        (choices.rate > 0, throttle.objection),
        (choices.has_lasting_names, azureml_names.unchanging),
        (choices.has_search_rules, azureml_search.of_search),
        (choices.has_short_histories, azureml_search.of_history),
    )
    return AzureML(
        scope,
        has_logged_models=choices.has_logged_models,
        has_limits=choices.has_limits,
        has_history=True,
        gaps=tuple(gap for has_it, gap in gaps if not has_it),
        names=azureml_names.lenient if choices.takes_odd_names else azureml_names.strict,
        checks=tuple(check for is_wanted, check in checks if is_wanted),
    )


def _middlewares(choices: Choices, scope: Scope) -> list[Middleware]:
    ids = Ids(scope.text, dashed=choices.has_dashed_ids)
    chain: tuple[tuple[bool, Middleware], ...] = (
        (choices.takes_odd_names, azureml_names.hidden),
        (choices.has_registry_rules, Registry(scope, says_why=choices.says_why)),
        (True, Deferred(polls=choices.polls)),
        (True, History(ids)),
        (choices.has_search_rules, azureml_search.as_mlflow),
        (True, ids),
    )
    return [middleware for is_wanted, middleware in chain if is_wanted]
