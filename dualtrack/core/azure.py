"""Azure's clouds, and the credentials of azure-identity by name: tables for whoever checks or makes a sign-in.

Sources: facts A1, A2, B1 and E (azure-ai-ml's cloud table, `databricks.sdk.environments`, azure-identity's
constructors, read in 1.27). Credentials that take a function or a user's assertion are not offered: a file cannot say
one.
"""

from dataclasses import dataclass

# The application id of Azure Databricks, the same in every Azure cloud (facts B5, E).
DATABRICKS_SCOPE = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """One Azure cloud. `resource_manager` is Azure ML's scope; `management` that of a Databricks non-member's token.

    The latter has a double slash, because the resource itself ends in one (facts E).
    """

    name: str
    hosts: tuple[str, ...]
    authority: str
    resource_manager: str
    management: str


PUBLIC = Cloud(
    name="public",
    hosts=(".azureml.ms", ".azureml.net", ".azuredatabricks.net"),
    authority="login.microsoftonline.com",
    resource_manager="https://management.azure.com/.default",
    management="https://management.core.windows.net//.default",
)
CHINA = Cloud(
    name="China",
    hosts=(".ml.azure.cn", ".databricks.azure.cn"),
    authority="login.chinacloudapi.cn",
    resource_manager="https://management.chinacloudapi.cn/.default",
    management="https://management.core.chinacloudapi.cn//.default",
)
US_GOVERNMENT = Cloud(
    name="US Government",
    hosts=(".ml.azure.us", ".databricks.azure.us"),
    authority="login.microsoftonline.us",
    resource_manager="https://management.usgovcloudapi.net/.default",
    management="https://management.core.usgovcloudapi.net//.default",
)
CLOUDS = (PUBLIC, CHINA, US_GOVERNMENT)


def cloud_of(host: str) -> Cloud:
    """Answer the cloud that a backend's host belongs to; the public one for a host of nobody's."""
    return next((cloud for cloud in CLOUDS if host.lower().endswith(cloud.hosts)), PUBLIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialKind:
    """What one class of azure-identity is told. `needs` and `takes` are keys of the configuration.

    `asks_a_person`: it exists only in its blocking form, and waits until somebody has signed in.
    """

    class_name: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    has_authority: bool = False
    asks_a_person: bool = False
    fix: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.needs, *self.takes)


_KINDS = (
    CredentialKind(
        class_name="DefaultAzureCredential",
        takes=("client_id",),
        has_authority=True,
        fix="check the AZURE_* variables or the managed identity, or run `az login`",
    ),
    CredentialKind(
        class_name="EnvironmentCredential",
        has_authority=True,
        fix="check the AZURE_* variables: tenant, client, and its secret or certificate",
    ),
    CredentialKind(
        class_name="WorkloadIdentityCredential",
        takes=("tenant_id", "client_id"),
        has_authority=True,
        fix="check AZURE_FEDERATED_TOKEN_FILE and the federated credential of the identity",
    ),
    CredentialKind(
        class_name="ManagedIdentityCredential",
        takes=("client_id",),
        fix="give this machine a managed identity, or name a user-assigned one by `client_id`",
    ),
    CredentialKind(
        class_name="ClientSecretCredential",
        needs=("tenant_id", "client_id", "client_secret"),
        has_authority=True,
        fix="check tenant_id, client_id and client_secret; a secret may have expired",
    ),
    CredentialKind(
        class_name="CertificateCredential",
        needs=("tenant_id", "client_id", "certificate_path"),
        takes=("certificate_password",),
        has_authority=True,
        fix="check tenant_id, client_id and the certificate; it may have expired",
    ),
    CredentialKind(class_name="AzureCliCredential", takes=("tenant_id",), fix="run `az login`"),
    CredentialKind(class_name="AzureDeveloperCliCredential", takes=("tenant_id",), fix="run `azd auth login`"),
    CredentialKind(class_name="AzurePowerShellCredential", takes=("tenant_id",), fix="run `Connect-AzAccount`"),
    CredentialKind(
        class_name="SharedTokenCacheCredential",
        takes=("tenant_id",),
        has_authority=True,
        fix="sign in with a Microsoft application on this machine, or choose another credential",
    ),
    CredentialKind(
        class_name="VisualStudioCodeCredential",
        takes=("tenant_id",),
        fix="sign in with the Azure Resources extension, or choose another credential",
    ),
    CredentialKind(
        class_name="InteractiveBrowserCredential",
        takes=("tenant_id", "client_id"),
        has_authority=True,
        asks_a_person=True,
        fix="sign in where the browser opened; on a machine without one, use DeviceCodeCredential",
    ),
    CredentialKind(
        class_name="DeviceCodeCredential",
        takes=("tenant_id", "client_id"),
        has_authority=True,
        asks_a_person=True,
        fix="open the address that the log shows, and enter its code",
    ),
)
CREDENTIALS = {"default": _KINDS[0]} | {kind.class_name: kind for kind in _KINDS}
