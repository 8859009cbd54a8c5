"""What happens in one schedule, decided by its seed alone: the parts, the clients, the faults and their order. Pure.

The times of what happens depend on the machine; what happens, to which part, and in which order does not.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Protocol = Literal["ws", "sse", "grpc", "connect"]
Behaviour = Literal["steady", "slow", "returning", "replaying", "history", "bulk"]
Backend = Literal["postgres-replication", "postgres-notify"]
Begin = Literal["live", "head", "beginning"]

PROTOCOLS: Final[tuple[Protocol, ...]] = ("ws", "sse", "grpc", "connect")
GAMES: Final = {"crash": "multiplier", "dice": "multiplier", "plinko": "multiplier", "double": "color"}
"""The games of all schedules, with their types."""
QUIET_GAME: Final = "double"
"""One round in fifty is of this game, so that clients of it are idle."""
_TOUR_HOLD_S: Final = 2.2
"""Above the times after which parts give a silent peer up, which are 2 s in all installations."""
_POINTS: Final = (1.5, 50.0)
"""Filters that half of the rounds match, and hardly any."""


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """One client. Its requests select `games`, or all games when there are none."""

    name: str
    protocol: Protocol
    behaviour: Behaviour
    games: tuple[str, ...]
    min_point: float | None
    colors: tuple[str, ...]
    begin: Begin
    allow_gap: bool  # gRPC and Connect: gaps come within the stream
    seed: int


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """A fault, by its name in the table of faults; `seed` decides its target and its extent."""

    name: str
    seed: int


@dataclass(frozen=True, slots=True)
class Step:
    """Faults that begin one after another, hold together, and end in the opposite order."""

    faults: tuple[FaultPlan, ...]
    hold_s: float  # how long they hold after the last of them has begun
    settles: bool  # wait until clients have everything before the next step


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that the seed decides."""

    seed: int
    backend: Backend
    servers: int  # of NATS: 1, or 3 as a cluster with a replicated log
    relays: int
    ingests: int
    window_s: float  # the log's duplicate window
    max_age_s: float  # of links
    ring_rounds: int
    rate: int  # transactions a second
    clients: tuple[ClientPlan, ...]
    steps: tuple[Step, ...]

    @property
    def shown(self) -> str:
        """One line for a report."""
        steps = "; ".join("+".join(fault.name for fault in step.faults) for step in self.steps)
        return (
            f"{self.backend}, {self.servers} nats, {self.relays} relays, {self.ingests} ingest, "
            f"window {self.window_s:g} s, {len(self.clients)} clients: {steps}"
        )


def plan(seed: int, faults: Callable[[Backend, int], Sequence[str]]) -> Schedule:
    """Decide a schedule.

    Args:
        seed: The same seed gives the same schedule.
        faults: Returns the names of the faults that an installation with a backend and so many servers can have.
    """
    random_ = random.Random(seed)
    servers = random_.choice([1, 1, 3])
    backends: list[Backend] = ["postgres-replication", "postgres-replication", "postgres-notify"]
    backend = random_.choice(backends)
    names = faults(backend, servers)
    return Schedule(
        seed=seed,
        backend=backend,
        servers=servers,
        relays=random_.choice([1, 2, 2]),
        ingests=random_.choice([1, 2, 2]),
        window_s=random_.choice([2.0, 120.0, 120.0]),
        max_age_s=random_.choice([6.0, 3600.0, 3600.0]),
        ring_rounds=random_.choice([10, 200, 500]),
        rate=random_.choice([40, 80, 160]),
        clients=_clients(random_),
        steps=tuple(_step(random_, names) for _ in range(random_.randint(3, 5))),
    )


