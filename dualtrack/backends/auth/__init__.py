"""Who dualtrack is on a backend: headers that sign a request, kept and renewed as their tokens come and go.

    fixed       a token, a user and password, or none at all           `sign_in`
    token file  somebody else's token, read again when it changes      `token_file`
    azure       Entra ID through azure-identity              ┐ kept, renewed and shared by all requests: `cached`
    databricks  the databricks-sdk's unified sign-in         ┘

Vendors' libraries are imported when the first token is asked for, not before: they cost seconds and tens of
megabytes. Their blocking calls run in threads of their own (`threads`), so no client waits for a sign-in of the other
side.
"""

from dualtrack.backends.auth.azure import AzureTokens, Membership, make_credential
from dualtrack.backends.auth.cached import Cached, Signature, Source, signature
from dualtrack.backends.auth.databricks import DatabricksTokens
from dualtrack.backends.auth.sign_in import Fixed, SignIn, basic, bearer
from dualtrack.backends.auth.token_file import TokenFile

__all__ = [
    "SignIn",
    "Fixed",
    "bearer",
    "basic",
    "TokenFile",
    "Cached",
    "Source",
    "Signature",
    "signature",
    "AzureTokens",
    "Membership",
    "make_credential",
    "DatabricksTokens",
]
