"""What each method of ``datastream.DataStream`` does, over gRPC and through the HTTP proxy.

Owns reading requests and making answers. Subscription rules, history and hub are those of every protocol. Does not
know how calls, statuses and metadata are written.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final, NamedTuple

from google.protobuf.message import Message

from auth.grants import Grant
from relay.admission.limits.link_limits import Opening
from relay.admission.requested import named_games, requested
from relay.config.sections import GrpcSettings
from relay.errors import BadRequest, TooManyCalls
from relay.history.history import History
from relay.history.query import DEFAULT_LIMIT, MAX_LIMIT, Query, look_back
from relay.history.reading.payer import Payer
from relay.history.start import Start
from relay.links.link_registry import LinkRegistry
from relay.live.channels import Subscription
from relay.rpc.answer_forms import AnswerForm
from relay.rpc.bulk import BulkReplay, Write
from relay.rpc.convert import read_cursor, read_filter, read_heartbeat, read_start, read_times, round_message
from relay.rpc.rpc_link import RpcLink
from rounds import Catalogue
from rounds import datastream_pb2 as pb

SERVICE: Final = "datastream.DataStream"
STREAMS: Final[Mapping[str, type[Message]]] = {
    "StreamByGame": pb.StreamByGameRequest,
    "StreamByType": pb.StreamByTypeRequest,
    "StreamAll": pb.StreamAllRequest,
}
UNARY: Final[Mapping[str, type[Message]]] = {
    "GetLatest": pb.GetLatestRequest,
    "GetHistory": pb.GetHistoryRequest,
    "ListGames": pb.ListGamesRequest,
}

_PAGE_BYTES: Final = 3 << 20
"""Bytes of rounds in one answer: clients accept 4 MB by default. The next page continues after it."""


class StreamRequest(NamedTuple):
    """A checked request of one of `STREAMS`."""

    subscription: Subscription
    start: Start
    allow_gap: bool
    heartbeat_s: float | None  # None: no heartbeats in the stream


class Methods:
    """The methods of the service on one registry, and their limits."""

    def __init__(self, registry: LinkRegistry, history: History, catalogue: Catalogue, settings: GrpcSettings) -> None:
        self._registry = registry
        self._history = history
        self._catalogue = catalogue
        self._answers = settings.answers
        self._open_answers = 0
        self.measured = history.turns.measured
        """Runs a handler, whose steps count as others that clients cause."""
        self.request_bytes = settings.request_bytes
        """Size of the largest request message."""
        self.request_s = settings.request_s
        """Seconds that a client may take to send it, over gRPC."""

    def stream_request(self, request: Message, grant: Grant) -> StreamRequest:
        """Read a request of one of `STREAMS`; raise what `requested`, `read_filter` and `read_start` raise."""
        path: dict[str, str] = {}
        if isinstance(request, pb.StreamByGameRequest):
            path = {"game": _required_slug("game_slug", request.game_slug)}
        elif isinstance(request, pb.StreamByTypeRequest):
            path = {"type": _required_slug("game_type", request.game_type)}
        elif not isinstance(request, pb.StreamAllRequest):
            raise TypeError(type(request))
        subscription = requested(self._catalogue, grant.games, path, {})._replace(filter=read_filter(request.filter))
        if isinstance(request, pb.StreamAllRequest):
            subscription = self._narrowed(subscription, request.game_slugs, grant)
        if request.corrections:
            subscription = subscription.with_corrections()
        start = read_start(request.start, request.after)
        return StreamRequest(subscription, start, request.start.allow_gap, read_heartbeat(request.start))

    @staticmethod
    def replay_opening(request: pb.ReplayRequest) -> Opening:
        """Return what the link of a bulk replay is opened for."""
        return Opening(resumes=bool(request.after), reads_log=lambda: True)

    async def answer(self, request: Message, grant: Grant, payer: Payer, form: AnswerForm) -> bytes:
        """Answer a request of one of `UNARY`; raise the errors of any protocol, or `TooManyCalls`."""
        if self._open_answers >= self._answers:
            raise TooManyCalls(self._registry.ender.delays.after_refusal())
        self._open_answers += 1
        try:
            async with self._registry.feed.listening():
                if isinstance(request, pb.GetLatestRequest):
                    rounds, answer = 1, form.message(await self._latest(request, grant))
                elif isinstance(request, pb.GetHistoryRequest):
                    rounds, answer = await self._page(request, grant, payer, form)
                else:
                    rounds, answer = 0, form.message(self._games(grant))
            self._registry.admission.accounts.of(grant.key_id).sent(rounds, len(answer))
            return answer
        finally:
            self._open_answers -= 1

    async def replay(
        self, request: pb.ReplayRequest, grant: Grant, payer: Payer, link: RpcLink, write: Write
    ) -> AsyncGenerator[list[bytes]]:
        """Find the start of a replay, send `link` its hello event, and return the rounds as `write` renders them.

        Rounds come in batches, up to the current head of the log; then `link` has ended. Raises the errors of
        `stream_request` when the request is invalid.
        """
        subscription = requested(self._catalogue, grant.games, {}, {})._replace(filter=read_filter(request.filter))
        subscription = self._narrowed(subscription, request.game_slugs, grant)
        if request.corrections:
            subscription = subscription.with_corrections()
        after = read_cursor(request.after)
        bulk = BulkReplay(self._history, link, subscription, write, payer)
        await bulk.locate(after)
        return bulk.batches()

    def _narrowed(self, subscription: Subscription, slugs: Iterable[str], grant: Grant) -> Subscription:
        """Return `subscription` for the games that a request names, or unchanged when it names none."""
        names = [_required_slug("game_slugs", slug) for slug in slugs]
        if not names:
            return subscription
        return subscription._replace(games=named_games(self._catalogue, grant.games, names))

    async def _latest(self, request: pb.GetLatestRequest, grant: Grant) -> pb.Round:
        named_games(self._catalogue, grant.games, [_required_slug("game_slug", request.game_slug)])
        if request.corrections:
            return round_message(await self._history.newest_revision(request.game_slug))
        return round_message(self._history.newest(request.game_slug))

    async def _page(
        self, request: pb.GetHistoryRequest, grant: Grant, payer: Payer, form: AnswerForm
    ) -> tuple[int, bytes]:
        if request.game_slug and request.game_type:
            raise BadRequest("game_slug and game_type were both given; send one of them, or neither")
        if request.limit > MAX_LIMIT:
            raise BadRequest(f"limit {request.limit} is not a whole number from 1 to {MAX_LIMIT}")
        path = {"game": request.game_slug} if request.game_slug else {}
        path |= {"type": request.game_type} if request.game_type else {}
        since_ms, until_ms = read_times(request)
        subscription = requested(self._catalogue, grant.games, path, {})._replace(filter=read_filter(request.filter))
        query = Query(
            subscription.with_corrections() if request.corrections else subscription,
            limit=request.limit or DEFAULT_LIMIT,
            before=read_cursor(request.before),
            after=read_cursor(request.after),
            since_ms=since_ms,
            until_ms=until_ms,
            payer=payer,
        )
        async with self._history.answering(payer):
            answer = await look_back(self._history, query)
            rounds, size, cursor = list[bytes](), 0, ""
            async for items in self._history.turns.slices(answer.items):
                for item in items:
                    round_ = form.round(item.round, item.cursor)
                    size += len(round_)
                    if size > _PAGE_BYTES and rounds:
                        return len(rounds), form.page(rounds, cursor, answer.complete)
                    rounds.append(round_)
                    cursor = item.cursor
            next_before = "" if answer.next_before is None else str(answer.next_before)
            return len(rounds), form.page(rounds, next_before, answer.complete)

    def _games(self, grant: Grant) -> pb.ListGamesResponse:
        answer = pb.ListGamesResponse()
        newest = self._history.hub.ring.newest
        for game in self._catalogue.games.values():
            if grant.games is None or game.slug in grant.games:
                row = answer.games.add(slug=game.slug, name=game.name, type=game.type)
                item = newest.get(game.slug)
                if item is not None and item.valid:
                    row.last_round, row.last_update = item.round.round_id, item.round.finished_at
        return answer


def _required_slug(field: str, slug: str) -> str:
    if not slug:
        raise BadRequest(f"{field} holds an empty name; send one such as crash or multiplier")
    return slug
