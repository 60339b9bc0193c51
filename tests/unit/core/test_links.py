"""Links lead to the page that the backend's own client would print, or nowhere."""

import pytest

from dualtrack.core.ids import BackendId, ClientId, EntityKind, Ref, Twin
from dualtrack.core.links import public_url, web_link

AZURE = (
    "https://westeurope.api.azureml.ms/mlflow/v2.0/subscriptions/s/resourceGroups/g"
    "/providers/Microsoft.MachineLearningServices/workspaces/w"
)
DBFS = "dbfs:/databricks/mlflow-tracking/12/r1/artifacts"
RUN, MODEL, EXPERIMENT = EntityKind.RUN, EntityKind.MODEL, EntityKind.EXPERIMENT


@pytest.mark.parametrize(
    ("kind", "url", "entity", "backend_id", "root", "link"),
    [
        ("mlflow", "http://m.test/", EXPERIMENT, "12", "", "http://m.test/#/experiments/12"),
        (
            "mlflow",
            "http://m.test",
            RUN,
            "r1",
            "mlflow-artifacts:/12/r1/artifacts",
            "http://m.test/#/experiments/12/runs/r1",
        ),
        ("mlflow", "http://m.test", RUN, "r1", "s3://bucket/mine/r1/artifacts", "http://m.test/#/runs/r1"),
        ("mlflow", "http://m.test", RUN, "r1", "", "http://m.test/#/runs/r1"),
        (
            "mlflow",
            "http://m.test",
            MODEL,
            "m-1",
            "x:/12/models/m-1/artifacts",
            "http://m.test/#/experiments/12/models/m-1",
        ),
        ("mlflow", "http://m.test", MODEL, "m-1", "", ""),
        ("databricks", "https://d.test", RUN, "r1", DBFS, "https://d.test/ml/experiments/12/runs/r1"),
        ("databricks", "https://d.test", EXPERIMENT, "12", "", "https://d.test/ml/experiments/12"),
        ("databricks", "https://d.test", RUN, "r1", "", ""),
        ("azureml", AZURE, EXPERIMENT, "12", "", ""),
        ("azureml", "https://a.test", RUN, "r1", "", ""),
        ("other", "https://a.test", RUN, "r1", "", ""),
        ("mlflow", "http://m.test", RUN, "", "", ""),
        ("mlflow", "http://m.test", EXPERIMENT, "a/b?c", "", "http://m.test/#/experiments/a%2Fb%3Fc"),
    ],
)
def test_links(kind: str, url: str, entity: EntityKind, backend_id: str, root: str, link: str) -> None:
    twin = Twin(ref=Ref(entity, ClientId("x")), backend="b", backend_id=BackendId(backend_id), root=root)

    assert web_link(kind, url, twin) == link


def test_an_azure_run_opens_in_its_workspace() -> None:
    twin = Twin(ref=Ref(RUN, ClientId("x")), backend="b", backend_id=BackendId("r1"))

    link = web_link("azureml", AZURE, twin)

    assert link.startswith("https://ml.azure.com/runs/r1?wsid=/subscriptions/s/resourceGroups/g/")
    assert link.endswith("/workspaces/w")


def test_a_public_url_holds_no_credential() -> None:
    assert public_url("https://user:pass@host:8443/path?sig=secret#x") == "https://host:8443/path"
