"""An identity provider: its keys, its key set, and JWTs that are good except for what a test changes."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth.identity.identity_rules import IdentityRules
from auth.signing.algorithms import PrivateKey, key_of_pem
from auth.signing.compact import encoded

ISSUER: Final = "https://login.example.com/"
AUDIENCE: Final = "streams"
RULES: Final = IdentityRules(ISSUER, frozenset({AUDIENCE}), ("RS256", "ES256", "EdDSA"))


def private_key(algorithm: str = "ES256") -> PrivateKey:
    """Make a key."""
    made: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if algorithm == "ES256":
        made = ec.generate_private_key(ec.SECP256R1())
    elif algorithm == "EdDSA":
        made = ed25519.Ed25519PrivateKey.generate()
    else:
        made = rsa.generate_private_key(65537, 2048)
    key = key_of_pem(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert isinstance(key, PrivateKey)
    assert key.algorithm == algorithm
    return key


class Provider:
    """Keys by id; the last one signs."""

    def __init__(self, **keys: PrivateKey) -> None:
        self.keys = keys or {"p1": private_key()}
        self.clock: Callable[[], float] = time.time

    def key_set(self) -> dict[str, Any]:
        """Return the public keys, as the provider publishes them."""
        return {"keys": [{**key.jwk(), "kid": name, "use": "sig"} for name, key in self.keys.items()]}

    def token(
        self,
        *,
        header: Mapping[str, Any] | bytes | None = None,
        signature: bytes | None = None,
        payload: bytes | None = None,
        without: str = "",
        **claims: Any,
    ) -> str:
        """Make a JWT of a user who may read crash, with changes to its header and claims."""
        name, key = list(self.keys.items())[-1]
        now = int(self.clock())
        whole: dict[str, Any] = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "iat": now, "exp": now + 600, "games": ["crash"],
        }  # fmt: skip
        whole |= claims
        whole.pop(without, None)
        if not isinstance(header, bytes):
            members = {"alg": key.algorithm, "kid": name, "typ": "JWT", **(header or {})}
            header = json.dumps({member: value for member, value in members.items() if value is not ...}).encode()
        signed = encoded(header) + b"." + encoded(json.dumps(whole).encode() if payload is None else payload)
        return (signed + b"." + encoded(key.sign(signed) if signature is None else signature)).decode()
