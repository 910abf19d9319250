"""What anyone on this machine may read of the holder of an address: `/healthz /readyz /state`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from coupler.registrator.web import begin, json_answer, place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coupler.registrator.address.holder import Holder


async def serve(address: str, holder: Holder) -> Callable[[], Awaitable[None]]:
    """Serve at `host:port`; return what ends that. Raises WebError."""
    host, port = place_of(address)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why = holder.reasons()
        return web.Response(text="\n".join(why or ["ok"]) + "\n", status=503 if why else 200)

    async def state(_: web.Request) -> web.Response:
        return json_answer(holder.state())

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/state", state)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await begin(web.TCPSite(runner, host, port), address)
    return runner.cleanup
