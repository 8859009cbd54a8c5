"""What a relay's user in NATS may do: read the log and hear live rounds. Each known way round is tried here.

`relay` is the user of infra/nats-accounts.conf. `greedy` is in the same account without permissions of its own, so that
only the account holds; `second` is the same in another account.
"""

import json
from pathlib import Path
from typing import Final

import pytest

from tests.nats import NatsServer
from tests.security.accounts import attacker
from tests.security.guarded import ROUNDS, Guarded, guarded_by, until_taken

pytestmark = pytest.mark.service

BOTH = pytest.mark.parametrize("user", ["relay", "greedy"])
PAGE: Final = b'{"seq":1,"batch":100,"next_by_subj":"rounds.*"}'
REQUESTS: Final = (
    ("$JS.API.DIRECT.GET.ROUNDS", PAGE),
    ("$JS.API.DIRECT.GET.ROUNDS", b'{"multi_last":["rounds.*"],"batch":100}'),
    ("$JS.API.DIRECT.GET.ROUNDS", b'{"last_by_subj":"rounds.*"}'),
    ("$JS.API.STREAM.MSG.GET.ROUNDS", b'{"seq":1}'),
    ("$JS.API.STREAM.INFO.ROUNDS", b""),
    ("$JS.API.STREAM.INFO.KV_keys", b""),
    ("$JS.API.DIRECT.GET.KV_keys", b'{"seq":1,"batch":100,"next_by_subj":"$KV.keys.>"}'),
    ("$JS.API.STREAM.INFO.USAGE", b""),
    ("$JS.API.STREAM.INFO.AUDIT_REFUSED", b""),
)
"""All that a relay asks of JetStream."""
TARGETS: Final = (
    "rounds.crash",
    "live.rounds.crash",
    "rejects.file",
    "positions.pg",
    "$KV.keys.k1",
    "admins.a1",
    "audit.change.key",
    "$JS.API.STREAM.PURGE.ROUNDS",
    "$JS.API.STREAM.DELETE.ROUNDS",
    "$JS.API.CONSUMER.CREATE.ROUNDS.c1",
    "$JS.ACK.ROUNDS.c1.1.1.1.1.0",
    "_INBOX.ingest.1",
    "_INBOX.second.1",
    "$SYS.REQ.SERVER.PING",
    "$SYS.ACCOUNT.LOG.CONNECT",
)
"""Subjects that mean something to the server or to other users."""


@BOTH
async def test_a_relay_reads_the_log_and_hears_live_rounds(guarded: Guarded, user: str) -> None:
    """Otherwise the tests below would prove nothing."""
    async with attacker(guarded.server, user) as relay:
        info = await relay.answer("$JS.API.STREAM.INFO.ROUNDS")
        first = await relay.answer("$JS.API.STREAM.MSG.GET.ROUNDS", b'{"seq":1}')
        await relay.answer("$JS.API.DIRECT.GET.ROUNDS", PAGE)
        await until_taken(guarded)
        page = [message.data for message in relay.heard]
        await relay.listen("live.rounds.*")
        await guarded.add(ROUNDS)
        await until_taken(guarded)
        await relay.settled()

    assert info is not None
    assert json.loads(info.data)["state"]["messages"] == ROUNDS
    assert first is not None
    assert json.loads(first.data)["message"]["subject"] == "rounds.crash"
    assert page == [*(b'{"round_id":%d}' % number for number in range(ROUNDS)), b""]
    assert [message.subject for message in relay.heard[len(page) :]] == ["live.rounds.crash"]
    assert relay.refused == []


async def test_without_accounts_the_server_stores_its_answers(tmp_path: Path) -> None:
    """What is defended against: permissions alone do not help, since the server publishes, not the user."""
    allowed = ", ".join(f'"{subject}"' for subject, _ in REQUESTS)
    permissions = f'{{ publish: [{allowed}], subscribe: ["live.rounds.*", "_INBOX.relay.>"] }}'
    users = f"{{ user: relay, password: of-relay, permissions: {permissions} }}"
    others = "{ user: operator, password: of-operator }, { user: keeper, password: of-keeper }"
    config = f"authorization {{ users: [{users}, {others}] }}"
    async with guarded_by(NatsServer(tmp_path, config=config)) as guarded:
        async with attacker(guarded.server, "relay") as relay, attacker(guarded.server, "relay") as other:
            await other.listen("live.rounds.*")
            await relay.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, reply="rounds.crash")
            await relay.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, reply="live.rounds.crash")
            await until_taken(guarded)
            await other.settled()
            assert relay.refused == []
        state = await guarded.state()

    assert state["ROUNDS"][1]["messages"] > ROUNDS
    assert len(other.heard) > ROUNDS


