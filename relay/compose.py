"""Compose a relay from its parts. Nothing here runs, listens or connects yet: that is `relay.serve`."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Middleware

from auth.key import Limits as KeyLimits
from auth.key_ring import KeyRing
from auth.revocations import Revocations
from auth.tokens import TokenSigner
from relay.admission.capacity import PROTOCOLS, Capacity, LinkProtocol, capacity_of, held_bytes_limit
from relay.admission.gate import Admission
from relay.admission.held_bytes import HeldBytes
from relay.admission.key_policy import KeyPolicy
from relay.admission.limits.limits import ClientLimits
from relay.admission.limits.shared_use import SharedUse
from relay.admission.open_files import FileShares, shared_files
from relay.admission.strangers import Share
from relay.admission.unread_answers import UnreadAnswers
from relay.config.key_stores import FollowedStores
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.config.trusted_proxies import TrustedProxies
from relay.history.history import History
from relay.history.reading.payer import Payers
from relay.http.application import build_app
from relay.http.connections.guarded import ConnectionLimits
from relay.http.early.early_answers import EarlyAnswers
from relay.http.early.stream_requests import Compresses, StreamRequests
from relay.http.monitoring.metrics import Metrics
from relay.http.monitoring.operator_paths import operator_routes, paths_in_words
from relay.http.monitoring.probes import Probes
from relay.http.rest import Rest
from relay.http.routes import Routes
from relay.http.tokens.identities import Identities
from relay.http.tokens.provider_keys import ProviderKeys, provider_keys
from relay.http.tokens.token_routes import TokenRoutes
from relay.links.link_registry import LinkRegistry
from relay.live.ending import Ender, ReconnectDelays
from relay.live.following.feed import Feed
from relay.live.heartbeat import Heartbeats
from relay.live.hub import Hub
from relay.live.ring import Ring
from relay.live.sending.sends import choose_sends
from relay.rpc.connect.proxy import Proxy
from relay.rpc.methods import Methods
from relay.rpc.server import GrpcServer
from relay.rpc.service import DataStream
from relay.turns import Turns
from relay.usage.usage_reporter import UsageReporter
from roundlog.reader import LogReader
from rounds import Catalogue


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one relay that its process runs, listens with, or drains."""

    reader: LogReader
    feed: Feed
    heartbeats: Heartbeats
    registry: LinkRegistry
    turns: Turns
    capacity: Capacity
    files: FileShares
    connections: ConnectionLimits
    proxies: TrustedProxies
    app: web.Application
    grpc: GrpcServer
    metrics: Metrics
    provider: ProviderKeys | None
    """Keys of the identity provider; None where the settings have none."""
    reporter: UsageReporter
    shared_use: SharedUse | None
    """What other relays use of the limits; None where each relay counts alone."""

    @property
    def max_links(self) -> Mapping[LinkProtocol, int]:
        """Links of each protocol that fit."""
        return {protocol: self.capacity.fit(protocol) for protocol in PROTOCOLS}


