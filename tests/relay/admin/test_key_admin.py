"""The verbs of administration on a store in memory: what changes, what is recorded, and what is refused."""

import re
from ipaddress import ip_network
from typing import Any, Final

import msgspec
import pytest

from auth.key import Key, Limits, StoredSecret
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.stores.key_store import StoreDenied
from relay.admin.admin_errors import (
    AdminError,
    AuditUnavailable,
    IdTaken,
    InvalidChange,
    NotPermittedInStore,
    PreconditionFailed,
    RevisionDiffers,
    StoreAway,
    UnknownKey,
)
from relay.admin.key_admin import KeyAdmin
from relay.audit.audit_entry import Actor
from rounds import Catalogue
from tests.relay.admin.memory import MemoryKeys, MemoryTrail

NOW: Final = 1_800_000_000.0


class Desk:
    """An operator at work."""

    def __init__(self, *keys: Key) -> None:
        self.now = NOW
        self.store = MemoryKeys(*keys)
        self.trail = MemoryTrail()
        actor = Actor("admin", "ops", "192.0.2.1")
        self.keys = KeyAdmin(self.store, self.trail, actor, Catalogue.load(), clock=lambda: self.now)

    def accepts(self, secret: str) -> Key:
        return KeyRing(key for key, _ in self.store.keys.values()).authenticate(secret)


def a_key(key_id: str = "a", **members: Any) -> Key:
    secret, _ = generate("private")
    return Key(key_id, "private", secrets=(stored(secret),), **members)


async def test_created_key_is_accepted_and_its_secret_is_nowhere_else() -> None:
    """All members are stored; the secret is in the answer alone."""
    desk = Desk()

    new = await desk.keys.create(
        {
            "id": "web",
            "kind": "public",
            "test": True,
            "name": "Web",
            "games": ["crash"],
            "types": ["color"],
            "allowed_origins": ["https://a.example"],
            "limits": {"requests_per_min": 500},
            "addresses": ["10.0.0.0/8"],
            "expires_at": "2099-01-01T00:00:00Z",
        }
    )

    key, _ = desk.store.keys["web"]
    assert re.fullmatch("pk_test_[0-9a-f]{64}", new.secret)
    assert desk.accepts(new.secret) == key
    assert (key.games, key.types, key.limits) == (
        frozenset({"crash"}),
        frozenset({"color"}),
        Limits(requests_per_min=500),
    )
    assert (key.addresses, key.created_at) == ((ip_network("10.0.0.0/8"),), NOW)
    written = msgspec.json.encode(desk.trail.entries).decode()
    assert new.secret[12:] not in written
    assert key.secrets[0].digest.hex() not in written


CHANGES: Final = [
    ("key.set", lambda desk: desk.keys.change("a", {"games": ["dice"]})),
    ("key.disable", lambda desk: desk.keys.disable("a")),
    ("key.rotate", lambda desk: desk.keys.rotate("a")),
    ("key.delete", lambda desk: desk.keys.delete("a")),
    ("key.create", lambda desk: desk.keys.create({"id": "b"})),
    ("key.import", lambda desk: desk.keys.take_over([a_key("c")], dry_run=False)),
    ("token.revoke", lambda desk: desk.keys.revoke("token", "abc")),
    ("subject.revoke", lambda desk: desk.keys.revoke("subject", "user-1")),
]


@pytest.mark.parametrize(("action", "change"), CHANGES, ids=[action for action, _ in CHANGES])
async def test_every_change_is_recorded(action: str, change: Any) -> None:
    """Who, from where, what, and to which key."""
    desk = Desk(a_key())

    await change(desk)

    [entry] = desk.trail.entries
    assert (entry.action, entry.actor, entry.address) == (action, "admin:ops", "192.0.2.1")
    assert entry.target
    assert entry.before is not None or action in ("key.create", "key.import", "token.revoke", "subject.revoke")