def tour(seed: int, faults: Callable[[Backend, int], Sequence[str]]) -> list[Schedule]:
    """Decide three schedules that have every fault once, one at a time: for a test of minutes.

    Each fault is in the first of the installations that can have it and has the fewest so far.
    """
    random_ = random.Random(seed)
    places: tuple[tuple[Backend, int], ...] = (
        ("postgres-replication", 3),
        ("postgres-replication", 1),
        ("postgres-notify", 1),
    )
    dealt: dict[tuple[Backend, int], list[str]] = {place: [] for place in places}
    names = sorted({name for place in places for name in faults(*place)})
    names.sort(key=lambda name: sum(name in faults(*place) for place in places))  # those with the least choice first
    for name in names:
        place = min((place for place in places if name in faults(*place)), key=lambda place: len(dealt[place]))
        dealt[place].append(name)
    schedules = []
    for number, (backend, servers) in enumerate(places):
        random_.shuffle(dealt[backend, servers])
        schedules.append(
            Schedule(
                seed=seed + number,
                backend=backend,
                servers=servers,
                relays=2,
                ingests=2,
                window_s=120.0,
                max_age_s=20.0,
                ring_rounds=100,
                rate=40,
                clients=_clients(random_),
                steps=tuple(
                    Step((FaultPlan(name, random_.getrandbits(32)),), hold_s=_TOUR_HOLD_S, settles=False)
                    for name in dealt[backend, servers]
                ),
            )
        )
    return schedules


def only(schedule: Schedule, names: Sequence[str]) -> Schedule:
    """The same installation and clients with other faults, one step each: to look at a fault alone."""
    steps = tuple(
        Step((FaultPlan(name, schedule.seed + index),), hold_s=4.0, settles=True) for index, name in enumerate(names)
    )
    return Schedule(**{name: getattr(schedule, name) for name in schedule.__slots__} | {"steps": steps})


def _step(random_: random.Random, names: Sequence[str]) -> Step:
    count = random_.choice([1, 1, 2])
    faults = tuple(FaultPlan(name, random_.getrandbits(32)) for name in random_.sample(list(names), count))
    return Step(
        faults,
        hold_s=random_.choice([0.5, 2.0, 4.0, 7.0]),
        settles=random_.random() < 0.5,
    )


def _clients(random_: random.Random) -> tuple[ClientPlan, ...]:
    """Two clients of each protocol that stay, and of the other behaviours one each at least."""
    behaviours: list[tuple[Protocol, Behaviour]] = [(protocol, "steady") for protocol in PROTOCOLS * 2]
    behaviours += [(protocol, "returning") for protocol in PROTOCOLS]
    behaviours += [(random_.choice(PROTOCOLS), behaviour) for behaviour in ("slow", "slow", "replaying", "replaying")]
    behaviours += [("sse", "history"), ("grpc", "bulk"), ("grpc", "bulk")]
    return tuple(
        _client(random_, f"{behaviour}-{protocol}-{index}", protocol, behaviour)
        for index, (protocol, behaviour) in enumerate(behaviours, 1)
    )


def _client(random_: random.Random, name: str, protocol: Protocol, behaviour: Behaviour) -> ClientPlan:
    games: tuple[str, ...] = random_.choice([(), (), ("crash",), ("dice",), (QUIET_GAME,), ("crash", "plinko")])
    if protocol in ("grpc", "connect") and len(games) > 1:
        games = ()  # their methods select one game, a type, or all
    point = random_.choice([None, None, None, *_POINTS])
    begins: dict[Behaviour, Begin] = {"replaying": "beginning", "bulk": "beginning", "slow": "head"}
    others: list[Begin] = ["live", "head", "beginning"]
    return ClientPlan(
        name=name,
        protocol=protocol,
        behaviour=behaviour,
        games=("crash",) if behaviour == "history" else games,
        min_point=point if QUIET_GAME not in games else None,
        colors=random_.choice([(), ("red",)]) if games == (QUIET_GAME,) else (),
        begin=begins.get(behaviour, random_.choice(others)),
        allow_gap=random_.random() < 0.5,
        seed=random_.getrandbits(32),
    )
