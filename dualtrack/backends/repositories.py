"""Files in stores that a plain MLflow server names and does not serve itself: a local folder, S3, GCS, Azure, HTTP.

A local root is read and written here; everything else is done by the repositories of mlflow's own client, with the
credentials that the client would find on this machine. They block, so they run in a few threads of their own. The
import costs a second and 150 MB (measured on mlflow 3.17.2), so it happens there too, when the first such root is met.

A local root means this machine's disk, which is the server's only if somebody says so. Paths come checked
(`core.artifact.effective`); what a symbolic link makes of them is checked here.
"""

import asyncio
import hashlib
import importlib
import os
import re
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from io import BufferedReader, IOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from dualtrack.core.artifact import Listed
from dualtrack.errors import BackendError, RejectedError, UnauthorizedError, UnreachableError
from dualtrack.ports import Fetched

_T = TypeVar("_T")

_CHUNK: Final = 1024 * 1024
_CACHED: Final = 64  # a run has a root, and a store's client costs a sign-in
_UNFINISHED: Final = ".artifact.uploading."  # mlflow's servers do not list what is named so, nor let it be written

# roots that only a backend of that kind has
_CLOUD_KINDS: Final = {"dbfs": "databricks", "azureml": "azureml"}
_INDIRECT: Final = {"runs", "models"}  # names of roots, not roots
# their repositories connect to the host that the root names, with what credentials this machine has for the scheme
# (mlflow 3.17.2, store/artifact/host_policy.py); the wasbs one pins the domain itself
_BY_HOST: Final = {"http", "https", "mlflow-artifacts", "ftp", "sftp", "hdfs", "viewfs", "abfss", "r2", "b2"}
_CLOUDS: Final = {
    "abfss": re.compile(
        r"[a-z0-9-]+\.dfs\.(core\.(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)|fabric\.microsoft\.com)"
    ),
    "r2": re.compile(r"[a-z0-9-]+(\.(eu|fedramp))?\.r2\.cloudflarestorage\.com"),
    "b2": re.compile(r"s3\.[a-z0-9-]+\.backblazeb2\.com"),
}
_PORTS: Final = {"http": 80, "https": 443, "ftp": 21, "sftp": 22}
_UNSAFE: Final = re.compile(r"[\\\s\x00-\x1f\x7f]")  # libraries do not agree where a host ends then
_SPELLED_IN_URLS: Final = {"http", "https", "mlflow-artifacts"}
# what to import, and to install for that, by scheme (mlflow 3.17.2, store/artifact/*_artifact_repo.py)
_NEEDS: Final = {
    "s3": ("boto3", "boto3"),
    "r2": ("boto3", "boto3"),
    "b2": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake"),
    "hdfs": ("pyarrow.fs", "pyarrow"),
    "viewfs": ("pyarrow.fs", "pyarrow"),
    "sftp": ("paramiko", "paramiko"),
}
# mlflow as a library of ours: it calls nobody, says nothing, and leaves repeating for minutes to the journal
_SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}

# What a failure means, where the library does not say it by an HTTP status: names of exceptions and codes of S3.
_SIGN_IN: Final = {
    "NoCredentialsError",  # botocore
    "PartialCredentialsError",
    "TokenRetrievalError",
    "DefaultCredentialsError",  # google.auth
    "RefreshError",
    "ClientAuthenticationError",  # azure.core
    "CredentialUnavailableError",  # azure.identity
    "AuthenticationException",  # paramiko
    "ExpiredToken",  # S3
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
}
_PERMANENT: Final = {
    "FileExistsError",
    "FileNotFoundError",
    "IsADirectoryError",
    "NotADirectoryError",
    "NotImplementedError",
    "PermissionError",
}
_TRANSIENT_STATUS: Final = {408, 425, 429}


class _Shelf(Protocol):
    """One root, as a thread sees it."""

    def put(self, path: str, source: Path, is_given_up: Callable[[], bool]) -> None: ...

    def open(self, path: str) -> BufferedReader | None: ...

    def list(self, path: str) -> list[Listed]: ...

    def delete(self, path: str) -> None: ...