@pytest.mark.parametrize(("action", "change"), CHANGES, ids=[action for action, _ in CHANGES])
async def test_change_that_cannot_be_recorded_is_not_made(action: str, change: Any) -> None:
    """The audit log has every change: so without it there is none."""
    desk = Desk(a_key())
    before = dict(desk.store.keys)
    desk.trail.is_away = True

    with pytest.raises(AuditUnavailable, match="nothing was changed"):
        await change(desk)

    assert desk.store.keys == before
    assert desk.store.revocations == []


@pytest.mark.parametrize(("action", "change"), CHANGES, ids=[action for action, _ in CHANGES])
async def test_store_that_is_away_fails_the_change(action: str, change: Any) -> None:
    """One sentence; what the log recorded before is followed by the outcome."""
    desk = Desk(a_key())
    desk.store.is_away = True

    with pytest.raises(StoreAway, match="the key store cannot be reached: memory does not answer"):
        await change(desk)

    assert desk.trail.actions in ([], [action, f"{action} unknown"])


async def test_change_that_another_one_crossed_is_made_again() -> None:
    """Neither change is lost, and the log says that the first attempt failed."""
    desk = Desk(a_key())
    desk.store.between = lambda: desk.store.edit("a", name="theirs")

    await desk.keys.disable("a")

    key, _ = desk.store.keys["a"]
    assert (key.disabled, key.name) == (True, "theirs")
    assert desk.trail.actions == ["key.disable", "key.disable failed", "key.disable"]


async def test_change_that_is_crossed_again_and_again_is_given_up() -> None:
    """Twice; then the operator looks at what the others do."""
    desk = Desk(a_key())

    def cross() -> None:
        desk.store.edit("a", name=f"theirs {desk.store._revision}")
        desk.store.between = cross

    desk.store.between = cross
    with pytest.raises(RevisionDiffers, match="changed by somebody else"):
        await desk.keys.disable("a")


@pytest.mark.parametrize("verb", ["disable", "enable", "rotate", "delete"])
async def test_change_of_another_revision_is_refused(verb: str) -> None:
    """A change that is for one revision never overwrites another one."""
    desk = Desk(a_key(disabled=True))

    with pytest.raises(PreconditionFailed):
        await getattr(desk.keys, verb)("a", revision=7)

    assert desk.trail.entries == []


async def test_change_to_what_is_already_so_changes_and_records_nothing() -> None:
    """Repeating a command is harmless."""
    desk = Desk(a_key(disabled=True))

    assert (await desk.keys.disable("a")).revision == 1
    assert desk.trail.entries == []


async def test_store_that_refuses_a_change_has_not_made_it() -> None:
    """So the outcome is known, and repeating the command is of no use."""
    desk = Desk(a_key())

    async def denied(*_: object, **__: object) -> int:
        raise StoreDenied("permission denied for table keys")

    desk.store.write = denied  # type: ignore[method-assign]
    with pytest.raises(NotPermittedInStore, match="permission denied for table keys; use the user for tools") as failed:
        await desk.keys.disable("a")

    assert failed.value.exit_status == 1
    assert desk.trail.actions == ["key.disable", "key.disable failed"]


async def test_unknown_key_lists_ids_that_look_like_it() -> None:
    """A typing error is seen at once."""
    desk = Desk(a_key("partner-a"), a_key("partner-b"), a_key("web"))

    with pytest.raises(UnknownKey) as failed:
        await desk.keys.disable("partner-c")

    assert str(failed.value) == "there is no key 'partner-c'; there are: partner-b, partner-a"


async def test_id_that_exists_is_not_replaced() -> None:
    """Its clients would be cut off."""
    desk = Desk(a_key())

    with pytest.raises(IdTaken, match="key 'a' exists already"):
        await desk.keys.create({"id": "a"})


async def test_rotated_key_accepts_both_secrets_for_the_overlap() -> None:
    """The old one gets the time of its end; one that ends earlier is not made longer."""
    desk = Desk()
    first = await desk.keys.create({"id": "a"})

    second = await desk.keys.rotate("a", overlap_s=3600)
    third = await desk.keys.rotate("a", overlap_s=86_400)

    secrets = {one.prefix: one.expires_at for one in desk.store.keys["a"][0].secrets}
    assert secrets == {
        third.secret[:12]: None,
        second.secret[:12]: NOW + 86_400,
        first.secret[:12]: NOW + 3600,
    }


