"""Is the balancer of this machine fit to be given what clients send to the address?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiohttp

from coupler.registrator.leader import boot_clock

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 0.5
_CONNECT_SECONDS, _READY_SECONDS = 1.0, 2.0
_MOST_MISSES = 2
_OK = 200


class Fitness:
    """Looked at all the time. `serving`: it takes connections, but for a single miss. `ready`: it is in step, too.

    Each change wakes whoever waits.
    """

    def __init__(
        self, accepts: tuple[str, ...], ready: str | None, patience: float, clock: Callable[[], float] = boot_clock
    ) -> None:
        self._accepts, self._ready_at, self._patience, self._clock = accepts, ready, patience, clock
        self._misses = _MOST_MISSES
        self._lack: str | None = "nobody has looked yet"
        self._lack_since = clock()
        self._refused = ""

    @property
    def serving(self) -> bool:
        """Whether the balancer takes connections."""
        return self._misses < _MOST_MISSES

    @property
    def ready(self) -> bool:
        """Whether the balancer has all that it should have."""
        return self._lack is None

    @property
    def tired_of_waiting(self) -> bool:
        """Whether it has been out of step for longer than patience lasts."""
        return self._lack is not None and self._clock() - self._lack_since >= self._patience

    @property
    def lacks(self) -> list[str]:
        """What is not well, in words."""
        return [word for word in ("" if self.serving else self._refused or "nobody has looked yet", self._lack) if word]

    def look(self, refused: str | None, lack: str | None) -> None:
        """Take in what was seen: who refuses a connection, and why it is out of step."""
        self._misses = self._misses + 1 if refused else 0
        self._refused = refused or ""
        if lack is None or self._lack is None:
            self._lack_since = self._clock()
        self._lack = lack

    async def run(self, wake: Callable[[], None]) -> None:
        """Look for ever."""
        while True:
            refused, lack = await asyncio.gather(self._refusal(), self._unready())
            self.look(refused, lack)
            wake()
            await asyncio.sleep(_EVERY)

    async def _refusal(self) -> str | None:
        for place in self._accepts:
            host, _, port = place.rpartition(":")
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except TimeoutError:
                return f"the balancer does not answer at {place}"
            except OSError as error:
                return f"the balancer takes no connection at {place}: {error.strerror or error}"
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return None

    async def _unready(self) -> str | None:
        if self._ready_at is None:
            return None
        try:
            timeout = aiohttp.ClientTimeout(total=_READY_SECONDS)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._ready_at) as answer:
                if answer.status == _OK:
                    return None
                said = "; ".join((await answer.text()).split("\n")).strip("; ")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"its registrator does not answer: {str(error) or 'too slow'}"
        return f"its registrator is not ready: {said}"