@BOTH
async def test_no_answer_reaches_a_subject_of_others(guarded: Guarded, user: str) -> None:
    """The server publishes an answer to the subject that the request names. It has to stay in the asker's account."""
    heard, before = await guarded.overhear(), await guarded.state()
    async with attacker(guarded.server, user) as relay, attacker(guarded.server, "second") as other:
        await other.listen(">")
        for target in TARGETS:
            for subject, body in REQUESTS:
                await relay.send(subject, body, reply=target)
        await until_taken(guarded)
        await other.settled()

    assert heard == []
    assert other.heard == []
    assert await guarded.state() == before


@BOTH
async def test_no_trace_reaches_a_subject_of_others(guarded: Guarded, user: str) -> None:
    """The server publishes what became of a message to the subject of a header, ``Nats-Trace-Dest``."""
    heard, before = await guarded.overhear(), await guarded.state()
    async with attacker(guarded.server, user) as relay, attacker(guarded.server, "second") as other:
        await other.listen(">")
        for target in TARGETS:
            for only in ("false", "true"):
                await relay.send("$JS.API.STREAM.INFO.ROUNDS", Nats_Trace_Dest=target, Nats_Trace_Only=only)
                await relay.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, Nats_Trace_Dest=target, Nats_Trace_Only=only)
        await until_taken(guarded)
        await other.settled()

    assert heard == []
    assert other.heard == []
    assert await guarded.state() == before
    assert (user == "greedy") == (relay.refused == [])


DELIVER: Final = {"deliver_subject": "rounds.crash", "ack_policy": "none", "deliver_policy": "all"}
API: Final = {
    "STREAM.CREATE.X": {"name": "X", "subjects": ["x"]},
    "STREAM.CREATE.M": {"name": "M", "mirror": {"name": "ROUNDS"}, "republish": {"src": ">", "dest": "live.>"}},
    "STREAM.CREATE.S": {"name": "S", "sources": [{"name": "ROUNDS"}]},
    "STREAM.UPDATE.ROUNDS": {"name": "ROUNDS", "subjects": ["rounds.*"], "max_msgs": 1},
    "STREAM.PURGE.ROUNDS": {},
    "STREAM.DELETE.ROUNDS": {},
    "STREAM.MSG.DELETE.ROUNDS": {"seq": 1},
    "STREAM.SNAPSHOT.ROUNDS": {"deliver_subject": "rounds.crash"},
    "STREAM.RESTORE.R": {"config": {"name": "R"}},
    "STREAM.LEADER.STEPDOWN.ROUNDS": {},
    "STREAM.NAMES": {},
    "STREAM.LIST": {},
    "STREAM.INFO.REJECTS": {},
    "STREAM.MSG.GET.REJECTS": {"seq": 1},
    "STREAM.MSG.GET.KV_keys": {"seq": 1},
    "STREAM.CREATE.KV_keys": {"name": "KV_keys", "subjects": ["$KV.keys.>"]},
    "STREAM.PURGE.KV_keys": {},
    "STREAM.INFO.ADMINS": {},
    "DIRECT.GET.ADMINS": {"seq": 1},
    "DIRECT.GET.AUDIT": {"seq": 1},
    "DIRECT.GET.USAGE": {"seq": 1},
    "STREAM.DELETE.AUDIT": {},
    "DIRECT.GET.POSITIONS": {"seq": 1},
    "DIRECT.GET.ROUNDS.rounds.crash": {},
    "CONSUMER.CREATE.ROUNDS": {"stream_name": "ROUNDS", "config": DELIVER},
    "CONSUMER.CREATE.ROUNDS.c1": {"stream_name": "ROUNDS", "config": {**DELIVER, "name": "c1"}},
    "CONSUMER.CREATE.ROUNDS.c1.rounds.crash": {"stream_name": "ROUNDS", "config": {**DELIVER, "name": "c1"}},
    "CONSUMER.CREATE.KV_keys.c1": {"stream_name": "KV_keys", "config": {**DELIVER, "name": "c1"}},
    "CONSUMER.DURABLE.CREATE.ROUNDS.c1": {"stream_name": "ROUNDS", "config": {**DELIVER, "durable_name": "c1"}},
    "CONSUMER.MSG.NEXT.ROUNDS.c1": {"batch": 10},
    "CONSUMER.NAMES.ROUNDS": {},
    "CONSUMER.DELETE.ROUNDS.c1": {},
    "ACCOUNT.PURGE.LOG": {},
    "META.LEADER.STEPDOWN": {},
    "SERVER.REMOVE": {},
}
"""Requests of the JetStream API that a relay does not need."""


