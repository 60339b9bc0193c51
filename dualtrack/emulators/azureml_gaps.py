"""What MLflow has and an Azure ML workspace does not (facts/backends A6, A8, checklist items 1 and 9).

Each gap is a pattern of paths and the status of its answer, whose body is empty. A workspace has none of these gaps
unless it is told so: it can also stand for a service that caught up.
"""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gap:
    pattern: re.Pattern[str]
    status: int = 404

    def covers(self, path: str) -> bool:
        return self.pattern.search(path) is not None


# all that came with MLflow 3's models: `logged-models/…` and the links from runs to them
LOGGED_MODELS: Final = Gap(re.compile(r"/mlflow/(?:logged-models|runs/outputs(?:/|$))"))
TRACES: Final = Gap(re.compile(r"^/api/\d\.0/mlflow/(?:traces(?:/|$)|get-trace)"), 403)
ARTIFACT_ROUTES: Final = Gap(re.compile(r"^/api/2\.0/mlflow-artifacts(?:/|$)"))
# (choice) whether the service lists artifacts at MLflow's own route is not known
ARTIFACT_LIST: Final = Gap(re.compile(r"^/api/2\.0/mlflow/artifacts/list$"))
# there is no API but 2.0 and what is in preview beside it
OTHER_APIS: Final = Gap(re.compile(r"^/(?!api/2\.0/(?:preview/)?mlflow(?:-artifacts)?/)"))

ALL: Final = (LOGGED_MODELS, TRACES, ARTIFACT_ROUTES, ARTIFACT_LIST, OTHER_APIS)
