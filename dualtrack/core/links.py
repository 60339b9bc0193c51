"""Where a person finds an entity in a backend's own web pages.

Pure, and best effort: an empty string means that the page is not known. Run and model pages of MLflow and Databricks
lie under their experiment, whose id is read from the artifact root (`…/EXPERIMENT/RUN/artifacts`, the layout of both
by default). Addresses as the clients print them: mlflow 3.17 `TrackingServiceClient._log_url` and
`databricks_utils.get_databricks_logged_model_url`, azureml-core `Run.get_portal_url`.
"""

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from dualtrack.core.ids import EntityKind, Twin

# tags of runs that lead to the other side's page, where `links` of the configuration wants them
SOURCE_URL = "dualtrack.source_url"  # on a secondary
MIRROR_URL = "dualtrack.mirror_url."  # on the primary, and the secondary's name: there may be several


def public_url(url: str) -> str:
    """Answer `url` without user, password, query and fragment: what is left holds no credential."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def web_link(kind: str, url: str, twin: Twin) -> str:
    """Answer the page of `twin` on a backend of `kind` at `url`."""
    page = _PAGES.get(kind)
    return page(public_url(url).rstrip("/"), twin) if page and twin.backend_id else ""


def _experiment(twin: Twin) -> str:
    """Read the experiment's id from the artifact root of a run or model."""
    above, found, _ = twin.root.partition(f"/{twin.backend_id}/")
    parent = above.removesuffix("/models").rpartition("/")[2] if found else ""
    return parent if parent.isdigit() else ""


def _under_experiments(base: str, twin: Twin) -> str:
    own = quote(twin.backend_id, safe="")
    if twin.ref.kind is EntityKind.EXPERIMENT:
        return f"{base}/{own}"
    experiment = _experiment(twin)
    folder = "runs" if twin.ref.kind is EntityKind.RUN else "models"
    return f"{base}/{experiment}/{folder}/{own}" if experiment else ""


def _mlflow(url: str, twin: Twin) -> str:
    page = _under_experiments(f"{url}/#/experiments", twin)
    if not page and twin.ref.kind is EntityKind.RUN:
        return f"{url}/#/runs/{quote(twin.backend_id, safe='')}"  # the UI asks for its experiment
    return page


def _databricks(url: str, twin: Twin) -> str:
    return _under_experiments(f"{url}/ml/experiments", twin)


def _azureml(url: str, twin: Twin) -> str:
    _, found, workspace = url.partition("/subscriptions/")
    if not found or twin.ref.kind is not EntityKind.RUN:
        return ""
    return f"https://ml.azure.com/runs/{quote(twin.backend_id, safe='')}?wsid=/subscriptions/{workspace}"


_PAGES: dict[str, Callable[[str, Twin], str]] = {
    "mlflow": _mlflow,
    "databricks": _databricks,
    "azureml": _azureml,
}
