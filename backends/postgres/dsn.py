"""Where a database is and how to sign in: a URL as libpq reads it, and the same said to asyncpg.

Pure. Owns which parameters there are, and what becomes of those that asyncpg does not know: it would hand them to the
server, which refuses the connection. No error and no other text of ours holds a value: one may be a password.
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

_NEEDLESS: Final[Mapping[str, frozenset[str] | None]] = {
    # Every answer has a deadline of ours, so a link that is dead is noticed without the kernel's help.
    "keepalives": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "keepalives_count": None,
    "tcp_user_timeout": None,
    "connect_timeout": None,  # see `ForAsyncpg.timeout_s`
    "client_encoding": None,  # asyncpg speaks UTF-8 and nothing else
    "fallback_application_name": None,  # ours has a name
    "replication": None,  # no connection of asyncpg is one, and the others say so themselves
    "load_balance_hosts": None,
    "sslcompression": None,
    "sslkeylogfile": None,
    "min_protocol_version": None,
    "max_protocol_version": None,
    # Values that ask for what asyncpg does anyway; others would be promises that are not kept.
    "channel_binding": frozenset({"disable", "prefer"}),
    "gssencmode": frozenset({"disable", "allow", "prefer"}),
    "gssdelegation": frozenset({"0"}),
    "sslcertmode": frozenset({"allow"}),
    "sslsni": frozenset({"1"}),
}
"""What can be left out for asyncpg without a loss, and with which values; None: with any."""

_NOT_IN_ASYNCPG: Final = frozenset(
    {"hostaddr", "sslcrldir", "requirepeer", "require_auth", "scram_client_key", "scram_server_key", "oauth_issuer",
     "oauth_client_id", "oauth_client_secret", "oauth_scope"}
)  # fmt: skip
_KNOWN: Final = _TO_ASYNCPG | _NEEDLESS.keys() | _NOT_IN_ASYNCPG


class NotForAsyncpg(ValueError):
    """A parameter promises what asyncpg cannot do."""


class ForAsyncpg(NamedTuple):
    """What `asyncpg.connect` is to be told."""

    dsn: str
    timeout_s: float
    ssl: ssl.SSLContext | None
    """None: as the DSN says."""

    @property
    def arguments(self) -> dict[str, Any]:
        return {"dsn": self.dsn, "timeout": self.timeout_s, **({} if self.ssl is None else {"ssl": self.ssl})}


@dataclass(frozen=True, slots=True, repr=False)
class Dsn:
    """One database, on one server or on several of which one is to be found."""

    user_part: str
    """``user:password@``, or nothing."""
    hosts: tuple[str, ...]
    """``host:port`` as written; none: those of `parameters`, of the environment, or a local socket."""
    path: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: It is none, or has a parameter that libpq does not know; a sentence without any value.
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
            if (name, value) == ("ssl", "true"):  # as JDBC has it; libpq takes it too
                name, value = "sslmode", "require"
            if name not in _KNOWN:
                raise ValueError(
                    f"has an unknown parameter {name[:40]!r}; those of libpq are {', '.join(sorted(_KNOWN))}"
                )
            if name == "connect_timeout" and not re.fullmatch(r"-?[0-9]{1,9}", value):
                raise ValueError("has a parameter connect_timeout that is not a number of whole seconds")
            parameters[name] = value
        return cls(user + at, hosts, parts.path, parameters)

    @property
    def shown(self) -> str:
        """Where the database is, without user, password and parameters: for logs and errors."""
        hosts = ",".join(self.hosts) or self.parameters.get("host") or "local socket"
        name = unquote(self.path.lstrip("/")) or self.parameters.get("dbname", "")
        return "".join(char if char.isprintable() else "?" for char in f"{hosts}/{quote(name)}")

    def for_asyncpg(self, timeout_s: float) -> ForAsyncpg:
        """Say the same to asyncpg; `timeout_s` is how long one attempt to connect may take at most.

        Raises:
            NotForAsyncpg: That is not possible.
        """
        given = dict(self.parameters)
        context = None
        if given.get("sslrootcert") == "system":
            # Those of the operating system, and verify-full with them; asyncpg takes the word for a file.
            context = ssl.create_default_context()
            given = {name: value for name, value in given.items() if name not in ("sslrootcert", "sslmode")}
        proven = context is not None or given.get("sslmode") == "verify-full"
        for name, value in given.items():
            if name == "channel_binding" and value == "require" and proven:
                continue  # what it is for: nobody between us and the server, which its certificate proves as well
            allowed = _NEEDLESS.get(name, frozenset())
            if name not in _TO_ASYNCPG and allowed is not None and value not in allowed:
                raise NotForAsyncpg(_sentence(name, value))
        kept = {name: value for name, value in given.items() if name in _TO_ASYNCPG}
        netloc = self.user_part + ",".join(self.hosts)
        path = self.path.rstrip("/")  # an empty name would count for asyncpg, before that of the parameters
        query = f"?{urlencode(kept, quote_via=quote)}" if kept else ""
        wanted_s = int(given.get("connect_timeout", "0"))
        return ForAsyncpg(
            f"postgresql://{netloc}{path}{query}", min(timeout_s, wanted_s) if wanted_s > 0 else timeout_s, context
        )


def _is_host(text: str) -> bool:
    if _HOST.fullmatch(text) is None:
        return False
    port = text.rpartition("]")[2].rpartition(":")[2] if ":" in text.rpartition("]")[2] else "1"
    return 0 < int(port) < 1 << 16


def _sentence(name: str, value: str) -> str:
    shown = f"{name}={value}" if name in _NEEDLESS else name
    instead = "; sslmode=verify-full proves the server as well" if name == "channel_binding" else ""
    return (
        f"option 'dsn': its parameter {shown} is not possible over asyncpg, which postgres-notify and "
        f"`stream-relay backend` connect with; take it out{instead}"
    )
