"""What the server refuses for lack of a permission, and where answers come to."""

import time

import pytest
from pydantic import ValidationError

from roundlog.client.denials import Denials
from roundlog.log_settings import LogSettings


def test_a_refused_publish_explains_requests_after_it_only() -> None:
    """A permission may be given meanwhile: an older refusal explains nothing."""
    denials = Denials("nats://a:4222")
    before = time.monotonic()
    denials.note('nats: permissions violation for publish to "$js.api.stream.info.rounds"')

    assert denials.of_publish("$JS.API.STREAM.INFO.ROUNDS", since=time.monotonic() + 1) is None
    assert denials.of_publish("$JS.API.DIRECT.GET.ROUNDS", since=before) is None
    denied = denials.of_publish("$JS.API.STREAM.INFO.ROUNDS", since=before)
    assert str(denied) == (
        "NATS at nats://a:4222 does not let this user publish to '$JS.API.STREAM.INFO.ROUNDS': give it the permissions"
        " of docs/operations.md, section 'Permissions in NATS'"
    )


def test_each_refusal_is_reported_once_in_a_while() -> None:
    """A publisher without permission causes thousands a second."""
    denials = Denials("nats://a:4222")
    reported = [denials.note(f'nats: permissions violation for publish to "rounds.{n % 3}"') for n in range(300)]

    assert [is_new for found in reported if found is not None for is_new in found[1:] if is_new] == [True] * 3
    assert denials.note("nats: stale connection") is None


def test_subjects_that_are_kept_are_bounded() -> None:
    """Their number is up to games and settings, not up to clients; bounded all the same."""
    denials = Denials("nats://a:4222")
    for number in range(10_000):
        denials.note(f'nats: permissions violation for subscription to "a.{number}"')

    assert len(denials._subscriptions) <= 256
    assert denials.of_subscription("a.9999") is not None
    denials.clear()
    assert denials.of_subscription("a.9999") is None


@pytest.mark.parametrize(
    ("settings", "answers_to"),
    [
        ({}, "_INBOX"),
        ({"user": "relay", "password": "p"}, "_INBOX.relay"),
        ({"url": "nats://ingest:p@a:4222,nats://b:4222"}, "_INBOX.ingest"),
        ({"user": "a.b>", "password": "p"}, "_INBOX"),
        ({"user": "relay", "password": "p", "inbox_prefix": "_I.mine"}, "_I.mine"),
    ],
)
def test_answers_come_to_a_subject_of_the_user(settings: dict[str, str], answers_to: str) -> None:
    """So that permissions can keep users apart; one for ``_INBOX.>`` suffices for all but a prefix of one's own."""
    assert LogSettings.model_validate(settings).answers_to == answers_to


@pytest.mark.parametrize("prefix", ["", ".", "_INBOX.", "a..b", "a.*", "a.>", "a b"])
def test_prefix_that_is_no_subject_is_refused(prefix: str) -> None:
    """nats-py would take it and fail later."""
    with pytest.raises(ValidationError, match="inbox_prefix"):
        LogSettings(inbox_prefix=prefix)
