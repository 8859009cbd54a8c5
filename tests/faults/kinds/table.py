"""All faults by name."""

from collections.abc import Mapping
from typing import Final

from tests.faults.kinds import log_faults, network_faults, process_faults, resource_faults, source_faults
from tests.faults.kinds.fault import Fault
from tests.faults.plan import Backend

_ROOMS = (process_faults, network_faults, source_faults, log_faults, resource_faults)

FAULTS: Final[Mapping[str, type[Fault]]] = {fault.name: fault for room in _ROOMS for fault in room.FAULTS}


def names_for(backend: Backend, servers: int) -> list[str]:
    """Return the names of the faults that an installation can have; in the order of the table, for the seeds' sake."""
    return [
        name for name, fault in FAULTS.items() if backend in fault.backends and (servers > 1 or not fault.needs_cluster)
    ]
