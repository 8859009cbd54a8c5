"""``/healthz`` and ``/readyz``: whether this process is alive, and whether it takes new clients."""

from collections.abc import Callable, Mapping

from aiohttp import web

_NO_STORE = {"Cache-Control": "no-store"}


class Probes:
    """Answers liveness and readiness probes."""

    def __init__(
        self,
        obstacle: Callable[[], str | None],
        facts: Callable[[str], Mapping[str, object]] = lambda _obstacle: {},
    ) -> None:
        """Prepare to answer.

        Args:
            obstacle: Returns in one word why the process is not ready, or None when it is.
            facts: Returns what ``/readyz`` reports beside that word, for an operator.
        """
        self._obstacle = obstacle
        self._facts = facts

    def table(self) -> list[web.RouteDef]:
        return [web.get("/healthz", self.alive), web.get("/readyz", self.ready)]

    async def alive(self, _request: web.Request) -> web.Response:
        """200 while the event loop runs; a platform restarts a process that does not answer."""
        return web.json_response({"status": "ok"}, headers=_NO_STORE)

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when the process is ready, else 503 and the reason."""
        obstacle = self._obstacle()
        if obstacle is None:
            return web.json_response({"status": "ready"}, headers=_NO_STORE)
        body = {"status": "not_ready", "reason": obstacle, **self._facts(obstacle)}
        return web.json_response(body, status=503, headers=_NO_STORE)
