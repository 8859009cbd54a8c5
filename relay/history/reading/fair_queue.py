"""The order in which payers that wait get their turns: by key, then by address, weighted, by cost. Pure.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) at two levels: keys take turns, and within a public key
its addresses do. Each flow has a virtual time, which its turns advance by their cost; the flow whose time is least is
next. Two flows that wait all the time get turns of the same cost, whatever the number of their requests. A flow that
was idle begins a little behind the time of the others (borrowed virtual time, Duda and Cheriton, SOSP 1999), so that
its first requests do not take turns with those of a crowd. Within one payer, first come, first served.
"""

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from operator import attrgetter
from typing import Final, Generic, TypeVar

from relay.history.reading.payer import Payer

_MOST_IDLE: Final = 4096
"""Flows without requests that are remembered at one level. One that is forgotten begins as if it had been idle."""
_FEWEST: Final = 64
"""Flows that need no clearing."""

T = TypeVar("T", bound=Hashable)


class _Flow:
    """What has turns of its own at one level: a key, or an address of one."""

    __slots__ = ("entry", "finish", "name", "start", "weight")

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.weight = weight
        self.start = 0.0  # virtual time at which its next request begins, while it waits
        self.finish = 0.0  # that at which its last one ended
        self.entry: int | None = None  # the number of its entry in the heap; None: it waits for nothing

    @property
    def is_idle(self) -> bool:
        """Whether it has no request."""
        return self.entry is None


class _Address(_Flow, Generic[T]):
    __slots__ = ("waiting",)

    def __init__(self, name: str, weight: float) -> None:
        super().__init__(name, weight)
        self.waiting: OrderedDict[T, Payer] = OrderedDict()


class _Key(_Flow, Generic[T]):
    __slots__ = ("addresses", "is_suspended")

    def __init__(self, name: str, weight: float, *, head_start: float) -> None:
        super().__init__(name, weight)
        self.addresses = _Level[_Address[T]](head_start)
        self.is_suspended = False

    @property
    def is_idle(self) -> bool:
        return not self.addresses.waiting and not self.is_suspended


F = TypeVar("F", bound=_Flow)


class _Level(Generic[F]):
    """The flows that take turns with each other."""

    __slots__ = ("_clear_at", "_head_start", "_heap", "_numbers", "flows", "virtual", "waiting")

    def __init__(self, head_start: float) -> None:
        self.flows: dict[str, F] = {}
        self.virtual = 0.0
        self.waiting = 0
        self._head_start = head_start
        self._heap: list[tuple[float, int, F]] = []
        self._numbers = 0
        self._clear_at = _FEWEST

    def add(self, flow: F) -> None:
        """Add a flow. Of those that wait for nothing, only those are kept that are ahead of the virtual time."""
        if len(self.flows) >= self._clear_at:
            behind = self.virtual - self._head_start
            idle = sorted((one for one in self.flows.values() if one.is_idle), key=attrgetter("finish"))
            for at, one in enumerate(idle):
                if one.finish <= behind or at < len(idle) - _MOST_IDLE:
                    del self.flows[one.name]
            self._clear_at = max(_FEWEST, 2 * len(self.flows))
        self.flows[flow.name] = flow

    def wake(self, flow: F) -> None:
        """Let a flow wait for its next turn."""
        if flow.entry is None:
            flow.start = max(flow.finish, self.virtual - self._head_start)
            self.waiting += 1
            self._push(flow)

    def rest(self, flow: F) -> None:
        """Let a flow wait no more. Nothing is counted."""
        if flow.entry is not None:
            flow.entry = None
            self.waiting -= 1

    def first(self) -> F | None:
        """Return the flow whose turn is next."""
        heap = self._heap
        while heap:
            _, number, flow = heap[0]
            if flow.entry == number:
                return flow
            heapq.heappop(heap)
        return None

    def serve(self, flow: F, cost: float) -> None:
        """Count a turn of a flow; it then waits for nothing."""
        start = flow.start if flow.entry is not None else max(flow.finish, self.virtual - self._head_start)
        self.rest(flow)
        self.virtual = max(self.virtual, start)
        flow.finish = start + cost / flow.weight

    def charge(self, flow: F, cost: float) -> None:
        """Correct the cost of the last turn of a flow."""
        if flow.entry is None:
            flow.finish = max(flow.finish, self.virtual - self._head_start) + cost / flow.weight
        else:
            flow.start += cost / flow.weight
            self._push(flow)

    def _push(self, flow: F) -> None:
        self._numbers += 1
        flow.entry = self._numbers
        if len(self._heap) > 2 * self.waiting + _FEWEST:
            self._heap = [entry for entry in self._heap if entry[2].entry == entry[1]]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (flow.start, self._numbers, flow))


