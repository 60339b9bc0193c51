"""The composition root: the one place that builds adapters and knows who talks to whom.

Opening is one list on an `AsyncExitStack`; closing is the same list backwards: stop listening, finish requests, stop
claiming, give attempts a deadline, close the clients, close the journal. A loop that dies ends the process; the
journal makes that safe.
"""

import asyncio
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from uuid import uuid4

import structlog
from aiohttp import web

from dualtrack import __version__
from dualtrack.admin.api import make_admin
from dualtrack.admin.chart import Samples
from dualtrack.admin.site import Watched
from dualtrack.admin.status import BackendStatus, Status
from dualtrack.backends.artifacts import Artifacts, CloudStore
from dualtrack.backends.artifacts_azureml import AzureArtifacts
from dualtrack.backends.artifacts_databricks import DatabricksArtifacts
from dualtrack.backends.auth import (
    AzureTokens,
    Cached,
    DatabricksTokens,
    Fixed,
    Membership,
    SignIn,
    TokenFile,
    basic,
    bearer,
    make_credential,
)
from dualtrack.backends.azureml_runs import SameRunIds
from dualtrack.backends.http import HttpBackend
from dualtrack.backends.identities import Identities
from dualtrack.backends.online import Seen, look
from dualtrack.backends.signed import SignedStorage
from dualtrack.clock import SystemClock
from dualtrack.config import Config
from dualtrack.config_model import (
    AzureAuth,
    Backend,
    BasicAuth,
    BearerAuth,
    DatabricksAuth,
    ForwardAuth,
    Kind,
    NoAuth,
    OnLimit,
    RunIds,
    TokenAuth,
)
from dualtrack.core import breaker as breakers
from dualtrack.core.azure import DATABRICKS_SCOPE, PUBLIC, cloud_of
from dualtrack.core.exchange import Call
from dualtrack.core.ids import Ref
from dualtrack.core.limits import BATCH_LIMITS, CREATE_TAGS, LENGTHS, RATES, RUN_TAGS
from dualtrack.core.links import web_link
from dualtrack.core.routes import ROUTES, Goes
from dualtrack.core.standing import Occasion
from dualtrack.core.verdict import RetryPolicy
from dualtrack.delivery.assembly import make_worker
from dualtrack.delivery.dispatcher import Dispatcher
from dualtrack.delivery.experiments import Experiments
from dualtrack.delivery.files import Files, Side
from dualtrack.delivery.linker import Linker
from dualtrack.delivery.policy import Policy
from dualtrack.delivery.resolver import Resolver
from dualtrack.delivery.worker import Worker
from dualtrack.errors import BackendError, JournalError, SpoolError, StartError
from dualtrack.lifespan import Loops, background
from dualtrack.metrics import Metrics
from dualtrack.models.front import ModelFront
from dualtrack.ports import Backend as AnyBackend
from dualtrack.ports import Usage
from dualtrack.proxy.artifacts import ArtifactRoutes, FileRules
from dualtrack.proxy.bracket import Bracket, Mirroring
from dualtrack.proxy.guard import Credentials, Guard
from dualtrack.proxy.primary import Primary, Rules
from dualtrack.proxy.registry import RegistryRelay
from dualtrack.proxy.roots import Roots
from dualtrack.proxy.server import BoundedServer, Mirrored, Proxy
from dualtrack.proxy.writes import WriteRoutes
from dualtrack.reconcile.adopter import WholeAdopter
from dualtrack.reconcile.album import Albums
from dualtrack.reconcile.backfill import Backfill
from dualtrack.reconcile.backfills import Backfills
from dualtrack.reconcile.lister import Lister
from dualtrack.reconcile.patience import Patience
from dualtrack.reconcile.reader import Reader
from dualtrack.reconcile.settler import Settler
from dualtrack.reconcile.snapshot import MapNames, Snapshots
from dualtrack.reconcile.standings import Standings
from dualtrack.reconcile.traces import Traces
from dualtrack.reconcile.verifications import Verifications
from dualtrack.reconcile.verifier import Verifier
from dualtrack.reconcile.watcher import Rules as WatchRules
from dualtrack.reconcile.watcher import Watcher
from dualtrack.store.spool import DiskSpool
from dualtrack.store.sqlite import SqliteJournal, open_journal
from dualtrack.translate.fitting import Fitter
from dualtrack.translate.names import NameRule, names_for

