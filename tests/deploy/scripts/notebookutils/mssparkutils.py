"""`mssparkutils.credentials.getToken(audience)`; every third call fails, as anything may that asks a network."""

import os
import urllib.request
from typing import Any

import orjson

AUDIENCES = {"AzureManagement": "https://management.azure.com/"}


class _Credentials:
    def __init__(self) -> None:
        self.handed: list[dict[str, Any]] = []
        self._calls = 0

    def getToken(self, audience: str) -> str:  # noqa: N802 - Synapse's name
        self._calls += 1
        if self._calls % 3 == 0:
            raise RuntimeError("An error occurred while calling z:mssparkutils.credentials.getToken")
        url = f"{os.environ['TEST_EMULATOR']}/__emulator__/identity?resource={AUDIENCES[audience]}"
        request = urllib.request.Request(url, headers={"X-IDENTITY-HEADER": "x"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = orjson.loads(answer.read())
        self.handed.append({"ends_at": int(told["expires_on"])})
        return str(told["access_token"])


credentials = _Credentials()