class Repositories:
    """An `ArtifactStore` of all roots but those that the backend serves.

    `local` allows folders of this machine, `hosts` those that a root may name besides the backend's own: a root may
    come from a client, by an experiment's `artifact_location`, and is not to lead anybody around in this network.
    """

    def __init__(
        self,
        name: str,
        tracking_url: str,
        *,
        local: bool = False,
        hosts: Collection[str] = (),
        threads: int = 4,
    ) -> None:
        self._name = name
        self._hosts = hosts
        self._tracking_url = tracking_url
        self._local = local
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"artifacts-{name}")
        self._repository = lru_cache(maxsize=_CACHED)(self._make)

    async def put(self, root: str, path: str, source: str) -> None:
        given_up = threading.Event()
        try:
            await self._run(f"put {path}", root, lambda shelf: shelf.put(path, Path(source), given_up.is_set))
        finally:
            given_up.set()

    @asynccontextmanager
    async def fetch(self, root: str, path: str) -> AsyncIterator[Fetched | None]:
        operation = f"fetch {path}"
        file = await self._run(operation, root, lambda shelf: shelf.open(path))
        if file is None:
            yield None
            return
        try:
            size = os.fstat(file.fileno()).st_size
            etag = await asyncio.to_thread(_etag, file)
            yield Fetched(size=size, chunks=self._chunks(operation, root, file, size), etag=etag)
        finally:
            file.close()

    async def _chunks(self, operation: str, root: str, file: BufferedReader, size: int) -> AsyncIterator[bytes]:
        try:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                size -= len(chunk)
                yield chunk
        except OSError as error:
            raise self._renamed(operation, root, error) from error
        if size:
            raise UnreachableError(self._name, operation, "the file changed while it was read", "is it still written?")

    async def list(self, root: str, path: str) -> list[Listed]:
        return await self._run(f"list {path}", root, lambda shelf: shelf.list(path))

    async def delete(self, root: str, path: str) -> None:
        await self._run(f"delete {path}", root, lambda shelf: shelf.delete(path))

    async def close(self) -> None:
        """Start nothing more. A thread that a store keeps waiting ends with its library's own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, operation: str, root: str, work: Callable[[_Shelf], _T]) -> _T:
        future = self._threads.submit(self._work, operation, root, work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close_unread)
            raise

    def _work(self, operation: str, root: str, work: Callable[[_Shelf], _T]) -> _T:
        try:
            return work(self._shelf(operation, root))
        except BackendError:
            raise
        except Exception as error:
            raise self._renamed(operation, root, error) from error

    def _shelf(self, operation: str, root: str) -> _Shelf:
        scheme = urlsplit(root).scheme
        if scheme in {"", "file"}:
            return _Folder(self._local_path(operation, root))
        if scheme in _CLOUD_KINDS:
            hint = f"if that is what it is: backends.{self._name}.kind: {_CLOUD_KINDS[scheme]}"
            raise self._rejected(operation, f"{_shown(root)} is reached on a {_CLOUD_KINDS[scheme]} backend only", hint)
        if scheme in _BY_HOST:
            self._check_host(operation, root)
        if scheme in _INDIRECT:
            raise self._rejected(operation, f"{_shown(root)} is no artifact root", "what does the backend answer?")
        try:
            return _Remote(self._repository(root), is_url=scheme in _SPELLED_IN_URLS)
        except Exception as error:
            raise self._renamed(operation, root, error, RejectedError) from error

    def _check_host(self, operation: str, root: str) -> None:
        """Let through what a root may name: the backend's own address, a host that was allowed, a cloud's domain."""
        place, own = urlsplit(root), urlsplit(self._tracking_url)
        scheme, host = place.scheme, place.hostname or ""
        if _UNSAFE.search(place.netloc):
            hint = "give the experiment an artifact location without it"
            raise self._rejected(operation, f"{_shown(root)} has a host that is not plain", hint)
        try:
            port = place.port or _PORTS.get(scheme)
        except ValueError as error:
            raise self._rejected(operation, f"{_shown(root)} has no port that is one", "correct it") from error
        is_own = (host, port) == (own.hostname, own.port or _PORTS.get(own.scheme))
        cloud = _CLOUDS.get(scheme)
        is_cloud = cloud is not None and cloud.fullmatch(host) is not None and place.port in {None, 443}
        if not (is_own or is_cloud or host in self._hosts):
            hint = f"if this machine may connect there: backends.{self._name}.artifact_hosts: [{host}]"
            raise self._rejected(operation, f"{_shown(root)} is on another host than {self._name}", hint)

    def _local_path(self, operation: str, root: str) -> Path:
        parts = urlsplit(root)
        path = Path(unquote(parts.path if parts.scheme else root))  # mlflow decodes plain paths too
        if not path.is_absolute() or parts.netloc not in {"", "localhost"}:
            raise self._rejected(operation, f"{root} is no absolute path", "give the server an absolute artifact root")
        if not self._local:
            hint = f"if the server's disk is this machine's: backends.{self._name}.local_artifacts: true"
            raise self._rejected(operation, f"{root} is a folder on the server's disk", hint)
        return path

    def _make(self, root: str) -> Any:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        module, _ = _NEEDS.get(urlsplit(root).scheme, ("mlflow", ""))
        importlib.import_module(module)
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # noqa: PLC0415

        return get_artifact_repository(root, tracking_uri=self._tracking_url)

    def _rejected(self, operation: str, cause: str, hint: str) -> RejectedError:
        return RejectedError(self._name, operation, cause, hint)

    def _renamed(
        self, operation: str, root: str, error: Exception, otherwise: type[BackendError] = UnreachableError
    ) -> BackendError:
        """The error that a foreign one is; `otherwise` when nothing tells whether it passes."""
        cause = f"{_shown(root)}: {_words(error)}"
        if isinstance(error, ImportError):
            _, package = _NEEDS.get(urlsplit(root).scheme, ("", error.name or "what is missing"))
            return self._rejected(operation, cause, f"pip install {package}")
        status = next((status for cause in _chain(error) if (status := _status(cause))), 0)
        names = {name for cause in _chain(error) for name in _names(cause)}
        if status == 401 or names & _SIGN_IN:
            return UnauthorizedError(self._name, operation, cause, "check the store's credentials on this machine")
        if status >= 500 or status in _TRANSIENT_STATUS:
            return UnreachableError(self._name, operation, cause, "is the store up?")
        if status >= 400 or names & _PERMANENT:
            return self._rejected(operation, cause, "check what this machine may do in that store")
        return otherwise(self._name, operation, cause, "is the store up, and reachable from here?")


class _Folder:
    """A root on this machine's disk. Nothing outside it is touched, whatever links lie in it."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def put(self, path: str, source: Path, is_given_up: Callable[[], bool]) -> None:
        place = self._place(path)
        with source.open("rb") as given:
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_name(f"{_UNFINISHED}{uuid4().hex}")
            try:
                with unfinished.open("xb") as taken:
                    while not is_given_up() and (chunk := given.read(_CHUNK)):
                        taken.write(chunk)
                    taken.flush()
                    os.fsync(taken.fileno())
                if not is_given_up():  # a later put may have begun
                    unfinished.replace(place)
                    _sync(place.parent)
            finally:
                unfinished.unlink(missing_ok=True)

    def open(self, path: str) -> BufferedReader | None:
        place = self._checked(self._place(path).resolve(), path)
        return place.open("rb") if place.is_file() else None

    def list(self, path: str) -> list[Listed]:
        folder = self._checked(self._place(path).resolve(), path)
        if not folder.is_dir():
            return []
        return sorted(self._listed(path, folder), key=lambda file: file.path)

    def _listed(self, path: str, folder: Path) -> Iterator[Listed]:
        for file in folder.iterdir():
            if file.name.startswith(_UNFINISHED) or not file.resolve().is_relative_to(self._root):
                continue
            with suppress(FileNotFoundError):  # gone meanwhile, or a link to nothing
                size = file.stat().st_size
                name = f"{path}/{file.name}" if path else file.name
                yield Listed(path=name, is_dir=file.is_dir(), size=None if file.is_dir() else size)

    def delete(self, path: str) -> None:
        place = self._place(path)
        with suppress(FileNotFoundError, NotADirectoryError):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()

    def _place(self, path: str) -> Path:
        """Where `path` lies: its folder without links, its own name as it is."""
        if not path:
            return self._root
        place = self._root / path
        return self._checked(place.parent.resolve(), path) / place.name

    def _checked(self, place: Path, path: str) -> Path:
        if not place.is_relative_to(self._root):
            raise PermissionError(f"{path} leads out of the root")
        return place