async def test_rotation_without_overlap_refuses_the_old_secret_at_once() -> None:
    """For a secret that has leaked."""
    desk = Desk()
    old = await desk.keys.create({"id": "a"})

    new = await desk.keys.rotate("a", overlap_s=0)

    assert desk.accepts(new.secret).id == "a"
    assert [secret.prefix for secret in desk.store.keys["a"][0].secrets] == [new.secret[:12]]
    assert old.secret != new.secret


async def test_secrets_that_have_expired_are_forgotten_at_the_next_rotation() -> None:
    """A key that is rotated every day keeps two secrets."""
    desk = Desk(a_key())
    for _ in range(12):
        desk.now += 86_400
        await desk.keys.rotate("a", overlap_s=3600)

    assert len(desk.store.keys["a"][0].secrets) == 2


async def test_null_takes_a_member_back_to_its_default() -> None:
    """As in a merge patch; a limit by itself too."""
    desk = Desk(
        a_key(games=frozenset({"dice"}), limits=Limits(links=5, replays=2), expires_at=NOW + 9, name="n"),
    )

    await desk.keys.change("a", {"games": None, "limits": {"links": None}, "expires_at": None, "name": None})

    key, _ = desk.store.keys["a"]
    assert (key.games, key.limits, key.expires_at, key.name) == (None, Limits(replays=2), None, "")


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"id": "b", "kind": "secret"}, "kind 'secret' is not allowed; it is private or public"),
        ({"id": "b", "kind": "public"}, "a public key needs allowed_origins"),
        ({"id": "b", "allowed_origins": ["https://a.example"]}, "allowed_origins is for public keys"),
        ({"id": "b c"}, "key id 'b c' is not allowed"),
        ({"id": 7}, "id '7' is not text"),
        ({"id": "b", "games": "crash"}, "key 'b': Expected `array | null`, got `str` - at `$.games`"),
        ({"id": "b", "games": ["krash"]}, "games holds 'krash', which is not in the catalogue; similar: crash"),
        ({"id": "b", "types": ["colour"]}, "types holds 'colour', which is not in the catalogue; similar: color"),
        ({"id": "b", "types": ["sqq"]}, "types holds 'sqq', which is not in the catalogue; known are: color"),
        ({"id": "b", "games": []}, "games is empty"),
        ({"id": "b", "limits": {"request": 1}}, "limits has no member 'request'; allowed are requests_per_min"),
        ({"id": "b", "limits": {"links": -1}}, "limits.links='-1' is not allowed"),
        ({"id": "b", "limits": 7}, "limits"),
        ({"id": "b", "addresses": ["10.0.0.1/8"]}, "write 10.0.0.0/8 for the whole network"),
        ({"id": "b", "expires_at": "tomorrow"}, "expires_at is not a time"),
        ({"id": "b", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at 2020-01-01T00:00:00Z is in the past"),
        ({"id": "b", "hash": "sha256:00"}, "'hash' is not a member that can be given; allowed are id, kind"),
        ({"id": "b", "secrets": []}, "'secrets' is not a member"),
        ({"id": "b", "name": "x" * 200}, "name 'x"),
        ({"id": "b", "test": "yes"}, "test"),
        ({"id": "b", "disabled": 1}, "disabled"),
        ({"id": "sk_live_" + "a" * 64}, "key id 'sk_live_***' is not allowed"),
    ],
)
async def test_bad_members_of_a_new_key(members: dict[str, Any], sentence: str) -> None:
    """One sentence with the member and what is allowed; nothing is stored or recorded."""
    desk = Desk()

    with pytest.raises(InvalidChange) as failed:
        await desk.keys.create(members)

    assert sentence in str(failed.value)
    assert "\n" not in str(failed.value)
    assert "allowed are hash" not in str(failed.value)
    assert (desk.store.keys, desk.trail.entries) == ({}, [])


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        ({"kind": "public"}, "'kind' is not a member that can be given; allowed are name, games"),
        ({"id": "b"}, "'id' is not a member"),
        ({"secrets": []}, "'secrets' is not a member"),
        ({"created_at": None}, "'created_at' is not a member"),
        ({"games": ["krash"]}, "not in the catalogue"),
        ({"games": "crash"}, "games"),
        ({"limits": {"links": "5"}}, "limits.links='5' is not allowed"),
        ({"limits": [1]}, "limits"),
        ({"addresses": ["here"]}, "addresses holds 'here'"),
        ({"allowed_origins": ["https://a.example"]}, "allowed_origins is for public keys"),
    ],
)
async def test_bad_patch(patch: dict[str, Any], sentence: str) -> None:
    """As for a new key; also members that no key can change."""
    desk = Desk(a_key())

    with pytest.raises(InvalidChange) as failed:
        await desk.keys.change("a", patch)

    assert sentence in str(failed.value)
    assert desk.trail.entries == []