@BOTH
async def test_no_other_request_to_jetstream_is_answered(guarded: Guarded, user: str) -> None:
    """A consumer delivers, and a stream republishes, to the subject that its maker names; others delete."""
    heard, before = await guarded.overhear(), await guarded.state()
    answered = []
    async with attacker(guarded.server, user) as relay:
        for call, body in API.items():
            if await relay.answer(f"$JS.API.{call}", json.dumps(body).encode()) is not None:
                answered.append(call)
        await until_taken(guarded)

    assert answered == []
    assert heard == []
    assert await guarded.state() == before


@BOTH
async def test_no_system_request_is_answered(guarded: Guarded, user: str) -> None:
    """They list connections, accounts and subjects, and reload the server. An account may list its own connections."""
    async with attacker(guarded.server, user) as relay, attacker(guarded.server, "second"):
        for subject in (
            "$SYS.REQ.SERVER.PING",
            "$SYS.REQ.SERVER.PING.CONNZ",
            "$SYS.REQ.ACCOUNT.LOG.CONNZ",
            "$SYS.REQ.ACCOUNT.LOG.JSZ",
            "$SYS.REQ.ACCOUNT.LOG.SUBSZ",
            "$SYS.REQ.ACCOUNT.RELAY.CONNZ",
            "$SYS.REQ.SERVER.NAME.RELOAD",
        ):
            if (answer := await relay.answer(subject)) is not None:
                assert (user, subject.rpartition(".")[2]) == ("greedy", "CONNZ")
                assert [each["cid"] for each in json.loads(answer.data)["data"]["connections"]] == [
                    relay.client.client_id
                ]


@BOTH
async def test_nothing_that_a_relay_publishes_reaches_others(guarded: Guarded, user: str) -> None:
    """Neither as a round, nor as a live one, nor as an answer; whatever headers it has."""
    heard, before = await guarded.overhear(), await guarded.state()
    headers: list[dict[str, str]] = [
        {},
        {"Nats_Rollup": "all"},
        {"Nats_Msg_Id": "crash:99", "Nats_Expected_Stream": "ROUNDS"},
        {"Nats_Stream": "ROUNDS", "Nats_Subject": "rounds.crash", "Nats_Sequence": "99", "Nats_Last_Sequence": "98"},
        {"Nats_Schedule": "@at 2026-01-01T00:00:00Z", "Nats_Schedule_Target": "rounds.crash"},
        {"Nats_Batch_Id": "b", "Nats_Batch_Sequence": "1", "Nats_Batch_Commit": "1"},
        {"Nats_Request_Info": '{"acc":"LOG"}'},
    ]
    async with attacker(guarded.server, user) as relay, attacker(guarded.server, "second") as other:
        await other.listen(">")
        for target in TARGETS:
            for each in headers:
                await relay.send(target, b"{}", **each)
        await until_taken(guarded)
        await other.settled()

    assert heard == []
    assert other.heard == []
    assert await guarded.state() == before
    if user == "relay":
        assert len(relay.refused) == len(TARGETS) * len(headers)