class _Remote:
    """A root that one of mlflow's repositories reaches.

    What a library raises for a missing file differs by store, and is a plain failure in some; so the listing of its
    folder decides. HTTP repositories put paths into URLs as they are, so what means something there is encoded first.
    """

    def __init__(self, repository: Any, *, is_url: bool) -> None:
        self._repository = repository
        self._is_url = is_url

    def put(self, path: str, source: Path, is_given_up: Callable[[], bool]) -> None:
        source.stat()
        folder, _, name = self._spelled(path).rpartition("/")
        with TemporaryDirectory(prefix="dualtrack-") as place:
            named = Path(place) / name  # a repository names the file after the local one
            named.symlink_to(source.resolve())
            if not is_given_up():
                self._repository.log_artifact(str(named), folder or None)

    def open(self, path: str) -> BufferedReader | None:
        with TemporaryDirectory(prefix="dualtrack-") as place:
            file = Path(place) / "file"
            try:
                # the public method lists first, and takes a whole folder in a file's place
                self._repository._download_file(self._spelled(path), str(file))
                return file.open("rb")  # without its name from here on, and gone when it is closed
            except Exception as error:  # noqa: BLE001 - raised below, free of this context, or known to be no failure
                failure = error
        if self._is_dir(path) is not False:
            return None
        raise failure

    def list(self, path: str) -> list[Listed]:
        listed = [
            Listed(path=file.path, is_dir=file.is_dir, size=None if file.is_dir else file.file_size)
            for file in self._repository.list_artifacts(path or None)
            if file.path not in {path, "."}
        ]
        return sorted(listed, key=lambda file: file.path)

    def delete(self, path: str) -> None:
        try:
            self._repository.delete_artifacts(self._spelled(path) or None)
            return  # noqa: TRY300 - the rest is for the failure
        except Exception as error:  # noqa: BLE001 - see `open`
            failure = error
        if self._is_dir(path) is not None:
            raise failure

    def _is_dir(self, path: str) -> bool | None:
        """Say what is there by the listing of its folder; None for nothing."""
        if not path:
            return True
        return next((file.is_dir for file in self.list(path.rpartition("/")[0]) if file.path == path), None)

    def _spelled(self, path: str) -> str:
        return path.replace("%", "%25").replace("?", "%3F") if self._is_url else path


