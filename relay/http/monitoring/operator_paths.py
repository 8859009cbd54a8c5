"""Who may read ``/metrics``, ``/docs`` and ``/openapi.json`` on the HTTP port: everybody, some keys, or nobody.

Owns the check before such a path is answered. The port of probes always has ``/metrics``.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Final

from aiohttp import web

from relay.config.sections import Access, HttpSettings
from relay.errors import NotAllowed
from relay.http.monitoring.metrics import Metrics
from relay.http.openapi import Docs
from relay.http.request import granted, presented_key
from relay.links.link_registry import LinkRegistry

_WITHOUT_DOCS: Final = "docs/ in the repository has all paths"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def operator_routes(http: HttpSettings, metrics: Metrics, registry: LinkRegistry) -> Iterator[Iterable[web.RouteDef]]:
    """Yield the routes of these paths, as the settings allow them."""
    yield restricted(metrics.table(), http.metrics, registry, keys=http.metrics_key_ids)
    docs = Docs(http.metrics, is_public=http.docs == "public")
    yield restricted(docs.description(), http.docs, registry)
    if http.docs != "off":  # a browser sends no key for a page, and this one shows nothing without the description
        yield docs.page()


def paths_in_words(docs: Access) -> str:
    """Return what the answer to an unknown path says about the known ones."""
    return _WITHOUT_DOCS if docs == "off" else "/docs lists all paths"


def restricted(
    routes: Iterable[web.RouteDef], access: Access, registry: LinkRegistry, *, keys: Collection[str] = ()
) -> Iterator[web.RouteDef]:
    """Yield the routes as `access` allows them: unchanged, with a check of the key before each, or none.

    Args:
        routes: Routes of ``GET``.
        access: See `relay.config.sections.HttpSettings`.
        registry: Has the admission that checks keys.
        keys: Ids of the keys that may read the paths; empty: all keys.
    """
    if access == "off":
        return
    for route in routes:
        yield route if access == "public" else web.get(route.path, _checked(route.handler, registry, keys))


def _checked(handler: Handler, registry: LinkRegistry, keys: Collection[str]) -> Handler:
    async def check(request: web.Request) -> web.StreamResponse:
        grant = granted(request, presented_key(request), registry.admission)
        if keys and grant.key_id not in keys:
            raise NotAllowed(f"this key may not read {request.path}")
        return await handler(request)

    return check
