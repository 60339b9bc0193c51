"""What a primary lacks that MLflow's clients take for granted, and what they get in its place.

MLflow 3's client asks for logged models with each listing of artifacts, and gives up when there is no such endpoint
(facts A8, F); a history it asks for in pages of 25,000, which Azure ML refuses (facts A7). A registry in Unity Catalog
is one that no proxy can stand for: its clients upload to the catalog's storage by themselves (facts B8).
"""

import re
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from dualtrack.proxy.errors import Refusal
from dualtrack.translate.document import MalformedError, parse

_HISTORY = "getMetricHistory"
_UNITY_CATALOG = re.compile(r"/(ajax-)?api/2\.\d/(mlflow/unity-catalog|unity-catalog)/")
_IN_PLACE = {"searchLoggedModels": b"{}"}  # no model is what a server without models has


def check_registry(path: str) -> None:
    """Refuse a call of Unity Catalog's registry, and say what the client has to set instead."""
    if _UNITY_CATALOG.match(path):
        message = (
            "Unity Catalog's registry is not served here: its client copies files to the catalog's own storage. Let the"
            " client talk to it: mlflow.set_registry_uri('databricks-uc') with DATABRICKS_HOST and its own sign-in,"
            " while MLFLOW_TRACKING_URI stays as it is"
        )
        raise Refusal(501, "NOT_IMPLEMENTED", message, label="registry")


def in_its_place(operation: str, response: web.Response) -> web.Response:
    """Answer what stands for an answer that the primary cannot give; any other answer as it is."""
    body = _IN_PLACE.get(operation)
    if body is None or response.status != 404 or not _lacks_endpoint(response):
        return response
    headers = {"X-Dualtrack": response.headers.get("X-Dualtrack", "read")}
    return web.Response(body=body, content_type="application/json", headers=headers)


def _lacks_endpoint(response: web.Response) -> bool:
    """Say whether it is the endpoint that is unknown: of things that are not there MLflow says so by a code."""
    try:
        document = parse(response.body if isinstance(response.body, bytes) else b"")
    except MalformedError:  # a web page
        return True
    return document.get("error_code") in {None, "ENDPOINT_NOT_FOUND"}


def within_pages(operation: str, query: str, most: int) -> str:
    """Ask for no larger page of a history than the primary takes; clients follow the token to the next."""
    if operation != _HISTORY or "max_results" not in query:
        return query
    pairs = [
        (name, str(most) if name == "max_results" and value.isdecimal() and int(value) > most else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return urlencode(pairs)
