"""Collections of Python's garbage collector, which stop the event loop."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

import pytest
from pydantic import SecretStr

from auth.key_secret import generate
from relay import serve as module
from relay.config.sections import AuthSettings
from relay.config.settings import Settings
from relay.serve import serve


async def test_collections_are_short_and_leave_out_what_is_loaded_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection of it would take 40 ms. The relay itself is simulated: it has started when it is entered."""
    frozen, thresholds, usual = list[int](), list[tuple[int, int, int]](), gc.get_threshold()

    @asynccontextmanager
    async def running(*_parts: object) -> AsyncIterator[None]:
        yield

    async def stop_requested() -> None:
        frozen.append(gc.get_freeze_count())
        thresholds.append(gc.get_threshold())
        await asyncio.sleep(0)

    monkeypatch.setattr(module, "running_relay", running)
    monkeypatch.setattr(module, "stop_requested", stop_requested)
    gc.unfreeze()
    keys = SecretStr(f"k={generate('private')[1]}")
    try:
        await serve(Settings(auth=AuthSettings(keys=keys, token_secrets=SecretStr(f"t:{token_hex(32)}"))))
    finally:
        gc.unfreeze()
        gc.set_threshold(*usual)

    assert frozen[0] > 10_000
    young, middle, full = thresholds[0]
    assert young * middle < 3000, "a collection of the second generation takes 1 ms or less"
    assert young * middle * full > 500_000, "full ones are rare"
