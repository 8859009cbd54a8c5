"""Rounds that many links resume with at once: what each of them gets is what it would get alone."""

from hypothesis import given
from hypothesis import strategies as st

from relay.history.at_once import resume_at_once
from relay.history.start import Start
from relay.live.channels import Subscription
from relay.live.encode import Form, SseBlock, WebSocketText
from relay.live.item import Item
from roundlog.entry import LogEntry
from rounds import Cursor, Filter
from tests.relay.live.recording_link import RecordingLink
from tests.resume.replay_rig import Client, Rig, turns

GAMES = ("crash", "dice", "double")
FORMS: tuple[Form, ...] = (WebSocketText(), SseBlock(chunked=True))
EVERY = Subscription(frozenset(GAMES), Filter())


async def rig_of(games: list[str], *, ring_rounds: int = 400) -> Rig:
    rig = Rig(ring_rounds=ring_rounds)
    await stored(rig, games)
    return rig


async def stored(rig: Rig, games: list[str]) -> None:
    for game in games:
        rig.store(game)
    rig.hear()
    while rig.hub.head.sequence < rig.head:
        await turns(1)


def expected(rig: Rig, position: int, wanted: Subscription, form: Form) -> bytes:
    entries = [entry for entry in rig.log.entries if entry.sequence > position and entry.game in wanted.games]
    items = [Item(rig.epoch, LogEntry(*entry)) for entry in entries]
    return b"".join(form.render(item) for item in items if item.matches(wanted.filter))


resumes = st.tuples(
    st.integers(0, 60),
    st.sets(st.sampled_from(GAMES), min_size=1).map(frozenset),
    st.sampled_from([Filter(), Filter.build(min_point="2.60")]),
    st.sampled_from(FORMS),
)


@given(
    st.lists(st.tuples(st.lists(st.sampled_from(GAMES), max_size=12), st.lists(resumes, max_size=5)), max_size=5),
    st.integers(1, 30),
)
async def test_each_link_gets_all_rounds_after_its_cursor_or_needs_a_replay(
    steps: list[tuple[list[str], list[tuple[int, frozenset[str], Filter, Form]]]], ring_rounds: int
) -> None:
    """In any order of cursors, games, filters and forms, while rounds come in between."""
    rig = await rig_of(["crash"], ring_rounds=ring_rounds)
    for games, asked in steps:
        await stored(rig, games)
        for position, names, filter_, form in asked:
            link, wanted = RecordingLink(form), Subscription(names, filter_)
            start = Start(after=Cursor(rig.epoch, position))
            is_done = resume_at_once(rig.history, link, wanted, start)

            in_memory = rig.hub.ring.whole_from(names) <= position <= rig.hub.head.sequence
            assert is_done is in_memory
            assert b"".join(link.recorder.writes) == (expected(rig, position, wanted, form) if is_done else b"")
            assert [event["complete"] for event in link.events] == ([True] if is_done else [])


async def test_links_that_begin_at_the_same_place_get_the_same_object() -> None:
    """So 5,000 of them cost one join; those that begin elsewhere share the rounds."""
    rig = await rig_of(["crash", "dice"] * 30)
    rendered = [rig.history.tails.after(position, EVERY, FORMS[0], limit=125) for position in (20, 20, 30, 20)]

    assert all(rendered)
    assert rendered[0] is rendered[1] is rendered[3] is not rendered[2]
    await stored(rig, ["crash"])
    assert rig.history.tails.after(20, EVERY, FORMS[0], limit=125) != rendered[0]


async def test_as_many_rounds_as_a_turn_may_not_have_are_left_to_a_replay() -> None:
    """Also for a link that begins later in a list that was made for another one."""
    rig = await rig_of(["crash"] * 300)
    tails = rig.history.tails

    assert tails.after(175, EVERY, FORMS[0], limit=125) is None
    assert tails.after(176, EVERY, FORMS[0], limit=125) is not None
    assert tails.after(275, EVERY, FORMS[0], limit=25) is None
    assert tails.after(276, EVERY, FORMS[0], limit=25) is not None
    assert tails.after(301, EVERY, FORMS[0], limit=125) is None
    found = tails.after(300, EVERY, FORMS[0], limit=125)
    assert found is not None
    assert (found.rounds, found.size, found.data) == (0, 0, b"")


async def test_log_that_was_rebuilt_shares_nothing_with_the_earlier_one() -> None:
    """The same sequences are other rounds."""
    rig = await rig_of(["crash"] * 10)
    before = rig.history.tails.after(5, EVERY, FORMS[0], limit=125)
    rig.rebuild()
    await stored(rig, ["crash"] * 10)
    after = rig.history.tails.after(5, EVERY, FORMS[0], limit=125)

    assert before is not None
    assert after is not None
    assert after.data == expected(rig, 5, EVERY, FORMS[0]) != before.data
    link = RecordingLink()
    assert not resume_at_once(rig.history, link, EVERY, Start(after=Cursor("k1", 5)))
    assert link.recorder.writes == []


async def test_replays_of_what_is_in_memory_share_its_parts() -> None:
    """Wherever they began; each of them gets every round once, in order."""
    rig = await rig_of([*["crash", "dice", "crash"] * 130])
    clients = {}
    for begin in (0, 1, 3, 50, 77, 124, 180):
        client = clients[begin] = Client()
        replay = rig.replay(client, Start(after=Cursor("k1", begin)), games=("crash", "dice"))
        assert not replay.begin()
        await replay.run()

    for begin, client in clients.items():
        assert [round_["sequence"] for round_ in client.rounds] == list(range(begin + 1, 391))
    wanted, form = Subscription(frozenset(("crash", "dice")), Filter()), SseBlock(chunked=False)
    tails = rig.history.tails
    parts = [tails.first_after(position, wanted, form, limit=125) for position in (1, 100, 100, 124, 200)]
    assert [part and part.end for part in parts] == [100, 200, 200, 200, 300]
    assert parts[1] is parts[2]
    assert tails.first_after(266, wanted, form, limit=125) is None


async def test_parts_of_a_game_with_few_rounds_are_not_cut_much() -> None:
    """Where rounds are far apart, a part does not end at a multiple."""
    rig = await rig_of(["dice" if number % 40 == 0 else "crash" for number in range(400)])
    wanted = Subscription(frozenset(("dice",)), Filter())
    part = rig.history.tails.first_after(0, wanted, FORMS[0], limit=2)

    assert part is not None
    assert (part.written.rounds, part.end) == (2, 41)


async def test_replay_of_filtered_rounds_in_memory_is_whole() -> None:
    """Parts of which no round matches advance the replay, too."""
    rig = await rig_of(["crash"] * 390)
    client = Client()
    replay = rig.replay(client, Start(after=Cursor("k1", 3)), filter_=Filter.build(min_point="99"))
    assert not replay.begin()
    await replay.run()

    assert client.rounds == []
    assert [client.came[0]["event"], replay.cursor] == ["hello", Cursor("k1", 300)]
