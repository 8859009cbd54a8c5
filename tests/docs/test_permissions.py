"""The NATS users of docs/operations.md have the permissions that the processes need. Others: tests/security."""

from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from auth.key_secret import DEMO_KEY
from backends.contract import BackendContext
from backends.file import FileReplay
from backends.ingest.run_ingest import run_ingest
from backends.publish.rejects_stream import RejectsStream
from rounds import Catalogue
from tests.backends.file.replaying import jsonl, round_at
from tests.docs.pages import blocks, text_of
from tests.resume.conftest import running
from tests.security.accounts import ACCOUNTS, PASSWORDS, log_of, server_of


def test_the_page_shows_the_file() -> None:
    """One source: what is tested, what is installed and what is explained are the same."""
    assert blocks(text_of("operations.md"), "conf") == [ACCOUNTS]


@pytest.mark.service
async def test_ingest_and_relay_do_all_their_work_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds are stored, a rejected one is kept in REJECTS, a client replays and follows; nothing is denied."""
    for name, value in PASSWORDS.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(jsonl([round_at(n) for n in range(600)]) + b"no round\n")
    options = {"path": str(path), "speed": "max", "rejects_file": str(tmp_path / "rejects.jsonl")}
    (store := tmp_path / "nats").mkdir()
    server = server_of(store, text=ACCOUNTS)
    await server.start()
    try:
        with capture_logs() as logs:
            log = log_of(server, "ingest")
            async with RejectsStream(log, "file") as rejects:
                backend = FileReplay(options, BackendContext(Catalogue.load()))
                stats = await run_ingest(backend, log, rejects=rejects, name="file")
            async with (
                running(log_of(server, "relay", create=False), replay={"ring_rounds": 10}) as url,
                aiohttp.ClientSession() as http,
            ):
                seen = 0
                async with http.get(f"{url}/sse/crash?last=600", headers={"X-API-Key": DEMO_KEY}) as stream:
                    async for line in stream.content:
                        seen += line.startswith(b"data: ")
                        if seen == 600:
                            break
    finally:
        await server.kill()

    assert (stats.acked, stats.rejected) == (600, 1)
    faults = ("nats_error", "nats_denied", "rejects_not_kept", "reject_not_stored")
    assert [entry for entry in logs if entry["event"] in faults] == []
