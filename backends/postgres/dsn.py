"""Parse the URL of a database as libpq does, and translate it for asyncpg.

Pure. Owns which parameters exist, and what happens to those that asyncpg does not know: it would send them to the
server, which refuses the connection. Errors and log lines contain no values, since one may be a password.
Reference: https://www.postgresql.org/docs/current/libpq-connect.html
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^:\[\]@]*)(?::[0-9]{1,5})?")
_FORM: Final = "must be a URL such as postgresql://user:password@host:5432/database (value not shown)"

_TO_ASYNCPG: Final = frozenset(
    {"host", "port", "dbname", "user", "password", "passfile", "service", "options", "application_name", "sslmode",
     "sslcert", "sslkey", "sslrootcert", "sslnegotiation", "sslcrl", "sslpassword", "ssl_min_protocol_version",
     "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib"}
)  # fmt: skip

_NOT_NEEDED: Final[Mapping[str, frozenset[str] | None]] = {
    # Every query has a timeout, so a dead connection is noticed without TCP keepalives.
    "keepalives": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "keepalives_count": None,
    "tcp_user_timeout": None,
    "connect_timeout": None,  # see `AsyncpgTarget.timeout_s`
    "client_encoding": None,  # asyncpg always uses UTF-8
    "fallback_application_name": None,  # we set application_name
    "replication": None,  # our own connections set it
    "load_balance_hosts": None,
    "sslcompression": None,
    "sslkeylogfile": None,
    "min_protocol_version": None,
    "max_protocol_version": None,
    # Values that match what asyncpg does anyway. Other values would be silently ignored, so they are refused.
    "channel_binding": frozenset({"disable", "prefer"}),
    "gssencmode": frozenset({"disable", "allow", "prefer"}),
    "gssdelegation": frozenset({"0"}),
    "sslcertmode": frozenset({"allow"}),
    "sslsni": frozenset({"1"}),
}
"""Parameters that asyncpg does not need, and with which values; None: with any value."""

_NOT_IN_ASYNCPG: Final = frozenset(
    {"hostaddr", "sslcrldir", "requirepeer", "require_auth", "scram_client_key", "scram_server_key", "oauth_issuer",
     "oauth_client_id", "oauth_client_secret", "oauth_scope"}
)  # fmt: skip
_KNOWN: Final = _TO_ASYNCPG | _NOT_NEEDED.keys() | _NOT_IN_ASYNCPG


class UnsupportedParameter(ValueError):
    """A parameter asks for something that asyncpg cannot do."""


class AsyncpgTarget(NamedTuple):
    """The arguments of `asyncpg.connect`."""

    dsn: str
    timeout_s: float
    ssl: ssl.SSLContext | None
    """None: asyncpg makes one from the DSN."""

    @property
    def arguments(self) -> dict[str, Any]:
        return {"dsn": self.dsn, "timeout": self.timeout_s, **({} if self.ssl is None else {"ssl": self.ssl})}


@dataclass(frozen=True, slots=True, repr=False)
class Dsn:
    """One database, on one of several possible servers."""

    user_part: str
    """``user:password@``, or empty."""
    hosts: tuple[str, ...]
    """``host:port`` as written; empty: from `parameters`, the environment, or a local socket."""
    path: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URL.

        Raises:
            ValueError: The text is not a URL, or has a parameter unknown to libpq. The message has no values.
        """
        try:
            parts = urlsplit(text)
        except ValueError:
            raise ValueError(_FORM) from None
        user, at, netloc = parts.netloc.rpartition("@")
        hosts = tuple(netloc.split(",")) if netloc else ()
        if parts.scheme not in ("postgresql", "postgres") or not all(map(_is_host, hosts)):
            raise ValueError(_FORM)
        parameters = {}
        for pair in filter(None, parts.query.split("&")):
            name, _, value = pair.partition("=")
            name, value = unquote(name), unquote(value)
            if (name, value) == ("ssl", "true"):  # the form of JDBC, which libpq accepts too
                name, value = "sslmode", "require"
            if name not in _KNOWN:
                raise ValueError(f"has an unknown parameter {name[:40]!r}; libpq knows {', '.join(sorted(_KNOWN))}")
            if name == "connect_timeout" and not re.fullmatch(r"-?[0-9]{1,9}", value):
                raise ValueError("has a parameter connect_timeout that is not an integer")
            parameters[name] = value
        return cls(user + at, hosts, parts.path, parameters)

    @property
    def shown(self) -> str:
        """Host and database, without user, password and parameters: for logs and errors."""
        hosts = ",".join(self.hosts) or self.parameters.get("host") or "local socket"
        name = unquote(self.path.lstrip("/")) or self.parameters.get("dbname", "")
        return "".join(char if char.isprintable() else "?" for char in f"{hosts}/{quote(name)}")

    def for_asyncpg(self, timeout_s: float) -> AsyncpgTarget:
        """Translate the URL for asyncpg; `timeout_s` is the limit of one attempt to connect.

        Raises:
            UnsupportedParameter: asyncpg cannot do what a parameter asks for.
        """
        given = dict(self.parameters)
        context = None
        if given.get("sslrootcert") == "system":
            # The operating system's certificates, with verify-full. asyncpg would read "system" as a file name.
            context = ssl.create_default_context()
            given = {name: value for name, value in given.items() if name not in ("sslrootcert", "sslmode")}
        is_verified = context is not None or given.get("sslmode") == "verify-full"
        for name, value in given.items():
            if name == "channel_binding" and value == "require" and is_verified:
                continue  # channel binding excludes a man in the middle, and so does the verified certificate
            allowed = _NOT_NEEDED.get(name, frozenset())
            if name not in _TO_ASYNCPG and allowed is not None and value not in allowed:
                raise UnsupportedParameter(_sentence(name, value))
        kept = {name: value for name, value in given.items() if name in _TO_ASYNCPG}
        netloc = self.user_part + ",".join(self.hosts)
        path = self.path.rstrip("/")  # asyncpg would prefer an empty name to the dbname parameter
        query = f"?{urlencode(kept, quote_via=quote)}" if kept else ""
        given_s = int(given.get("connect_timeout", "0"))
        return AsyncpgTarget(
            f"postgresql://{netloc}{path}{query}", min(timeout_s, given_s) if given_s > 0 else timeout_s, context
        )


def _is_host(text: str) -> bool:
    if _HOST.fullmatch(text) is None:
        return False
    port = text.rpartition("]")[2].rpartition(":")[2] if ":" in text.rpartition("]")[2] else "1"
    return 0 < int(port) < 1 << 16


def _sentence(name: str, value: str) -> str:
    shown = f"{name}={value}" if name in _NOT_NEEDED else name
    instead = "; sslmode=verify-full verifies the server too" if name == "channel_binding" else ""
    return (
        "option 'dsn': asyncpg, which postgres-notify, streams with message_prefix and `stream-relay backend` connect "
        f"with, does not support the parameter {shown}; remove it{instead}"
    )
