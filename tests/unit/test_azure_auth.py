"""`auth: {type: azure}`: every credential by name with the keys that it needs, and clouds by host."""

import subprocess
import sys
from pathlib import Path

import pytest

from dualtrack.app import make_sign_in
from dualtrack.backends.auth import make_credential
from dualtrack.config import AzureAuth, Config, explain, parse
from dualtrack.core.azure import CHINA, CREDENTIALS, PUBLIC, US_GOVERNMENT, Cloud, cloud_of
from dualtrack.errors import ConfigError, Problem

AZURE = "azureml://h.api.azureml.ms/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
BRICKS = "https://adb-1.2.azuredatabricks.net"
RESOURCE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Databricks/workspaces/w"
SECRET = "hunter2"
CLIENT = 'credential: ClientSecretCredential, tenant_id: t, client_id: c, client_secret: "${SECRET}"'


def configured(keys: str, url: str = AZURE, base_dir: Path = Path()) -> Config:
    text = f"primary: a\nregistry: a\nbackends:\n  a: {{url: '{url}', auth: {{type: azure, {keys}}}}}\n"
    return parse(text, {"SECRET": SECRET}, base_dir)


def auth_of(config: Config) -> AzureAuth:
    auth = config.backends["a"].auth
    assert isinstance(auth, AzureAuth)
    return auth


def problems(keys: str, url: str = AZURE) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        configured(keys, url)
    assert SECRET not in str(caught.value)
    return {problem.path.removeprefix("backends.a."): problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("keys", "given"),
    [
        ("credential: default", {}),
        ("client_id: c", {"client_id": "c"}),
        ("credential: ManagedIdentityCredential, client_id: c", {"client_id": "c"}),
        ("credential: AzureCliCredential, tenant_id: t", {"tenant_id": "t"}),
        ("credential: DeviceCodeCredential, tenant_id: t", {"tenant_id": "t"}),
        ("credential: InteractiveBrowserCredential", {}),
        (CLIENT, {"tenant_id": "t", "client_id": "c", "client_secret": SECRET}),
    ],
)
def test_a_credential_is_told_what_it_takes(keys: str, given: dict[str, str]) -> None:
    assert auth_of(configured(keys)).given == given


def test_a_secret_and_a_certificate_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "app.pem").write_bytes(b"\x00\xff")
    client = "tenant_id: t, client_id: c"

    secret = configured(f"credential: ClientSecretCredential, {client}, client_secret_file: secret", base_dir=tmp_path)
    certificate = configured(
        f"credential: CertificateCredential, {client}, certificate_path: app.pem, certificate_password_file: secret",
        base_dir=tmp_path,
    )

    assert auth_of(secret).given["client_secret"] == SECRET
    assert auth_of(certificate).given["certificate_password"] == SECRET
    assert auth_of(certificate).given["certificate_path"] == str(tmp_path / "app.pem")


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ("credential: NoSuchCredential", "auth.credential", "not a credential"),
        ("credential: ClientSecretCredential", "auth", "has no tenant_id, which ClientSecretCredential needs"),
        (CLIENT.replace("tenant_id: t, ", ""), "auth", "has no tenant_id"),
        (CLIENT.replace('"${SECRET}"', "hunter2"), "auth.client_secret", "written into the file"),
        (f"{CLIENT}, client_secret_file: /nowhere", "auth.client_secret", "beside client_secret_file"),
        (
            "credential: ClientSecretCredential, tenant_id: t, client_id: c, client_secret_file: /nowhere/x",
            "auth.client_secret_file",
            "cannot be read",
        ),
        (
            "credential: CertificateCredential, tenant_id: t, client_id: c, certificate_path: /nowhere/x",
            "auth.certificate_path",
            "cannot be read",
        ),
        ("tenant_id: t", "auth.tenant_id", "is not used by DefaultAzureCredential"),
        ('client_secret: "${SECRET}"', "auth.client_secret", "is not used by DefaultAzureCredential"),
        ("client_secret_file: /nowhere", "auth.client_secret_file", "is not used by DefaultAzureCredential"),
        ("authority: 'http://login'", "auth.authority", "host of an authority"),
        (f"workspace_resource_id: '{RESOURCE}'", "auth.workspace_resource_id", "is for Databricks"),
        ("tenent_id: t", "auth.tenent_id", "is not a key"),
    ],
)
def test_each_mistake_is_said(keys: str, path: str, message: str) -> None:
    found = problems(keys)

    assert message in found[path].message
    assert found[path].fix


def test_an_unknown_credential_lists_the_choices() -> None:
    fix = problems("credential: ManagedIdentity")["auth.credential"].fix

    assert all(name in fix for name in CREDENTIALS)