def _etag(file: BufferedReader) -> str:
    """A tag of the content: by time and size for a file that has a name, by its hash for one that was downloaded."""
    told = os.fstat(file.fileno())
    if told.st_nlink:
        return f'"{told.st_mtime_ns:x}-{told.st_size:x}"'
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return f'"{digest}"'


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _close_unread(future: Future[Any]) -> None:
    """Close the file that nobody waits for any more."""
    if not future.cancelled() and future.exception() is None and isinstance(file := future.result(), IOBase):
        file.close()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: libraries wrap the failure that says more than theirs."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _names(error: BaseException) -> Iterator[str]:
    yield from (kind.__name__ for kind in type(error).__mro__)
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        yield str(response.get("Error", {}).get("Code", ""))


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception of requests, botocore, google, azure or mlflow carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    of_mlflow = getattr(error, "get_http_status_code", None)
    says_nothing = getattr(error, "error_code", "") == "INTERNAL_ERROR"  # its default
    candidates = (
        response,
        getattr(response, "status_code", None),
        getattr(error, "status_code", None),
        getattr(error, "code", None),
        of_mlflow() if of_mlflow and not says_nothing else None,
    )
    return next((int(status) for status in candidates if isinstance(status, int)), None)


def _words(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return _shown(first[:300]) or type(error).__name__


def _shown(text: str) -> str:
    """Text without passwords and signatures of the URLs in it."""
    return re.sub(r"(://[^\s/@:]*):[^\s/@]*@", r"\1:***@", re.sub(r"\?[^\s'\"]*", "", text))