log = structlog.get_logger("dualtrack.app")

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_VERSION_SECONDS = 60.0
_SWEEP_SECONDS, _SWEEP_SOON_SECONDS = 60.0, 5.0
# Azure ML refuses pages of 1000 and more (facts A7); MLflow and Databricks take 25,000.
_HISTORY_PAGE = {Kind.AZUREML: 999, Kind.DATABRICKS: 25_000, Kind.MLFLOW: 25_000}
_REGISTRY_OPERATIONS = frozenset(route.operation for route in ROUTES if route.goes is Goes.REGISTRY)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineReport:
    """What one backend said to `check --online`."""

    name: str
    ok: bool
    who: str
    detail: str
    hint: str


# --- building -----------------------------------------------------------------------------------------------------


def make_sign_in(name: str, backend: Backend, *, is_attended: bool = False) -> SignIn:
    """Choose how dualtrack signs in to a backend. `is_attended`: whoever asks waits as long as a person may take."""
    match backend.auth:
        case TokenAuth(token_file=path) if path is not None:
            return TokenFile(name, path)
        case TokenAuth() as auth:
            return bearer(auth.secret.get_secret_value() if auth.secret else "")
        case BasicAuth() as auth:
            return basic(auth.username, auth.secret.get_secret_value() if auth.secret else "")
        case AzureAuth() as auth:
            tokens = _azure_tokens(name, backend, auth)
            return Cached(name, tokens, wait=tokens.patience) if is_attended else Cached(name, tokens)
        case DatabricksAuth() as auth:
            return Cached(name, DatabricksTokens(name, backend.base_url, auth.profile))
        case NoAuth() | ForwardAuth():
            return Fixed({})


def _azure_tokens(name: str, backend: Backend, auth: AzureAuth) -> AzureTokens:
    cloud = cloud_of(backend.host)
    # the public cloud's authority is azure-identity's own default, and AZURE_AUTHORITY_HOST may name another
    authority = auth.authority or (cloud.authority if cloud is not PUBLIC else None)
    scope = DATABRICKS_SCOPE if backend.kind is Kind.DATABRICKS else cloud.resource_manager
    membership = None
    if auth.workspace_resource_id is not None:
        membership = Membership(resource_id=auth.workspace_resource_id, scope=cloud.management)
    make = make_credential(name, auth.credential, auth.given, authority)
    return AzureTokens(name, auth.credential, make, auth.scope or scope, membership)


def make_backend(name: str, config: Config, metrics: Metrics, *, is_attended: bool = False) -> HttpBackend:
    backend = config.backends[name]
    tls: ssl.SSLContext | bool = True
    if backend.ca_file is not None:
        tls = ssl.create_default_context(cafile=str(backend.ca_file))
    return HttpBackend(
        name,
        backend.base_url,
        make_sign_in(name, backend, is_attended=is_attended),
        metrics,
        connect_timeout=backend.connect_timeout.total_seconds(),
        read_timeout=backend.read_timeout.total_seconds(),
        call_timeout=config.delivery.attempt_timeout.total_seconds(),
        connections=config.limits.max_connections,
        tls=tls,
        user_agent=f"dualtrack/{__version__}",
        rates=RATES[backend.kind],
        rewords=backend.kind is not Kind.MLFLOW,
    )


def make_storage(name: str, config: Config) -> SignedStorage:
    """Make the client for a backend's signed URLs; its storage may be public where the backend has a CA of its own."""
    backend = config.backends[name]
    tls = ssl.create_default_context()
    if backend.ca_file is not None:
        tls.load_verify_locations(cafile=str(backend.ca_file))
    return SignedStorage(
        name,
        connect_timeout=backend.connect_timeout.total_seconds(),
        read_timeout=backend.read_timeout.total_seconds(),
        tls=tls,
        user_agent=f"dualtrack/{__version__}",
    )


def make_clouds(name: str, config: Config, backend: HttpBackend) -> dict[str, CloudStore]:
    """Choose what reaches the roots that only a backend of this kind has."""
    match config.backends[name].kind:
        case Kind.DATABRICKS:
            return {"dbfs": DatabricksArtifacts(backend, make_storage(name, config))}
        case Kind.AZUREML:
            return {"azureml": AzureArtifacts(backend, make_storage(name, config))}
        case Kind.MLFLOW:
            return {}


