"""``/healthz`` and ``/readyz``: is this process alive, and should it be sent clients?"""

from collections.abc import Callable

from aiohttp import web

_NO_STORE = {"Cache-Control": "no-store"}


class Probes:
    """Answers the platform's probes."""

    def __init__(self, obstacle: Callable[[], str | None]) -> None:
        """`obstacle` says in one word why no client should be sent here, or None when one may."""
        self._obstacle = obstacle

    def table(self) -> list[web.RouteDef]:
        return [web.get("/healthz", self.alive), web.get("/readyz", self.ready)]

    async def alive(self, _request: web.Request) -> web.Response:
        """200 as long as the event loop turns; a platform restarts the process when it does not."""
        return web.json_response({"status": "ok"}, headers=_NO_STORE)

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when new clients are welcome, else 503 and the reason."""
        obstacle = self._obstacle()
        if obstacle is None:
            return web.json_response({"status": "ready"}, headers=_NO_STORE)
        return web.json_response({"status": "not_ready", "reason": obstacle}, status=503, headers=_NO_STORE)
