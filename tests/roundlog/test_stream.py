"""The stream: created when missing, checked when present, never changed; each error is one sentence."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg
from pydantic import ValidationError

from backends.backlog import BacklogWatch
from backends.ingest.ingest_metrics import IngestMetrics
from backends.ingest.instrumented import Instrumented
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.client.connection import connect
from roundlog.log_errors import Difference, LogMismatch, LogRefused, LogUnavailable, LogUnsuitable
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_settings import Differences
from roundlog.promises.stream_watch import StreamWatch
from roundlog.publish.store import store
from roundlog.stream import LogInfo, is_stopped, open_log, read_log
from rounds import Cursor
from tests.backends.harness import DeadLetters, Source, captured_events
from tests.nats import NatsServer, nats_client
from tests.network.streams import serving


async def opened(settings: LogSettings) -> LogInfo:
    async with connect(settings, name="test") as nc:
        return await open_log(nc, settings)


async def api(server: NatsServer, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    async with nats_client(LogSettings(url=server.url)) as nc:
        answer = await nc.request(f"$JS.API.{call}", msgspec.json.encode(body) if body else b"")
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    assert "error" not in decoded
    return decoded


@pytest.mark.service
async def test_missing_stream_is_made_with_everything_the_promises_rest_on(nats: NatsServer) -> None:
    """File storage, limits, direct get, de-duplication and republishing are set at once."""
    info = await opened(LogSettings(url=nats.url))

    assert (info.first, info.last, info.stream) == (1, 0, "ROUNDS")
    assert Cursor.parse(f"{info.epoch}-0").epoch == info.epoch
    config = (await api(nats, "STREAM.INFO.ROUNDS"))["config"]
    assert config["subjects"] == ["rounds.*"]
    assert config["storage"] == "file"
    assert config["allow_direct"] is True
    assert config["republish"] == {"src": "rounds.*", "dest": "live.rounds.{{wildcard(1)}}"}
    assert config["duplicate_window"] == 120 * 10**9
    assert config["max_age"] == 30 * 86_400 * 10**9


@pytest.mark.service
async def test_stream_keeps_its_epoch_over_a_restart_and_gets_a_new_one_when_made_anew(nats: NatsServer) -> None:
    """Cursors stay valid when the server restarts, and are recognised as lost when the stream was."""
    settings = LogSettings(url=nats.url)
    first = await opened(settings)
    await nats.kill()
    await nats.start()
    assert await opened(settings) == first

    await api(nats, "STREAM.DELETE.ROUNDS")
    assert (await opened(settings)).epoch != first.epoch


@pytest.mark.service
async def test_stream_with_other_settings_is_reported_setting_by_setting_and_not_changed(nats: NatsServer) -> None:
    """The log's age and size are up to the operator: no error; nothing is changed."""
    await opened(LogSettings(url=nats.url, max_age_s=60, duplicate_window_s=10))
    before = await api(nats, "STREAM.INFO.ROUNDS")

    info = await opened(LogSettings(url=nats.url, max_bytes=1 << 20, duplicate_window_s=5))

    assert info.differences.broken == ()
    assert set(info.differences.harmless) == {
        Difference("max_age_s", 60.0, 2_592_000.0),
        Difference("max_bytes", -1, 1 << 20),
        Difference("duplicate_window_s", 10.0, 5.0),
    }
    assert info.duplicate_window_s == 10.0
    assert (await api(nats, "STREAM.INFO.ROUNDS"))["config"] == before["config"]


_BREAKING: dict[str, Any] = {
    "no_ack": True,
    "subject_transform": {"src": "rounds.*", "dest": "rounds.x-{{wildcard(1)}}"},
    "sources": [{"name": "ELSEWHERE"}],
    "max_msgs_per_subject": 10,
    "subject_delete_marker_ttl": 60 * 10**9,
    "persist_mode": "async",
    "allow_msg_counter": True,
}
_TOGETHER: dict[str, dict[str, Any]] = {  # what the server wants along with one of these
    "subject_delete_marker_ttl": {"allow_msg_ttl": True, "allow_rollup_hdrs": True},
    "allow_msg_counter": {"duplicate_window": 0, "max_age": 0},
}


@pytest.mark.service
@pytest.mark.parametrize("name", _BREAKING)
async def test_setting_that_breaks_a_promise_is_named(nats: NatsServer, name: str) -> None:
    """Acks, the sequence of a round, its subject, its age: each such setting is found before it loses a round."""
    await made(nats, {name: _BREAKING[name], **_TOGETHER.get(name, {})})

    with pytest.raises(LogMismatch) as caught:
        await opened(LogSettings(url=nats.url))

    [difference] = caught.value.differences
    assert difference.name == name
    assert f"{name} is " in str(caught.value)


@pytest.mark.service
async def test_stream_that_is_sealed_is_named(nats: NatsServer) -> None:
    """It takes no rounds. Sealing sets `deny_…` and clears `max_age` along with it."""
    await made(nats, {})
    config = (await api(nats, "STREAM.INFO.ROUNDS"))["config"]
    await api(nats, "STREAM.UPDATE.ROUNDS", {**config, "sealed": True})

    with pytest.raises(LogMismatch, match="sealed is True, wanted False"):
        await opened(LogSettings(url=nats.url))


