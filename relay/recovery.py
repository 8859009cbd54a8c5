"""Go on after a replication slot was lost, where the operator allows it: a new slot, then what it does not hold.

Owns the order of it. The new slot comes first, so that everything committed after it is captured; then what the table
has and the log lacks is filled in; then capture goes on. Nothing is captured meanwhile, so rounds stay in their order.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog

from backends.connection import connect
from backends.contract import Backend, BackendContext, BackendError
from backends.ingest import run_ingest
from backends.log import open_log
from backends.log_settings import LogSettings
from backends.publisher import Rejects
from backends.registry import make_backend
from relay.settings import Settings

log = structlog.get_logger()

_LOOKBACK_IDS: Final = 100_000
"""How far below the newest id in the log a row may be that is not in it: its transaction was open for so long."""
_ANSWER_S: Final = 5.0
_RENEWED: Final = ("missing", "invalidated", "publication_missing", "publication_late")
_FILLED_IN: Final = (*_RENEWED, "moved")


async def recover(
    error: BackendError, settings: Settings, context: BackendContext, rejects: Rejects
) -> Backend[Any] | None:
    """Make good for a lost slot, if that is what `error` says and the options allow it.

    Returns:
        A new backend to go on with; None: the error stands.

    Raises:
        BackendError: It cannot be made good.
        LogError: The log cannot be used until an operator acts.
    """
    options = settings.backend.options
    state = str(getattr(error, "state", ""))
    if settings.backend.name != "postgres-replication" or state not in _FILLED_IN or not _may_recover(options):
        return None
    from backends.postgres.backfill import TableBackfill
    from backends.postgres.care import ReplicationCare

    care = ReplicationCare(options)
    newest = await newest_ids(settings.nats, context)
    if state == "missing" and not newest:
        return None  # it never ran: there is nothing to make good for, and a first start is the operator's
    log.error("slot_lost", state=state, error=str(error), action="backfill")
    if state in _RENEWED:
        await care.renew(certainly=state == "publication_late")
    first = max(0, max(newest.values()) - _LOOKBACK_IDS) if newest and await care.has_unique_ids() else 0
    backfill = TableBackfill(care.options, context, settings.nats, first=first)
    stats = await run_ingest(backfill, settings.nats, rejects=rejects, name="recovery")
    log.warning("slot_recovered", from_id=first, stored=stats.acked, left_out=backfill.left_out)
    return make_backend(settings.backend.name, options, context)


def _may_recover(options: Mapping[str, object]) -> bool:
    return options.get("on_lost") == "backfill"


async def newest_ids(settings: LogSettings, context: BackendContext) -> dict[str, int]:
    """Return the id of the newest round of each game that the log has rounds of.

    Raises:
        LogError: The log cannot be read.
    """
    found: dict[str, int] = {}
    async with connect(settings, name="recovery") as nc:
        info = await open_log(nc, settings)
        for slug in sorted(context.catalogue.slugs):
            request = msgspec.json.encode({"last_by_subj": f"rounds.{slug}"})
            answer = await nc.request(f"$JS.API.DIRECT.GET.{info.stream}", request, _ANSWER_S)
            if answer.data:
                found[slug] = msgspec.json.decode(answer.data)["round_id"]
    return found
