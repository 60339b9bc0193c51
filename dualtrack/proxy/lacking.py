"""What a primary lacks that MLflow's clients take for granted, and what they get in its place.

A history they ask for in pages of 25,000, which Azure ML refuses (facts A7). A registry in Unity Catalog is one that no
proxy can stand for: its clients upload to the catalog's storage by themselves (facts B8). Logged models are a room of
their own: `dualtrack/models`.
"""

import re
from urllib.parse import parse_qsl, urlencode

from dualtrack.proxy.errors import Refusal

_HISTORY = "getMetricHistory"
_UNITY_CATALOG = re.compile(r"/(ajax-)?api/2\.\d/(mlflow/unity-catalog|unity-catalog)/")


def check_registry(path: str) -> None:
    """Refuse a call of Unity Catalog's registry, and say what the client has to set instead."""
    if _UNITY_CATALOG.match(path):
        message = (
            "Unity Catalog's registry is not served here: its client copies files to the catalog's own storage. Let the"
            " client talk to it: mlflow.set_registry_uri('databricks-uc') with DATABRICKS_HOST and its own sign-in,"
            " while MLFLOW_TRACKING_URI stays as it is"
        )
        raise Refusal(501, "NOT_IMPLEMENTED", message, label="registry")


def within_pages(operation: str, query: str, most: int) -> str:
    """Ask for no larger page of a history than the primary takes; clients follow the token to the next."""
    if operation != _HISTORY or "max_results" not in query:
        return query
    pairs = [
        (name, str(most) if name == "max_results" and value.isdecimal() and int(value) > most else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return urlencode(pairs)