@pytest.mark.service
async def test_stream_that_mirrors_another_is_named(nats: NatsServer) -> None:
    """Nothing can be published into a mirror."""
    await api(nats, "STREAM.CREATE.ROUNDS", {"name": "ROUNDS", "mirror": {"name": "ELSEWHERE"}, "storage": "file"})

    with pytest.raises(LogMismatch, match=r"mirror is .*ELSEWHERE.*, wanted None"):
        await opened(LogSettings(url=nats.url))


@pytest.mark.service
@pytest.mark.parametrize(
    "harmless",
    [
        {"deny_delete": True, "deny_purge": True},
        {"compression": "s2", "description": "rounds", "metadata": {"team": "games"}},
        {"max_msg_size": 1 << 20, "max_consumers": 10},
        {"allow_msg_ttl": True, "allow_atomic": True, "persist_mode": "default"},
    ],
    ids=lambda given: next(iter(given)),
)
async def test_setting_that_breaks_nothing_is_the_operators(nats: NatsServer, harmless: dict[str, Any]) -> None:
    """We delete nothing, need no consumer, and read the limit of a round's size."""
    await made(nats, harmless)

    assert (await opened(LogSettings(url=nats.url))).last == 0


async def made(nats: NatsServer, more: dict[str, Any]) -> None:
    """Create the stream as it is wanted, except for `more`."""
    await opened(LogSettings(url=nats.url))
    config = (await api(nats, "STREAM.INFO.ROUNDS"))["config"]
    await api(nats, "STREAM.DELETE.ROUNDS")
    await api(nats, "STREAM.CREATE.ROUNDS", {**config, **more})


