"""What an accepted credential must also fulfil, by the settings of this relay."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from auth.credentials import Presented
from auth.grants import Grant
from auth.key import Key
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.tokens import TokenSigner
from relay.admission.caller import Caller
from relay.admission.capacity import Capacity
from relay.admission.gate import Admission
from relay.admission.key_policy import KeyPolicy
from relay.config.sections import AuthSettings
from relay.errors import NotAllowed, NotAllowedAddress, PrivateKeyInBrowser, refusal_of
from relay.live.ending import ReconnectDelays

SECRET = generate("private")[0]
KEY = Key("one", "private", secrets=(stored(SECRET),))
DELAYS = ReconnectDelays(100)


def gate(key: Key, **settings: str) -> Admission:
    ring = KeyRing([key])
    policy = KeyPolicy(ring, DELAYS, settings=AuthSettings(**settings))  # type: ignore[arg-type]
    return Admission(ring, TokenSigner.ephemeral(), capacity=Capacity.of_links(1), delays=DELAYS, policy=policy)


@pytest.mark.parametrize("address", ["192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1", "2001:DB8:0::1"])
def test_key_is_accepted_from_its_networks(address: str) -> None:
    """IPv4 within IPv6 is IPv4."""
    key = replace(KEY, addresses=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))

    assert gate(key).grant(Presented("key", SECRET), origin=None, caller=Caller.of(address, None)).key_id == "one"


@pytest.mark.parametrize("address", ["192.0.3.9", "::ffff:192.0.3.9", "2001:db9::1", "", "unix:", "::1"])
def test_key_is_refused_from_elsewhere_without_a_hint(address: str) -> None:
    """So are its tokens. An unknown address is in no network."""
    key = replace(KEY, addresses=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
    admission, caller = gate(key), Caller.of(address, None)
    inside = Caller.of("192.0.2.1", None)
    token, _ = admission.token(admission.grant(Presented("key", SECRET), origin=None, caller=inside))
    admission.grant(Presented("token", token), origin=None, caller=inside)

    for presented in (Presented("key", SECRET), Presented("token", token)):
        with pytest.raises(NotAllowedAddress) as caught:
            admission.grant(presented, origin=None, caller=caller)
        assert refusal_of(caught.value) == (403, "not_allowed_address")
        assert not any(digit in str(caught.value) for digit in "0123456789")


def test_test_keys_are_refused_where_the_settings_say_so() -> None:
    """With a sentence that says which keys are accepted."""
    secret = generate("private", test=True)[0]
    key = replace(KEY, test=True, secrets=(stored(secret),))
    caller = Caller.of("127.0.0.1", None)

    gate(key).grant(Presented("key", secret), origin=None, caller=caller)
    with pytest.raises(NotAllowed, match="keys for tests"):
        gate(key, test_keys="refuse").grant(Presented("key", secret), origin=None, caller=caller)


@pytest.mark.parametrize("headers", [{"Origin": "https://a.example"}, {"Sec-Fetch-Site": "same-origin"}])
def test_private_key_of_a_browser_is_warned_of(headers: dict[str, str]) -> None:
    """One line for a key and a while; refused where the settings say so."""
    grant, presented = Grant.of(KEY), Presented("key", SECRET)
    policy = gate(KEY).policy
    with capture_logs() as lines:
        assert policy.check_browser(presented, grant, headers)
        assert policy.check_browser(presented, grant, headers)
        assert policy.check_browser(presented, replace(grant, key_id="two"), headers)
    assert [(line["event"], line["key"]) for line in lines] == [
        ("private_key_in_browser", "one"),
        ("private_key_in_browser", "two"),
    ]

    with pytest.raises(PrivateKeyInBrowser):
        gate(KEY, private_in_browsers="refuse").policy.check_browser(presented, grant, headers)


@pytest.mark.parametrize(
    ("presented", "grant", "headers"),
    [
        (Presented("key", SECRET), Grant.of(KEY), {"Sec-Fetch-Mode": "cors"}),  # the fetch of Node.js
        (Presented("token", "x"), Grant.of(KEY), {"Origin": "https://a.example"}),
        (Presented("key", "pk"), replace(Grant.of(KEY), kind="public"), {"Origin": "https://a.example"}),
    ],
    ids=["server", "token", "public key"],
)
def test_what_a_browser_may_have_is_not_warned_of(presented: Presented, grant: Grant, headers: dict[str, str]) -> None:
    """Servers may have any key; browsers tokens and public keys."""
    assert not gate(KEY, private_in_browsers="refuse").policy.check_browser(presented, grant, headers)


def test_notes_of_browsers_are_bounded() -> None:
    """A relay may have any number of keys."""
    policy = gate(KEY).policy
    for number in range(3000):
        policy.check_browser(Presented("key", SECRET), replace(Grant.of(KEY), key_id=str(number)), {"Origin": "x"})

    assert len(policy._noted) == 1000
