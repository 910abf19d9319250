"""Whether a vulcand still follows etcd: asked of vulcand itself, for etcd cannot know.

A vulcand whose watch lost a part of the history goes on with what it had, for ever, and says nothing. So a route of our
own, to a backend without servers, gets a new path now and then: a vulcand that follows answers 500 there, one that
does not answers 404, as to any path that it does not know.
"""

from __future__ import annotations

import asyncio
import secrets
import time

import aiohttp

from coupler.registrator.balancers.vulcand.diff import BACKENDS, FRONTENDS, Put

PATH = "/.well-known/coupler/"
_NOT_FOUND = 404
_BETWEEN = 0.05


class Probe:
    """Asks vulcands at `urls`; `patience` is how many seconds a new route may take to be known."""

    def __init__(self, urls: tuple[str, ...], name: str, patience: float = 5.0) -> None:
        self.urls, self._name, self._patience = tuple(url.rstrip("/") for url in urls), name, patience
        self._token: str | None = None
        self._session: aiohttp.ClientSession | None = None

    def steps(self) -> list[Put]:
        """Return the writes that give the route a new path."""
        self._token = secrets.token_hex(8)
        route = f'PathRegexp("^/\\\\.well-known/coupler/{self._token}$")'
        frontend = f'{{"Type":"http","BackendId":"{self._name}","Route":{_quoted(route)},"Settings":{{}}}}'
        return [
            Put(f"{BACKENDS}/{self._name}/backend", '{"Type":"http","Settings":{}}'),
            Put(f"{FRONTENDS}/{self._name}/frontend", frontend),
        ]

    async def stale(self) -> dict[str, str]:
        """Return the URLs of vulcands that do not follow, and why that is said."""
        if self._token is None:
            return {}
        found = await asyncio.gather(*(self._look(url) for url in self.urls))
        return {url: why for url, why in zip(self.urls, found, strict=True) if why}

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _look(self, url: str) -> str | None:
        deadline = time.monotonic() + self._patience
        while True:
            status = await self._ask(url)
            if status != _NOT_FOUND:
                return None if status else "it does not answer"
            if time.monotonic() >= deadline:
                return "it does not follow etcd any more: restart it"
            await asyncio.sleep(_BETWEEN)

    async def _ask(self, url: str) -> int | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._patience))
        try:
            async with self._session.get(f"{url}{PATH}{self._token}", allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