def test_a_resource_id_is_that_of_a_databricks_workspace() -> None:
    found = problems("workspace_resource_id: '/subscriptions/s'", BRICKS)

    assert "not the resource id" in found["auth.workspace_resource_id"].message


def test_forward_is_for_the_primary_only() -> None:
    text = "primary: a\nregistry: a\nbackends:\n  a: {url: 'http://a:1', auth: {type: forward}}\n"
    secondary = "  b: {url: 'http://b:1', auth: {type: forward}}\n"

    parse(text, {}, Path())
    with pytest.raises(ConfigError, match=r"backends\.b\.auth\.type: works on the primary alone"):
        parse(text + secondary, {}, Path())


def test_explain_names_the_credential_and_no_secret() -> None:
    said = explain(configured(CLIENT))

    assert "Entra ID (ClientSecretCredential)" in said
    assert SECRET not in said
    assert SECRET not in repr(configured(CLIENT)) + str(configured(CLIENT).model_dump())


@pytest.mark.parametrize(
    ("host", "cloud"),
    [
        ("westeurope.api.azureml.ms", PUBLIC),
        ("guid.workspace.westeurope.api.azureml.ms", PUBLIC),
        ("westeurope.experiments.azureml.net", PUBLIC),
        ("adb-1.2.azuredatabricks.net", PUBLIC),
        ("127.0.0.1", PUBLIC),
        ("chinaeast2.api.ml.azure.cn", CHINA),
        ("adb-1.2.databricks.azure.cn", CHINA),
        ("USGovVirginia.api.ml.azure.us", US_GOVERNMENT),
        ("guid.workspace.usgovvirginia.api.ml.azure.us", US_GOVERNMENT),
        ("adb-1.2.databricks.azure.us", US_GOVERNMENT),
    ],
)
def test_the_cloud_follows_from_the_host(host: str, cloud: Cloud) -> None:
    assert cloud_of(host) is cloud


@pytest.mark.parametrize(
    ("url", "keys", "scope", "authority", "proof"),
    [
        (AZURE, "", "https://management.azure.com/.default", None, None),
        (
            AZURE.replace(".api.azureml.ms", ".api.ml.azure.cn"),
            "",
            "https://management.chinacloudapi.cn/.default",
            "login.chinacloudapi.cn",
            None,
        ),
        (
            AZURE.replace(".api.azureml.ms", ".api.ml.azure.us"),
            "",
            "https://management.usgovcloudapi.net/.default",
            "login.microsoftonline.us",
            None,
        ),
        (AZURE, "scope: x/.default, authority: login.example.org", "x/.default", "login.example.org", None),
        (BRICKS, "", "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default", None, None),
        (
            "https://x.databricks.azure.us",
            f"workspace_resource_id: '{RESOURCE}'",
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default",
            "login.microsoftonline.us",
            "https://management.core.usgovcloudapi.net//.default",
        ),
        (
            BRICKS,
            f"workspace_resource_id: '{RESOURCE}'",
            "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default",
            None,
            "https://management.core.windows.net//.default",
        ),
    ],
)
def test_scope_and_authority_follow_from_kind_and_cloud(
    monkeypatch: pytest.MonkeyPatch, url: str, keys: str, scope: str, authority: str | None, proof: str | None
) -> None:
    """Facts A2 and E; written ones win."""
    told: list[str | None] = []
    monkeypatch.setattr("dualtrack.app.make_credential", lambda *given: told.append(given[3]))
    source = make_sign_in("a", configured(keys, url).backends["a"])._source  # type: ignore[attr-defined] # the cache's

    assert source._scope == scope
    assert told == [authority]
    assert (source._membership.scope if source._membership else None) == proof


REAL = {
    "tenant_id": "00000000-0000-0000-0000-000000000001",
    "client_id": "00000000-0000-0000-0000-000000000002",
    "client_secret": "s",
    "certificate_path": "x",
}


@pytest.mark.parametrize("name", [name for name, kind in CREDENTIALS.items() if "certificate_path" not in kind.needs])
def test_each_credential_can_be_made_with_all_its_keys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real classes: what our table says they take, they take."""
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/nowhere")
    kind = CREDENTIALS[name]

    made = make_credential("a", name, {key: REAL[key] for key in kind.keys}, "login.microsoftonline.us")()

    assert type(made).__name__ == kind.class_name
    assert ("aio" in type(made).__module__) is not kind.asks_a_person


def test_importing_the_table_is_light() -> None:
    code = "import sys, dualtrack.app; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"azure", "databricks"} & set(loaded)
