"""Load models and use them, as a service does: prints what each address predicts for a fixed input.

Works with the tracking server of its environment; `--registry-uri` names another server for `models:/NAME/…`.
"""

import argparse
import json

import mlflow
import numpy as np

INPUT = [[-2.0, 0.5], [-0.5, -1.0], [0.25, 1.5], [3.0, 0.0]]


def predicted(uri: str) -> list[int]:
    return [int(label) for label in mlflow.pyfunc.load_model(uri).predict(np.array(INPUT))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uris", nargs="+", metavar="URI")
    parser.add_argument("--registry-uri")
    options = parser.parse_args()
    if options.registry_uri:
        mlflow.set_registry_uri(options.registry_uri)
    print(json.dumps({"mlflow": mlflow.__version__, "predictions": {uri: predicted(uri) for uri in options.uris}}))


if __name__ == "__main__":
    main()