def compose(
    settings: Settings,
    catalogue: Catalogue,
    keys: KeyRing,
    signer: TokenSigner,
    stores: FollowedStores | None,
    *,
    revocations: Revocations | None,
    home: str | None,
    checks: Iterable[Middleware],
) -> Parts:
    """Make the parts of a relay; the arguments are those of `relay.serve.running_relay`."""
    links, turns, checks = settings.links, Turns(), tuple(checks)
    ring = Ring(rounds_per_game=settings.replay.ring_rounds, bytes_per_game=settings.replay.ring_bytes)
    hub = Hub(ring, unsent_bytes=links.unsent_bytes, sends=choose_sends(compiled=links.compiled_sends))
    delays = ReconnectDelays(links.retry_ms)
    reader = LogReader(settings.nats)
    feed = Feed(settings.nats, hub, reader)
    history = History(hub, reader, turns, concurrent=settings.replay.concurrent)
    heartbeats = Heartbeats(interval_s=links.heartbeat_s, on_stall=hub.expect_backlog)
    capacity, files = _room(settings)
    limits = ClientLimits(settings.limits, own_limits=partial(_limits_of, keys), retry_ms=delays.after_refusal)
    admission = Admission(
        keys,
        signer,
        capacity=capacity,
        delays=delays,
        revocations=revocations,
        strangers=Share(files.strangers),
        guests=Share(files.guests),
        policy=KeyPolicy(keys, delays, settings=settings.auth, stores=None if stores is None else stores.layers),
        limits=limits,
        payers=Payers(limits.log_meter),
    )
    admission.accounts.in_metrics = settings.usage.metrics
    registry = LinkRegistry(hub, feed, admission, heartbeats, Ender(hub, delays, linger_s=links.linger_s), links)
    registry.refusals.credentials.settings = settings.audit
    held = HeldBytes(held_bytes_limit())
    proxies = TrustedProxies.parse(settings.http.trusted_proxies)
    methods = Methods(registry, history, catalogue, settings.grpc)
    provider = provider_keys(settings.identity)
    identities = None if provider is None else Identities(settings.identity.rules(), provider, catalogue)
    service = DataStream(
        registry,
        history,
        catalogue,
        methods,
        proxies,
        unread=UnreadAnswers(held.most // 2, retry_ms=delays.after_refusal),
    )
    grpc = GrpcServer(
        settings.grpc,
        service.methods(),
        registry.obstacle,
        max_links=capacity.fit("grpc"),
        connections=files.grpc_connections,
        held=held,
        turns=turns,
        retry_ms=delays.after_refusal,
        check_key=service.grant,
        proxies=proxies,
    )
    metrics = Metrics(registry, history, held, grpc.share, grpc.faults)
    app = build_app(
        routes_of(registry, history, catalogue, methods, identities=identities, metrics=metrics, http=settings.http),
        home=home,
        refusals=registry.refusals,
        checks=checks,
        proxies=proxies,
        paths=paths_in_words(settings.http.docs),
    )
    app.on_response_prepare.append(partial(_end_keep_alive, admission))
    shares = admission.shares
    # Checks look at requests of aiohttp.
    answers = (
        None
        if checks
        else EarlyAnswers(
            registry,
            StreamRequests(registry, history, catalogue, _compresses(settings.http)),
            Rest(registry, history, catalogue),
            TokenRoutes(registry, catalogue, identities),
            proxies,
        )
    )
    return Parts(
        reader=reader,
        feed=feed,
        heartbeats=heartbeats,
        registry=registry,
        turns=turns,
        capacity=capacity,
        files=files,
        connections=ConnectionLimits(
            shares["strangers"],
            shares["guests"],
            settings.http.request_s,
            held,
            answers,
            partial(grpc.on_http_port, shares["strangers"], shares["guests"]) if settings.http.h2c else None,
        ),
        proxies=proxies,
        app=app,
        grpc=grpc,
        metrics=metrics,
        provider=provider,
        reporter=UsageReporter(
            admission.accounts,
            registry.settle_usage,
            settings.usage,
            settings.nats,
            also=registry.refusals.credentials,
        ),
        shared_use=SharedUse(limits, settings.nats) if settings.limits.shared else None,
    )


def _room(settings: Settings) -> tuple[Capacity, FileShares]:
    """Return how many links fit, and what the open files are for; raises the limit of open files."""
    capacity = capacity_of(settings.links, grpc_tls=settings.grpc.tls_cert_file is not None)
    files = shared_files(max(capacity.fit(protocol) for protocol in PROTOCOLS))
    return capacity.within("files", files.links, files.costs), files


def _limits_of(keys: KeyRing, key_id: str) -> KeyLimits | None:
    """Return the limits of a key as they are now; None when the key is not known."""
    key = keys.get(key_id)
    return None if key is None else key.limits


def routes_of(
    registry: LinkRegistry,
    history: History,
    catalogue: Catalogue,
    methods: Methods,
    *,
    identities: Identities | None = None,
    metrics: Metrics | None = None,
    http: HttpSettings | None = None,
) -> Iterator[Iterable[web.RouteDef]]:
    """Yield the routes of all parts that answer on the HTTP port."""
    http = http or HttpSettings()
    yield Routes(registry, history, catalogue, _compresses(http)).table()
    yield TokenRoutes(registry, catalogue, identities).table()
    yield Rest(registry, history, catalogue).table()
    yield Probes(registry.obstacle, lambda obstacle: registry.facts(obstacle)).table()
    yield from operator_routes(http, metrics or Metrics(registry, history), registry)
    yield Proxy(registry, history, catalogue, methods).table()


def _compresses(http: HttpSettings) -> Compresses:
    return Compresses(http.compress_websocket, http.compress_sse)


async def _end_keep_alive(admission: Admission, _request: web.Request, response: web.StreamResponse) -> None:
    """Close a connection after its answer while the relay drains: a balancer would keep it and send more requests."""
    if admission.draining:
        response.headers["Connection"] = "close"
        response.force_close()
