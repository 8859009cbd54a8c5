"""Answers that never change while the process runs: with an ``ETag``, and compressed once for each coding."""

import base64
import hashlib
from collections.abc import Mapping

from aiohttp import web

from relay.http.compress import coding_of, compressed
from relay.http.connections.guarded import guarded
from relay.http.parameters import listed


class StaticFile:
    """The bytes of one answer."""

    def __init__(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        """Keep them; `headers` are sent with each answer."""
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:12]).decode()
        self._etag = f'W/"{digest}"'  # weak: it names the content, in any coding
        self._headers = {"ETag": self._etag, "Vary": "Accept-Encoding", **headers}
        self._content_type = content_type
        self._forms: dict[str | None, tuple[bytes, str | None]] = {None: (body, None)}  # by coding

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request; 304 when the client has the bytes."""
        if is_known(self._etag, listed(request.headers, "If-None-Match")):
            return web.Response(status=304, headers=self._headers)
        accepted = coding_of(listed(request.headers, "Accept-Encoding"))
        if accepted not in self._forms:
            body, _ = self._forms[None]
            self._forms[accepted] = await compressed(body, accepted or "", guarded(request).turns)
        body, coding = self._forms[accepted]
        headers = self._headers | {"Content-Type": self._content_type}
        return web.Response(body=body, headers=headers | ({} if coding is None else {"Content-Encoding": coding}))


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether the client has this version; a weak comparison (RFC 9110 section 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return known == ["*"] or etag.removeprefix("W/") in known
