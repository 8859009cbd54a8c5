"""The secrets of a run, and a search for them in everything that a run leaves: as they are, in part, and encoded."""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

_PART: Final = 24
"""Characters that give a secret away when they are printed: the rest can still not be guessed, but is not needed."""


class KnownSecrets:
    """Secrets by name. `found_in` looks for all of them at once."""

    def __init__(self) -> None:
        self._forms: dict[bytes, str] = {}
        self.looked_at = 0
        """Bytes that were searched, so that a search of nothing is noticed."""

    def add(self, name: str, secret: str) -> str:
        """Add a secret and return it. The name says what it opens."""
        assert len(secret) >= _PART, f"{name} is too short to be searched for"
        for how, form in _forms_of(secret):
            self._forms[form] = f"{name}, {how}"
        return secret

    def found_in(self, where: str, data: bytes | str) -> list[str]:
        """Return what was found, as ``<where>: <name>, <form>``."""
        content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        self.looked_at += len(content)
        return [f"{where}: {name}" for form, name in self._forms.items() if form in content]

    def found_in_files(self, folder: Path, *, but: frozenset[Path] = frozenset()) -> list[str]:
        """Search all files below a folder, except those of `but`."""
        found: list[str] = []
        for path in folder.rglob("*"):
            if path.is_file() and path not in but:
                found += self.found_in(str(path.relative_to(folder)), path.read_bytes())
        return found


def _forms_of(secret: str) -> Iterator[tuple[str, bytes]]:
    raw = secret.encode()
    yield "as it is", raw
    # What is shown of a key on purpose, its kind and four digits, is in none of these.
    yield "its middle", raw[len(raw) // 2 - _PART // 2 :][:_PART]
    yield "its end", raw[-_PART:]
    yield "in hex", binascii.hexlify(raw)
    yield "percent-encoded", quote(secret, safe="").replace(".", "%2E").replace("_", "%5F").encode()
    for offset in range(3):  # a secret can begin at each place of a group of three bytes
        encoded = base64.b64encode(b"\0" * offset + raw)[4 if offset else 0 : -4]
        yield f"in base64 from place {offset}", encoded
        yield f"in base64 for URLs from place {offset}", encoded.translate(bytes.maketrans(b"+/", b"-_"))