@pytest.mark.service
async def test_stream_of_someone_else_on_our_subjects_is_one_sentence(nats: NatsServer) -> None:
    """The error contains the server's reason."""
    await api(nats, "STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["rounds.crash"], "storage": "file"})

    with pytest.raises(LogUnsuitable, match="stream 'ROUNDS' cannot be opened: subjects overlap"):
        await opened(LogSettings(url=nats.url))


@pytest.mark.service
async def test_missing_stream_is_not_made_when_creation_is_off(nats: NatsServer) -> None:
    """Where an operator owns all streams, the relay waits for theirs."""
    with pytest.raises(LogUnavailable, match="stream 'ROUNDS' does not exist"):
        await opened(LogSettings(url=nats.url, create=False))


@pytest.mark.service
async def test_more_replicas_than_the_server_can_keep_is_one_sentence(nats: NatsServer) -> None:
    """A single server cannot hold three replicas, and the error contains its reason."""
    with pytest.raises(LogUnsuitable, match="replicas > 1 not supported"):
        await opened(LogSettings(url=nats.url, replicas=3))


@pytest.mark.service
async def test_server_without_jetstream_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """The error names the missing part and how to enable it."""
    server = NatsServer(tmp_path, jetstream=False)
    await server.start()
    try:
        with pytest.raises(LogUnsuitable, match="has no JetStream for this account; start it with -js"):
            await opened(LogSettings(url=server.url))
    finally:
        await server.stop()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with key.pem and cert.pem, a self-signed certificate for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.mark.service
async def test_rounds_are_published_over_tls_and_through_a_kill(tmp_path: Path, certificate: Path) -> None:
    """The publisher's own bytes go through nats-py's TLS; an unknown certificate is one sentence."""
    files = f'cert_file: "{certificate / "cert.pem"}", key_file: "{certificate / "key.pem"}"'
    server = NatsServer(tmp_path, config=f'tls {{ {files} }}\nauthorization {{ token: "right" }}')
    await server.start()
    url = server.url.replace("nats:", "tls:")
    try:
        with pytest.raises(LogRefused, match="certificate verify failed"):
            await opened(LogSettings.model_validate({"url": url, "token": "right"}))

        settings = LogSettings.model_validate({"url": url, "token": "right", "tls_ca_file": certificate / "cert.pem"})
        source = Source(10_000)
        publisher: Publisher[int] = Publisher(
            settings, PublisherSettings(), confirm=source.confirm, rejects=DeadLetters()
        )
        running = asyncio.create_task(publisher.run(source.read()))
        await source.confirmed_to(1000)
        await server.kill()
        await server.start()
        await running
        assert (await opened(settings)).last == 10_000
    finally:
        await server.kill()


@pytest.mark.service
async def test_wrong_password_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    """The error says that the credentials are wrong, and does not contain them."""
    server = NatsServer(tmp_path, config='authorization { user: "ingest", password: "right" }')
    await server.start()
    try:
        with pytest.raises(LogRefused, match="refused the connection") as caught:
            await opened(LogSettings(url=server.url.replace("//", "//ingest:wrong-secret@")))
        assert "wrong-secret" not in str(caught.value)
        assert server.url in str(caught.value)
        assert (
            await opened(LogSettings.model_validate({"url": server.url, "user": "ingest", "password": "right"}))
        ).last == 0
    finally:
        await server.stop()


@pytest.mark.service
async def test_stream_that_another_process_is_creating_is_waited_for(tmp_path: Path) -> None:
    """In a cluster, a server may refuse to create it and not have it yet. These answers of one were recorded."""
    server = NatsServer(tmp_path, jetstream=False)
    await server.start()
    errors = {
        "CREATE": {"code": 400, "err_code": 10058, "description": "stream name already in use"},
        "INFO": {"code": 404, "err_code": 10059, "description": "stream not found"},
    }
    try:
        async with nats_client(LogSettings(url=server.url)) as api:

            async def answer(message: Msg) -> None:
                await message.respond(msgspec.json.encode({"error": errors[message.subject.split(".")[3]]}))

            await api.subscribe("$JS.API.STREAM.>", cb=answer)
            await api.flush()
            with pytest.raises(LogUnavailable, match="stream 'ROUNDS' cannot be opened: stream not found"):
                await opened(LogSettings(url=server.url))
    finally:
        await server.kill()


@asynccontextmanager
async def answers_once(line: bytes) -> AsyncIterator[str]:
    """Listen as a server that greets with `line` and answers CONNECT and PING; yield its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line)
        while request := await reader.readline():
            if request.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    async with serving(serve) as port:
        yield f"nats://127.0.0.1:{port}"


async def test_server_that_is_too_old_is_refused_by_version() -> None:
    """Batched direct get came with 2.11; an older server is recognised before the first request."""
    greeting = b'INFO {"version":"2.9.10","max_payload":1048576,"headers":true}\r\n'
    async with answers_once(greeting) as url:
        with pytest.raises(LogUnsuitable, match=r"is version 2\.9; 2\.11 or newer is needed"):
            await opened(LogSettings(url=url))


async def test_unreachable_server_is_one_sentence_without_credentials(unused_tcp_port: int) -> None:
    """The first attempt fails within its timeout, as an error of `connect`."""
    settings = LogSettings(url=f"nats://me:secret@127.0.0.1:{unused_tcp_port}", connect_timeout_s=0.3)

    with pytest.raises(LogUnavailable, match=f"NATS at nats://127.0.0.1:{unused_tcp_port} cannot be reached"):
        await opened(settings)


async def test_credentials_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Checked before connecting, since the server's answer would not name the file."""
    with pytest.raises(LogRefused, match=r"missing\.creds' cannot be read: No such file"):
        await opened(LogSettings(creds_file=tmp_path / "missing.creds"))

    (tmp_path / "wrong.creds").write_text("sk_live_000")
    with pytest.raises(LogRefused, match=r"wrong\.creds' is not a NATS credentials file: it lacks 'BEGIN NATS USER"):
        await opened(LogSettings(creds_file=tmp_path / "wrong.creds"))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"url": "localhost"}, "nats://host:4222"),
        ({"stream": "a.b"}, "String should match pattern"),
        ({"max_age_s": 60}, "duplicate_window_s 120 must not exceed max_age_s 60"),
        ({"user": "me"}, "user and password go together"),
        ({"no_such": 1}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused_when_built(values: dict[str, Any], sentence: str) -> None:
    """Settings that cannot work are an error before anything connects."""
    with pytest.raises(ValidationError, match=sentence):
        LogSettings(**values)


def test_stream_whose_disk_was_full_is_recognised() -> None:
    """As nats-server 2.15 describes it from the failed write to its restart: messages, and no time of the newest."""
    full = {"messages": 27, "first_seq": 1, "last_seq": 27, "last_ts": "0001-01-01T00:00:00Z"}
    assert is_stopped(full)
    assert not is_stopped({**full, "last_ts": "2026-11-29T13:32:00.830494965Z"})
    assert not is_stopped({"messages": 0, "first_seq": 28, "last_seq": 27, "last_ts": "0001-01-01T00:00:00Z"})
    assert not is_stopped({})


@pytest.mark.service
async def test_purged_stream_is_not_taken_for_one_whose_disk_was_full(nats: NatsServer) -> None:
    """It has no message, and takes the next."""
    settings = LogSettings(url=nats.url)
    async with connect(settings, name="test") as connection:
        await open_log(connection, settings)
        await store(connection, "rounds.crash", b"{}")
        await api(nats, "STREAM.PURGE.ROUNDS")
        watch = StreamWatch()
        await read_log(connection, settings, watch)
        assert watch.stopped is None
        await store(connection, "rounds.crash", b"{}")
        assert (await read_log(connection, settings, watch)).last_at is not None
        assert watch.stopped is None


def test_stopped_stream_makes_ingest_not_ready_with_what_to_do() -> None:
    """One log line, and a sentence for the probe, until nats-server was restarted."""
    metrics = IngestMetrics(Instrumented(object()), "test", BacklogWatch(None))  # type: ignore[arg-type]
    with captured_events() as events:
        for stopped in (True, True, False):
            metrics.streams.note("ROUNDS", Differences(), stopped=stopped)
            assert (metrics.obstacle() == "log_stuck") is stopped
            assert ("restart nats-server" in (metrics.detail() or "")) is stopped
    assert events.count("stream_stopped") == 1