@pytest.mark.parametrize(
    ("what", "value", "options", "sentence"),
    [
        ("token", "", {}, "must be 1 to 256 printable characters"),
        ("token", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln", {}, "this is a whole token; give its jti"),
        ("token", "eyJhbGciOiJIUzI1NiJ9." + 300 * "e" + ".c2ln", {}, "this is a whole token; give its jti"),
        ("token", "sk_live_" + 64 * "5", {}, "the token to revoke holds a secret; to take a key back, disable"),
        ("subject", "pk_test_" + 64 * "5", {}, "the subject to revoke holds a secret"),
        ("token", "admin_" + 64 * "5", {}, "holds a secret"),
        ("token", "abc", {"only_issued_before_now": True}, "only a subject"),
        ("subject", "x", {"for_s": 0}, "up to 90 days"),
        ("subject", "x", {"for_s": 1e9}, "up to 90 days"),
    ],
)
async def test_bad_revocation(what: Any, value: str, options: dict[str, Any], sentence: str) -> None:
    """One sentence; a token or key that was pasted whole is neither echoed nor recorded."""
    desk = Desk()

    with pytest.raises(InvalidChange) as failed:
        await desk.keys.revoke(what, value, **options)

    assert sentence in str(failed.value)
    assert "eyJ" not in str(failed.value)
    assert 10 * "5" not in str(failed.value)
    assert desk.trail.entries == []


async def test_taking_over_says_what_became_of_each_key_and_can_be_repeated() -> None:
    """Only keys that the store does not have are created; nothing that differs is changed."""
    desk = Desk(a_key("same"), a_key("other"))
    same, _ = desk.store.keys["same"]
    copied = Key("copy", "private", secrets=same.secrets)
    keys = [
        Key("same", "private", secrets=(StoredSecret(same.secrets[0].digest),)),
        a_key("other"),
        a_key("new"),
        copied,
    ]

    dry = await desk.keys.take_over(keys, dry_run=True)
    assert set(desk.store.keys) == {"same", "other"}
    first = await desk.keys.take_over(keys, dry_run=False)
    again = await desk.keys.take_over(keys, dry_run=False)

    assert [one.result for one in dry] == ["unchanged", "differs", "created", "same_secret"]
    assert first == dry
    assert [one.result for one in again] == ["unchanged", "differs", "unchanged", "same_secret"]
    assert set(desk.store.keys) == {"same", "other", "new"}
    assert desk.trail.actions == ["key.import"]


def test_every_error_has_a_status_a_code_and_an_exit_status() -> None:
    """Two errors with one code have one status."""
    kinds: list[type[AdminError]] = [AdminError]
    for kind in kinds:
        kinds += kind.__subclasses__()

    assert {kind.exit_status for kind in kinds if kind.status == 503} == {1, 3}
    assert len({kind.code for kind in kinds}) == len({(kind.code, kind.status) for kind in kinds})
