"""The address of a client behind proxies that the operator trusts. Pure.

Owns which headers are read and how: ``X-Forwarded-For``, and where it is absent ``Forwarded`` (RFC 7239). A client may
send these headers itself, and proxies append to them. So only what trusted proxies have added is read: from the right,
up to the first address that is not one of theirs.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Self

_HEADER_CHARACTERS: Final = 2048
"""Of a longer header the end is read: a client can make it as long as it likes, and proxies append to it."""
_HOPS: Final = 16
"""The most addresses that are looked at."""
_FOR: Final = re.compile(r'(?:\A|;)\s*for\s*=\s*(?:"([^"]*)"|([^;,\s"]*))\s*(?=;|\Z)', re.IGNORECASE)
_IN_BRACKETS: Final = re.compile(r"\A\[([0-9A-Fa-f:.]+)](?::[0-9]{1,5})?\Z")
_WITH_PORT: Final = re.compile(r"\A([0-9.]+):[0-9]{1,5}\Z")

Address = IPv4Address | IPv6Address


class TrustedProxies:
    """Networks whose hosts are believed when they say for whom they send a request."""

    def __init__(self, networks: tuple[str, ...] = ()) -> None:
        self._networks = tuple(ip_network(network, strict=False) for network in networks)
        self._is_trusted = lru_cache(1024)(self._contain)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read addresses and networks, separated by commas; raise `ValueError` for anything else."""
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        for name in names:
            try:
                ip_network(name, strict=False)
            except ValueError:
                raise ValueError(
                    f"{name!r} is no address or network; separate them by commas, such as 10.0.0.0/8,fd00::/8"
                ) from None
        return cls(names)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, peer: str) -> bool:
        """Whether the host at an address is a trusted proxy."""
        return bool(self._networks) and self._is_trusted(peer)

    def client(self, peer: str, forwarded_for: str, forwarded: str) -> str:
        """Return the address of the client of a request.

        Args:
            peer: The address of the connection.
            forwarded_for: ``X-Forwarded-For``; several lines joined by commas, in order; empty when there is none.
            forwarded: ``Forwarded``, likewise.
        """
        if not self.trusts(peer):
            return peer
        client = peer
        for text in _from_the_right(forwarded_for, forwarded):
            address = _address(text)
            if address is None:  # malformed or hidden: what is known is the proxy that has sent it
                return client
            client = str(address)
            if not self._is_trusted(client):
                return client
        return client

    def _contain(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _from_the_right(forwarded_for: str, forwarded: str) -> Iterator[str]:
    """Yield what the proxies say, the nearest first."""
    header = forwarded_for or forwarded
    if len(header) > _HEADER_CHARACTERS:
        header = header[-_HEADER_CHARACTERS:].partition(",")[2]  # the first address may be a part of one
    for hop in header.rsplit(",", _HOPS)[:0:-1] if header.count(",") >= _HOPS else header.split(",")[::-1]:
        if forwarded_for:
            yield hop.strip()
        else:
            found = _FOR.search(hop.strip())
            yield "" if found is None else (found[1] if found[1] is not None else found[2])


def _address(text: str) -> Address | None:
    """Read an address, with or without a port; None for anything else. IPv4 in IPv6 is IPv4."""
    found = _IN_BRACKETS.match(text) or _WITH_PORT.match(text)
    try:
        address = ip_address(found[1] if found else text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
