"""Hosts of a cloud, at their usual port, are a port of this machine; no other host has an address.

Import it before a client. It is about names and ports alone: the client speaks TLS to the name that it asked for, and
trusts whom the environment tells it to (`REQUESTS_CA_BUNDLE`).
"""

import os
import socket
from typing import Any

SUFFIXES = (".api.azureml.ms", ".blob.core.windows.net")
HERE = ("127.0.0.1", "localhost", "::1")
PORT = int(os.environ["LOOPBACK_PORT"])

_getaddrinfo = socket.getaddrinfo


def _here(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name.endswith(SUFFIXES) and port == 443:
        return _getaddrinfo(HERE[0], PORT, *rest, **options)
    if name not in HERE:
        raise socket.gaierror(f"{name} is outside of the test")
    return _getaddrinfo(host, port, *rest, **options)


socket.getaddrinfo = _here