def name_rule(backend: Backend, source: str) -> NameRule:
    names = backend.experiment_names
    return NameRule(
        rule=names.rule,
        qualifies=names.on_collision == "qualify",
        template=names.template or "",
        default_experiment=names.default_experiment or "",
        source=source,
        is_path=backend.kind is Kind.DATABRICKS,
    )


def hosts(config: Config, host: str) -> frozenset[str]:
    """The names under which a listener may be addressed."""
    return _LOOPBACK | {host.lower()} | {name.lower() for name in config.allowed_hosts}


def make_guard(config: Config) -> Guard:
    match config.auth:
        case BearerAuth() as auth:
            credentials = Credentials.bearer(auth.secret.get_secret_value() if auth.secret else "")
        case BasicAuth() as auth:
            credentials = Credentials.basic(auth.username, auth.secret.get_secret_value() if auth.secret else "")
        case _:
            return Guard(allowed_hosts=hosts(config, config.listen.host))
    return Guard(allowed_hosts=hosts(config, config.listen.host), credentials=credentials)


class Versions:
    """What `/version` says: the primary's own, once known; clients ask once and decide about tracing by it."""

    def __init__(self) -> None:
        try:
            self._known = package_version("mlflow-skinny")
        except PackageNotFoundError:
            self._known = "3.4.0"

    def __call__(self) -> str:
        return self._known

    async def watch(self, primary: HttpBackend) -> None:
        """Ask the primary now and then."""
        while True:
            try:
                answer = await primary.send(Call(operation="getVersion", method="GET", target="/version"))
            except BackendError:
                answer = None
            words = answer.body.decode(errors="replace").strip() if answer is not None and answer.is_success else ""
            if words[:1].isdigit() and len(words) < 40:
                self._known = words
            await asyncio.sleep(_VERSION_SECONDS)


# --- one running process ------------------------------------------------------------------------------------------


