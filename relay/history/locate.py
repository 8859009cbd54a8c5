"""Find where a replay begins: in memory when that reaches back far enough, or else in the log.

Owns which questions are asked of the ring and of the log; what the answers mean is decided by `relay.history.walk`.
"""

from collections.abc import Mapping
from operator import attrgetter

from relay.history.history import History
from relay.history.reading.payer import Payer
from relay.history.start import Start
from relay.history.walk import Walk, resume, resume_since
from relay.live.bounds import Bounds, Gap
from relay.live.hub import Hub
from relay.live.item import Item
from rounds.subjects import game_of, games_of, is_corrections


def newest_of_each(hub: Hub, games: frozenset[str]) -> list[Item]:
    """Return the newest round of each game, in log order. All of them are always in memory, however old."""
    newest = hub.ring.newest
    return sorted((newest[game] for game in games if game in newest), key=attrgetter("sequence"))


def locate_in_memory(walk: Walk, hub: Hub, start: Start, games: frozenset[str]) -> bool:
    """Begin a walk where everything that follows is in the ring; return False when the ring does not hold it all."""
    ring, head = hub.ring, hub.head
    whole_from = ring.whole_from(games)
    if start.after is not None:
        if start.after.epoch == head.epoch and whole_from <= start.after.sequence <= head.sequence:
            walk.begin(hub.generation, start.after.sequence)
    elif start.last is not None:
        newest = {game: ring.last(game, start.last) for game in games_of(games)}
        floors = {game: items[0].sequence for game, items in newest.items() if items}
        if len(floors) == len(newest) and whole_from < min(floors.values()):
            walk.begin(hub.generation, min(floors.values()) - 1, _with_corrections(floors, games))
    return walk.is_located


def is_newest_only(start: Start, games: frozenset[str]) -> bool:
    """Whether a replay begins with the newest round of each game, which is always in memory, and no corrections."""
    return start.last == 1 and games == games_of(games)


def _with_corrections(floors: Mapping[str, int], games: frozenset[str], default: int = 0) -> dict[str, int]:
    """Let the corrections of each game begin where its rounds do; at `default`, those of a game without rounds."""
    return {name: floors.get(game_of(name), default) for name in games if is_corrections(name)} | dict(floors)


def needs_log(hub: Hub, start: Start, games: frozenset[str]) -> bool:
    """Whether a replay from a start has to read the log, as far as is known before it begins."""
    if start.until_ms is not None or start.speed is not None:
        return True
    return not is_newest_only(start, games) and not locate_in_memory(Walk(hub.generation), hub, start, games)


async def locate_in_log(
    walk: Walk, history: History, start: Start, games: frozenset[str], payer: Payer
) -> tuple[Bounds, Gap | None]:
    """Begin a walk at the position that `start` means in the log; return what the log holds, and what is gone.

    The log is asked in the turns of `payer`.

    Raises:
        LogChanged: The log was rebuilt, or lost its tail, meanwhile.
        LogUnavailable: The log does not answer.
    """
    generation = history.hub.generation
    bounds = await history.bounds(start.after, payer=payer)
    if start.last is not None:
        end = bounds.head + 1
        floors = {game: await history.nth_last(game, start.last, before=end, payer=payer) for game in games_of(games)}
        found = {game: floor for game, floor in floors.items() if floor is not None}
        found = _with_corrections(found, games, default=end)
        walk.begin_by_game(generation, bounds, found, seen=history.hub.head.sequence)
        return bounds, None
    position, gap = bounds.head, None
    if start.after is not None:
        position, gap = resume(start.after, bounds)
    elif start.since_ms is not None:
        position, gap = resume_since(await history.position_at(start.since_ms, payer=payer), bounds)
    elif start.until_ms is not None or start.speed is not None:
        position = bounds.first - 1
    walk.begin(generation, position)
    return bounds, gap
