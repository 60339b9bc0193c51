"""The vendors' libraries, imported ahead: on a busy machine that takes longer than anybody waits for a sign-in."""

import azure.identity
import databricks.sdk

__all__ = ["azure", "databricks"]