async def test_a_request_that_claims_another_account_is_the_askers(guarded: Guarded) -> None:
    """Servers tell each other in a header who asks. One that a client sends does not count."""
    before = await guarded.state()
    for user in ("relay", "greedy"):
        async with attacker(guarded.server, user) as relay:
            for info in ('{"acc":"LOG","svc":"LOG"}', '{"acc":"$SYS"}'):
                await relay.send("$JS.API.STREAM.INFO.ROUNDS", reply="rounds.crash", Nats_Request_Info=info)
                assert await relay.answer("$JS.API.STREAM.DELETE.ROUNDS", Nats_Request_Info=info) is None
    await until_taken(guarded)

    assert await guarded.state() == before


@pytest.mark.parametrize("reply", ["_R_.abcdef.x", "$JS.ACK.ROUNDS.c1.1.1.1.1.0", "_GR_.abc.def.rounds.crash"])
async def test_a_reply_that_the_server_keeps_for_itself_is_refused(guarded: Guarded, reply: str) -> None:
    """With these, answers would be routed without a look at accounts."""
    async with attacker(guarded.server, "relay") as relay:
        await relay.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, reply=reply)

    assert len(relay.refused) == 1


SUBSCRIPTIONS: Final = (
    ">",
    "*.>",
    "*.*.*",
    "_INBOX.>",
    "_INBOX.*.>",
    "_INBOX.ingest.>",
    "_R_.>",
    "rounds.*",
    "live.>",
    "rejects.*",
    "$KV.>",
    "usage.>",
    "relay.>",
    "$JS.>",
    "$JS.EVENT.ADVISORY.>",
    "$SYS.>",
)


async def test_a_relay_subscribes_to_nothing_but_live_rounds_and_its_answers(guarded: Guarded) -> None:
    """Also not under a wildcard that covers them, and not as a member of a queue group."""
    async with attacker(guarded.server, "relay") as relay:
        for count, subject in enumerate(SUBSCRIPTIONS, 1):
            await relay.listen(subject)
            assert len(relay.refused) == count, subject
        for subject in ("rounds.*", "_INBOX.ingest.>"):
            await relay.listen(subject, queue="workers")
        await guarded.add(ROUNDS)
        await until_taken(guarded)
        await relay.settled()

    assert len(relay.refused) == len(SUBSCRIPTIONS) + 2
    assert relay.heard == []


async def test_an_account_of_relays_hears_nothing_else_of_the_log(guarded: Guarded) -> None:
    """Also a user who may subscribe to everything hears live rounds only: no publishes, acks or answers of others."""
    async with attacker(guarded.server, "greedy") as greedy, attacker(guarded.server, "relay") as relay:
        for subject in SUBSCRIPTIONS:
            await greedy.listen(subject)
        await guarded.add(ROUNDS)
        await until_taken(guarded)
        await greedy.settled()
        heard = {message.subject for message in greedy.heard}
        assert await relay.answer("$JS.API.STREAM.INFO.ROUNDS") is not None

    assert heard == {"live.rounds.crash"}


async def test_relays_of_an_account_hear_each_other_report_and_see_keys(guarded: Guarded) -> None:
    """What they share: how much a key has used. What they send: usage and refused credentials."""
    async with attacker(guarded.server, "relay") as one, attacker(guarded.server, "relay") as other:
        await other.listen("relay.limits.ROUNDS")
        await other.listen("$KV.keys.>")
        await one.send("relay.limits.ROUNDS", b"{}")
        await guarded.keeper.publish("$KV.keys.k1", b"{}")
        for subject in ("usage.20261129.19.a.0", "audit.refused"):
            answer = await one.answer(subject, b"{}")
            assert answer is not None
            assert json.loads(answer.data)["seq"] == 1
        assert await one.answer("$JS.API.DIRECT.GET.KV_keys", b'{"seq":1}') is not None
        await until_taken(guarded)
        await other.settled()

    assert [message.subject for message in other.heard] == ["relay.limits.ROUNDS", "$KV.keys.k1"]
    assert one.refused == other.refused == []


async def test_a_queue_group_takes_no_live_round_from_others(guarded: Guarded) -> None:
    """Each relay hears every round, whatever another one of its account subscribes to."""
    async with attacker(guarded.server, "relay") as thief, attacker(guarded.server, "relay") as relay:
        await thief.listen("live.rounds.*", queue="thieves")
        await relay.listen("live.rounds.*")
        for number in range(10, 20):
            await guarded.add(number)
        await until_taken(guarded)
        await relay.settled()

    assert len(relay.heard) == 10
