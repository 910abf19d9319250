"""Two servers: one that anyone on the machine may read, and a socket for its owner by which endpoints are drained."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from coupler.errors import CouplerError
from coupler.registrator.state import explanation, reasons, state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coupler.registrator.drains import Drains
    from coupler.registrator.intake import Intake
    from coupler.registrator.leader import Election
    from coupler.registrator.metrics import Metrics
    from coupler.registrator.mover import Mover

_PRIVATE = 0o600


class WebError(CouplerError):
    """An address cannot be listened on."""


class Web:
    """Reads `/healthz /readyz /metrics /state /explain?host=&path=`; `/drains/NAME` is there to PUT and DELETE."""

    def __init__(
        self, intake: Intake, movers: Sequence[Mover], elections: Sequence[Election], metrics: Metrics, drains: Drains
    ) -> None:
        self._intake, self._movers, self._elections = intake, movers, elections
        self._metrics, self._drains = metrics, drains
        self._runners: list[web.AppRunner] = []

    async def listen(self, address: str) -> int:
        """Serve what may be read at `host:port`; return the port. Raises WebError."""
        host, port = place_of(address)
        runner = await self._start(self._readable())
        await begin(web.TCPSite(runner, host, port), address)
        return int(runner.addresses[0][1])

    async def control(self, path: Path) -> None:
        """Serve everything on a socket that only its owner may open. Raises WebError."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        application = self._readable()
        application.router.add_put("/drains/{name}", self._drain)
        application.router.add_delete("/drains/{name}", self._undrain)
        runner = await self._start(application)
        await begin(web.UnixSite(runner, str(path)), str(path))
        path.chmod(_PRIVATE)

    async def close(self) -> None:
        """Stop serving."""
        for runner in self._runners:
            await runner.cleanup()

    def _readable(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._prometheus)
        application.router.add_get("/state", self._state)
        application.router.add_get("/explain", self._explain)
        return application

    async def _start(self, application: web.Application) -> web.AppRunner:
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        return runner

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        why = reasons(self._intake, self._movers)
        return web.Response(text="\n".join(why or ["ok"]) + "\n", status=503 if why else 200)

    async def _prometheus(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _state(self, _: web.Request) -> web.Response:
        return json_answer(state(self._intake, self._movers, self._elections, self._drains.names))

    async def _explain(self, request: web.Request) -> web.Response:
        headers = {n.removeprefix("header-"): v for n, v in request.query.items() if n.startswith("header-")}
        host, path = request.query.get("host", ""), request.query.get("path", "/")
        return json_answer(explanation(self._intake.desired, host, path, headers))

    async def _drain(self, request: web.Request) -> web.Response:
        return self._redrain(lambda: self._drains.add(request.match_info["name"]))

    async def _undrain(self, request: web.Request) -> web.Response:
        return self._redrain(lambda: self._drains.remove(request.match_info["name"]))

    def _redrain(self, change: Any) -> web.Response:
        try:
            change()
        except CouplerError as error:
            return web.Response(text=f"{error.summary}\n", status=500)
        self._intake.redrain()
        return json_answer({"drains": sorted(self._drains.names)})


def place_of(address: str) -> tuple[str, int]:
    """Return the host and the port of `host:port`. Raises WebError."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise WebError(f"{address!r} is no address to listen on", next_step="write HOST:PORT, as in 127.0.0.1:9102")
    return host.strip("[]"), int(port)


async def begin(site: web.BaseSite, address: str) -> None:
    """Listen. Raises WebError."""
    try:
        await site.start()
    except OSError as error:
        raise WebError(f"cannot listen on {address}", error.strerror, "is another registrator running?") from error


def json_answer(value: Any) -> web.Response:
    """Return an answer with the value in JSON."""
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, content_type="application/json")
