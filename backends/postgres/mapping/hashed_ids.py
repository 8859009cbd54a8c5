"""Round ids of rows whose own id is text, such as a uuid. Pure. What is promised: docs/adr/0034-hashed-round-ids.md"""

import re
from hashlib import sha256
from typing import Final

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}")


def hashed_id(text: str) -> int:
    """Return the round id of an id: the last 63 of the first 64 bits of the SHA-256 of its text in UTF-8.

    A uuid is hashed in lower case, as PostgreSQL writes it; other text as it is.
    """
    if len(text) == 36 and _UUID.fullmatch(text):
        text = text.lower()
    return int.from_bytes(sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") & 0x7FFF_FFFF_FFFF_FFFF