class FairQueue(Generic[T]):
    """Requests that wait, each of a payer. All operations take logarithmic time, on average."""

    def __init__(self, *, head_start: float = 0.0) -> None:
        """`head_start` is the cost of what a payer that was idle gets before it takes turns with others."""
        self._head_start = head_start
        self._keys = _Level[_Key[T]](head_start)
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, payer: Payer, request: T) -> None:
        """Let a request wait behind the others of its payer."""
        key, address = self._flows(payer)
        if request in address.waiting:
            return
        address.waiting[request] = payer
        self._waiting += 1
        key.addresses.wake(address)
        if not key.is_suspended:
            self._keys.wake(key)

    def remove(self, payer: Payer, request: T) -> None:
        """Let a request wait no more: nothing is different than if it had not come."""
        key, address = self._flows(payer)
        if address.waiting.pop(request, None) is not None:
            self._waiting -= 1
            self._settle(key, address)

    def first(self) -> tuple[Payer, T] | None:
        """Return the request whose turn is next, and its payer; None when none waits whose key is not suspended."""
        key = self._keys.first()
        address = None if key is None else key.addresses.first()
        if address is None:
            return None
        request = next(iter(address.waiting))
        return address.waiting[request], request

    def pop(self, cost: float) -> tuple[Payer, T] | None:
        """Give the turn to the request that is `first`, and count what it costs."""
        key = self._keys.first()
        address = None if key is None else key.addresses.first()
        if key is None or address is None:
            return None
        request, payer = address.waiting.popitem(last=False)
        self._waiting -= 1
        self._serve(key, address, cost)
        return payer, request

    def serve(self, payer: Payer, cost: float) -> None:
        """Count a turn of a payer whose request did not have to wait."""
        key, address = self._flows(payer)
        self._serve(key, address, cost)

    def charge(self, payer: Payer, cost: float) -> None:
        """Add what a turn has cost more than was counted; negative: less."""
        key, address = self._flows(payer)
        self._keys.charge(key, cost)
        key.addresses.charge(address, cost)

    def suspend(self, payer: Payer) -> None:
        """Give no turn to the key of a payer until `resume`; its requests keep their places."""
        key, _ = self._flows(payer)
        key.is_suspended = True
        self._keys.rest(key)

    def resume(self, payer: Payer) -> None:
        """Give turns again to a key that was suspended."""
        key, address = self._flows(payer)
        key.is_suspended = False
        self._settle(key, address)

    def _serve(self, key: _Key[T], address: _Address[T], cost: float) -> None:
        self._keys.serve(key, cost)
        key.addresses.serve(address, cost)
        self._settle(key, address)

    def _settle(self, key: _Key[T], address: _Address[T]) -> None:
        """Let a key and an address wait if, and only if, there is a request."""
        if address.waiting:
            key.addresses.wake(address)
        else:
            key.addresses.rest(address)
        if key.addresses.waiting and not key.is_suspended:
            self._keys.wake(key)
        else:
            self._keys.rest(key)

    def _flows(self, payer: Payer) -> tuple[_Key[T], _Address[T]]:
        key = self._keys.flows.get(payer.key_id)
        if key is None:
            key = _Key(payer.key_id, payer.weight, head_start=self._head_start)
            self._keys.add(key)
        address = key.addresses.flows.get(payer.address)
        if address is None:
            address = _Address(payer.address, 1.0)
            key.addresses.add(address)
        return key, address