class App:
    """Everything that runs. Build it inside a running loop; `serve` runs it until it is told to stop."""

    def __init__(self, config: Config, metrics: Metrics, clock: SystemClock) -> None:
        self._config = config
        self._clock = clock
        self.metrics = metrics
        # first what can fail: a store that is locked must leave nothing behind to close
        self.journal = self._open_journal() if config.secondaries else None
        self.backends = {name: make_backend(name, config, metrics) for name in config.backends}
        self.primary: AnyBackend = self.backends[config.primary]
        self.dispatchers: dict[str, Dispatcher] = {}
        self.workers: dict[str, Worker] = {}
        self.settler: Settler | None = None
        self.adopter: WholeAdopter | None = None
        self.backfills: Backfills | None = None
        self.verifications: Verifications | None = None
        self.standings = Standings(metrics)
        self.samples = Samples()
        self.identities = Identities({name: partial(self._look, name) for name in config.backends}, clock)
        self.watcher: Watcher | None = None
        self.linker: Linker | None = None
        self.readers: dict[str, Reader] = {}
        # deliveries and clients have threads of their own: a large copy holds up no client
        self.stores, self._client_stores = self._make_stores(), self._make_stores()
        self.spool = DiskSpool(config.spool_dir, config.spool.max_size)
        self.versions = Versions()
        self._registry: RegistryRelay | None = None
        self._roots: Roots | None = None
        self._started_at = clock.now()
        self._is_listening = False
        self._stopping = asyncio.Event()
        if self.journal is not None:
            self._build_mirroring(self.journal)
        metrics.build.labels(__version__).set(1)
        metrics.spool_bytes.set_function(lambda: self.spool.used_bytes)
        metrics.spool_capacity.set(self.spool.capacity_bytes)

    async def _look(self, name: str) -> Seen:
        return await _look(self.backends[name], self._config.backends[name])

    def _make_stores(self) -> dict[str, Artifacts]:
        return {
            name: Artifacts(
                self.backends[name],
                local=backend.has_local_artifacts,
                hosts=backend.artifact_hosts,
                clouds=make_clouds(name, self._config, self.backends[name]),
            )
            for name, backend in self._config.backends.items()
        }

    def _open_journal(self) -> SqliteJournal:
        store = self._config.store
        return open_journal(
            store.path,
            secondaries=tuple(self._config.secondaries),
            max_bytes=store.max_size,
            linger=self._config.delivery.linger.total_seconds(),
            now=self._clock.now,
            is_registry=_REGISTRY_OPERATIONS.__contains__,
            observe_commit=self.metrics.journal_commit.observe,
        )

    def _build_mirroring(self, journal: SqliteJournal) -> None:
        config = self._config
        source = config.primary
        self.primary = self._front(source, journal)
        self.readers = readers = {name: self._reader(name, self.backends[name]) for name in config.backends} | {
            source: self._reader(source, self.primary)
        }
        # a secondary's files are a client's business only where versions are registered there
        readable = {source, config.registry}
        self._roots = roots = Roots(journal, source, {name: readers[name] for name in readable})
        self.adopter = adopter = WholeAdopter(journal, source, readers[source], readers, self.metrics)
        self.backfills = Backfills(source, config.secondaries, self.make_backfill)
        verifier = self._make_verifier(journal, adopter)
        self.verifications = Verifications(verifier, tuple(config.secondaries))
        self.watcher = self._make_watcher(journal, verifier)
        self.linker = self._make_linker(journal) if config.links != "none" else None
        self.settler = Settler(
            journal,
            readers[source],
            source,
            self._clock,
            self.metrics,
            late=config.backends[source].read_timeout.total_seconds(),
            expect_repeats=self._expect_repeats,
            compare=self._compare_left_over,
        )
        for name in config.secondaries:
            self._build_delivery(name, journal, adopter, readers[name])
        if config.registry != source:
            self._registry = RegistryRelay(
                self._front(config.registry, journal),
                source,
                journal,
                adopter,
                self._clock,
                config.registry_wait.total_seconds(),
                roots if config.artifacts == "proxy" else None,
            )

    def _make_verifier(self, journal: SqliteJournal, adopter: WholeAdopter) -> Verifier:
        config, source = self._config, self._config.primary
        stores = self.stores
        snapshots = {
            name: Snapshots(reader, stores[name], MapNames(journal, name, is_primary=name == source))
            for name, reader in self.readers.items()
        }
        lister = Lister(self.readers[source], source, Patience(self._clock, 0.0))

        def expected(backend: str, name: str, ref: Ref) -> tuple[str, ...]:
            return names_for(name, name_rule(config.backends[backend], source), ref.client_id)

        traces = {name: Traces(backend, self._clock) for name, backend in self.backends.items()}
        return Verifier(
            journal, source, lister, snapshots, traces, adopter, expected, self.standings, self._clock, self.metrics
        )

    def _make_watcher(self, journal: SqliteJournal, verifier: Verifier) -> Watcher:
        verify = self._config.verify
        can_read = not isinstance(self._config.primary_backend.auth, ForwardAuth)  # else nobody here is let in
        wanted = {
            Occasion.ENDED: verify.on_end,
            Occasion.LEFT_OVER: verify.on_start,
            Occasion.PARKED: verify.on_parked,
        }
        rules = WatchRules(
            occasions=frozenset(occasion for occasion, is_wanted in wanted.items() if is_wanted and can_read),
            settle=verify.settle.total_seconds(),
            sweep=verify.sweep.total_seconds() if verify.sweep is not None and can_read else None,
            pause=verify.pause.total_seconds(),
            repairs=verify.repair,
        )
        return Watcher(
            verifier,
            self.standings,
            journal,
            self._clock,
            rules,
            tuple(self._config.secondaries),
            lambda name: self.backends[name].is_up,
        )

    def _make_linker(self, journal: SqliteJournal) -> Linker:
        config = self._config
        pages = {
            name: partial(web_link, backend.kind, backend.web_url or backend.base_url)
            for name, backend in config.backends.items()
        }
        source = self.backends[config.primary]
        return Linker(journal, source, pages, self._clock, on_primary=config.links == "both")

    def _tell(self, backend: str, key: str, occasion: Occasion) -> None:
        """Spread the news of a delivery."""
        for listener in (self.watcher, self.linker):
            if listener is not None:
                listener.tell(backend, key, occasion)

    def _expect_repeats(self, key: str) -> None:
        for worker in self.workers.values():
            worker.expect_repeats(key)

    def _compare_left_over(self, key: str) -> None:
        if self.watcher is not None:
            for name in self._config.secondaries:
                self.watcher.tell(name, key, Occasion.LEFT_OVER)

    def _reader(self, name: str, backend: AnyBackend) -> Reader:
        return Reader(backend, self._config.primary, _HISTORY_PAGE[self._config.backends[name].kind])

    def _front(self, name: str, journal: SqliteJournal) -> AnyBackend:
        """The backend that clients' calls go to, with logged models whether it has them or not."""
        backend = self.backends[name]
        if isinstance(self._config.backends[name].auth, ForwardAuth):
            return backend  # keeping models takes reads and files of dualtrack's own, which nobody would sign
        return ModelFront(
            backend,
            journal.models,
            self._reader(name, backend),
            self._client_stores[name],
            self._clock.now,
            lambda: uuid4().hex,
            spells_sources=self._config.backends[name].kind is Kind.DATABRICKS,
        )

    def _build_delivery(self, name: str, journal: SqliteJournal, adopter: WholeAdopter, reader: Reader) -> None:
        config, backend = self._config, self._config.backends[name]
        delivery = config.delivery
        dispatcher = Dispatcher(
            name,
            journal,
            self._clock,
            self.metrics,
            policy=breakers.Policy(
                failures=config.breaker.failures,
                pause_min=config.breaker.pause_min.total_seconds(),
                pause_max=config.breaker.pause_max.total_seconds(),
            ),
            workers=delivery.workers,
            tell=partial(self._tell, name),
        )
        journal.on_due(dispatcher.wake)
        skips = backend.on_limit is OnLimit.SKIP
        fitter = Fitter(LENGTHS[backend.kind], skips=skips, run_tags=RUN_TAGS[backend.kind])
        policy = Policy(
            source=config.primary,
            limits=BATCH_LIMITS[backend.kind],
            retry=RetryPolicy(
                wait_min=delivery.retry_min.total_seconds(),
                wait_max=delivery.retry_max.total_seconds(),
                give_up_after=delivery.give_up.total_seconds() if delivery.give_up is not None else None,
            ),
            read_ahead_bytes=delivery.read_ahead,
            linger=delivery.linger.total_seconds(),
            fitter=fitter,
            keeps_overflow=backend.on_limit is OnLimit.OVERFLOW,
            copies_at_end=config.artifacts == "direct",
            since=self._clock.now(),
        )
        source, there = self._side(config.primary), self._side(name)
        files = Files(source, there, self.spool, journal, self.metrics, fetches=delivery.workers)
        self.dispatchers[name] = dispatcher
        target = self.backends[name]
        self.workers[name] = make_worker(
            SameRunIds(target) if backend.run_ids is RunIds.SAME else target,
            journal,
            reader,
            Resolver(name, journal, adopter),
            Experiments(
                self.backends[name],
                journal,
                config.primary,
                name_rule(backend, config.primary),
                fitter,
                CREATE_TAGS[backend.kind],
            ),
            files,
            self._clock,
            self.metrics,
            policy,
            dispatcher,
        )

    def _side(self, name: str) -> Side:
        return Side(backend=self.backends[name], store=self.stores[name], looker=self.readers[name])

    def make_proxy(self) -> Proxy:
        config = self._config
        rules = Rules(
            max_body=config.limits.max_body,
            body_timeout=config.limits.body_timeout.total_seconds(),
            forwards_credentials=isinstance(config.primary_backend.auth, ForwardAuth),
            passes_when_full=config.store.on_full == "primary-only",
            history_page=_HISTORY_PAGE[config.primary_backend.kind],
        )
        primary = Primary(self.primary, rules, self._clock)
        mirrored = None
        if self.journal is not None and self.settler is not None and self._roots is not None:
            mirroring = Mirroring(intake=self.journal, doubts=self.settler, secondaries=tuple(config.secondaries))
            mirrored = self._mirrored(primary, rules, mirroring, self._roots)
        return Proxy(
            primary,
            make_guard(config),
            rules,
            self.metrics,
            version=self.versions,
            mirrored=mirrored,
            registry=self._registry,
        )

    def _mirrored(self, primary: Primary, rules: Rules, mirroring: Mirroring, roots: Roots) -> Mirrored:
        config, rewrites = self._config, self._config.artifacts == "proxy"
        bracket = Bracket(mirroring, self.metrics, passes_when_full=rules.passes_when_full)
        files = ArtifactRoutes(
            primary,
            roots,
            mirroring,
            bracket,
            self.spool,
            self._client_stores,
            self.backends,
            rules,
            FileRules(on_full=config.spool.on_full, serves_all=rewrites),
            self.metrics,
        )
        writes = WriteRoutes(primary, mirroring, bracket, roots, rules, self.metrics, rewrites=rewrites)
        return Mirrored(writes=writes, files=files, roots=roots, bracket=bracket, rewrites=rewrites)

    # --- what the admin listener asks ---------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        if self._stopping.is_set():
            return False, "stopping"
        if not self._is_listening:
            return False, "starting"
        if self.journal is not None and self.journal.is_full and self._config.store.on_full == "refuse":
            return False, "the journal is full"
        return True, "ok"

    async def status(self) -> Status:
        config = self._config
        # before the backlogs: a doubt that is settled meanwhile is in one of the two, perhaps in both, never in neither
        open_entries = self.settler.unsettled if self.settler is not None else 0
        backlogs = {backlog.backend: backlog for backlog in await self.journal.backlogs()} if self.journal else {}
        ready, reason = self.ready()
        now = self._clock.now()
        shown = []
        for name, backend in config.backends.items():
            backlog, dispatcher = backlogs.get(name), self.dispatchers.get(name)
            oldest_at = backlog.oldest_at if backlog is not None else None
            shown.append(
                BackendStatus(
                    name=name,
                    kind=backend.kind,
                    role="primary" if name == config.primary else "secondary",
                    url=backend.base_url,
                    is_registry=name == config.registry,
                    web_url=backend.web_url or "",
                    up=self.backends[name].is_up,
                    breaker=dispatcher.breaker.position if dispatcher is not None else "closed",
                    breaker_until=dispatcher.breaker.until or None if dispatcher is not None else None,
                    last_error=backlog.last_error if backlog is not None else "",
                    entries=backlog.entries if backlog is not None else 0,
                    lag_seconds=max(0.0, now - oldest_at) if oldest_at is not None else None,
                    lanes=backlog.lanes if backlog is not None else 0,
                    held_lanes=backlog.held_lanes if backlog is not None else 0,
                    parked=backlog.parked if backlog is not None else 0,
                    losses=backlog.losses if backlog is not None else 0,
                )
            )
        empty = Usage(used_bytes=0, capacity_bytes=0, entries=0, quarantined=0, is_full=False)
        return Status(
            version=__version__,
            started_at=self._started_at,
            ready=ready,
            reason=reason,
            primary=config.primary,
            registry=config.registry,
            backends=tuple(shown),
            journal=await self.journal.usage() if self.journal is not None else empty,
            open_entries=open_entries,
            spool_used_bytes=self.spool.used_bytes,
            spool_capacity_bytes=self.spool.capacity_bytes if self.journal is not None else 0,
        )

    # --- running ------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Listen and deliver until `stop`; then finish in order."""
        config = self._config
        async with self.delivering() as loops, self._admin(), self._listener():
            if self.watcher is not None:
                loops.start("verify", self.watcher.run())
            self._is_listening = True
            log.info(
                "app.ready",
                url=f"http://{config.listen.host}:{config.listen.port}",
                admin=f"http://{config.admin.host}:{config.admin.port}",
                primary=config.primary,
                secondaries=list(config.secondaries),
                registry=config.registry,
            )
            await loops.until(self._stopping)
            log.info("app.stopping")

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[Loops]:
        """Open everything and deliver what is queued, without listening; close in order at the end."""
        async with AsyncExitStack() as stack:
            for backend in self.backends.values():
                stack.push_async_callback(backend.close)
            for store in (*self.stores.values(), *self._client_stores.values()):
                stack.push_async_callback(store.close)
            if self.journal is not None:
                stack.push_async_callback(self.journal.close)
            if self.journal is not None:
                await self.journal.start()
                stack.push_async_callback(self.spool.close)
                await self.spool.open()
                await self._sweep_once(self.journal)
            if self.settler is not None:
                doubtful = await self.settler.recover()
                if self.watcher is not None:
                    await self.watcher.take_over(entry.key for entry in doubtful if entry.key is not None)
            loops = await stack.enter_async_context(background())
            self._start_loops(loops)
            yield loops

    def make_backfill(self, backend: str) -> Backfill:
        """Make what brings over to `backend` what no proxy saw. Once for each: the journal calls it from then on."""
        assert self.journal is not None
        assert self.adopter is not None
        source = self._config.primary
        made = Backfill(
            self.journal,
            source,
            self.readers[source],
            Albums(self.backends[source]),
            backend,
            self.readers[backend],
            self.adopter,
            self._clock,
            is_up=lambda: self.backends[backend].is_up,
        )
        self.journal.on_due(made.arrivals.wake)
        return made

    def _start_loops(self, loops: Loops) -> None:
        if self.settler is not None:
            loops.start("settle", self.settler.run())
        if self.journal is not None:
            loops.start("sweep", self._sweep(self.journal))
            loops.start("sample", self.samples.watch(self.journal, self._clock))
        if self.linker is not None:
            loops.start("link", self.linker.run())
        if self.backfills is not None:
            loops.start("backfill", self.backfills.run())
        for name, dispatcher in self.dispatchers.items():
            deadline = self._config.shutdown.deliveries.total_seconds()
            loops.start(f"deliver {name}", dispatcher.run(self.workers[name]), stop=dispatcher, deadline=deadline)
        loops.start("identities", self.identities.run())
        loops.start("version", self.versions.watch(self.backends[self._config.primary]))

    async def _sweep(self, journal: SqliteJournal) -> None:
        """Remove, now and then, files that no entry needs any more."""
        wait = _SWEEP_SOON_SECONDS
        while True:
            await self._clock.wait(wait)
            # a doubt that is settled leaves its copy behind, as do what was discarded and what was brought over whole
            is_in_doubt = self.settler is not None and self.settler.unsettled > 0
            await self._sweep_once(journal)
            wait = _SWEEP_SOON_SECONDS if is_in_doubt else _SWEEP_SECONDS

    async def _sweep_once(self, journal: SqliteJournal) -> None:
        try:
            await self.spool.sweep(journal.spooled)
        except (JournalError, SpoolError, OSError) as error:
            log.warning("app.sweep", error=str(error), hint="what is left over keeps its room in the spool")

    def stop(self) -> None:
        self._stopping.set()

    @asynccontextmanager
    async def _listener(self) -> AsyncIterator[None]:
        limits = self._config.limits
        server = BoundedServer(
            self.make_proxy(),
            max_connections=limits.max_connections,
            max_headers=limits.max_headers,
            idle_timeout=limits.idle_timeout.total_seconds(),
        )
        grace = self._config.shutdown.grace.total_seconds()  # zero would be no bound at all to aiohttp
        runner = web.ServerRunner(server, shutdown_timeout=max(0.001, grace))
        listen = self._config.listen
        async with _running(runner, listen.host, listen.port, "listen.port"):
            yield

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[None]:
        admin = self._config.admin
        token = admin.admin_token
        application = make_admin(
            self,
            self.journal,
            self.metrics,
            token=token.get_secret_value() if token is not None else None,
            allowed_hosts=hosts(self._config, admin.host),
            now=self._clock.now,
            read_needs_token=admin.host not in _LOOPBACK,
            backfills=self.backfills,
            verifying=self.verifications,
            watched=Watched(standings=self.standings, samples=self.samples, who=self.identities),
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        async with _running(runner, admin.host, admin.port, "admin.port"):
            yield


@asynccontextmanager
async def _running(runner: web.ServerRunner | web.AppRunner, host: str, port: int, setting: str) -> AsyncIterator[None]:
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        try:
            await site.start()
        except (OSError, socket.gaierror) as error:
            raise StartError(
                f"{setting}: cannot listen on {host}:{port}: {error.strerror or error}. Stop what uses it, or choose"
                " another port"
            ) from error
        yield
    finally:
        await runner.cleanup()


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT. Raise `StartError` when that cannot begin."""
    app = App(config, Metrics(), SystemClock())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.serve()


async def check_online(config: Config) -> list[OnlineReport]:
    """Sign in to each backend, all at once, and make a few harmless calls."""
    metrics = Metrics()
    backends = {name: make_backend(name, config, metrics, is_attended=True) for name in config.backends}
    return list(await asyncio.gather(*(_check(each, config.backends[name]) for name, each in backends.items())))


async def _look(backend: HttpBackend, configured: Backend) -> Seen:
    return await look(backend, configured.kind, signs_in=not isinstance(configured.auth, ForwardAuth))


async def _check(backend: HttpBackend, configured: Backend) -> OnlineReport:
    try:
        seen = await _look(backend, configured)
    except BackendError as error:
        return OnlineReport(name=backend.name, ok=False, who="", detail=error.cause, hint=error.hint)
    finally:
        await backend.close()
    return OnlineReport(name=backend.name, ok=True, who=seen.who, detail=seen.detail, hint="")
