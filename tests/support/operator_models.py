"""Reads one resource of the Prometheus Operator with the models made from its CRDs; writes what they keep of it.

A script for an environment of its own (`environments.SCHEMAS`), which has those models. The kind is its argument; JSON
comes in, JSON goes out.
"""

import sys

from cloudcoil.models.prometheus_operator import v1
from cloudcoil.pydantic import BaseModel


def main() -> None:
    kind: type[BaseModel] = getattr(v1, sys.argv[1])
    document = kind.model_validate_json(sys.stdin.read())
    sys.stdout.write(document.model_dump_json(by_alias=True, exclude_unset=True))


if __name__ == "__main__":
    main()
