"""Reloads, not too often: with a new file, which is taken back where HAProxy does not start with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.reload import successor

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.registrator.balancers.haproxy.config import Shape
    from coupler.registrator.balancers.haproxy.files import Files
    from coupler.registrator.balancers.haproxy.reload import Reload
    from coupler.registrator.balancers.haproxy.socket import RuntimeSocket

_MOST_DOUBLED = 6


@dataclass(slots=True)
class Restarter:
    """Counts reloads. `interval` is the least time between two, doubled with each that fails; `patience` for one."""

    files: Files
    reload: Reload
    interval: float
    patience: float
    clock: Callable[[], float]
    count: int = 0
    unfit: Shape | None = None
    _next: float = 0.0
    _failures: int = 0

    @property
    def ready(self) -> bool:
        """Whether the last one is long enough ago."""
        return self.clock() >= self._next

    def failed(self) -> None:
        """Wait longer for the next one."""
        self._failures += 1
        self._next = self.clock() + self.interval * 2 ** min(self._failures, _MOST_DOUBLED)

    async def restart(self, socket: RuntimeSocket, text: str, outline: Shape) -> None:
        """Write the file, reload, and wait for who comes. Raises BalancerError; then the files are as before."""
        self._next = self.clock() + self.interval
        before = await self.files.write(text, outline.maps)
        old = await socket.process()
        try:
            await self.reload(old.pid)
            await successor(socket, old, self.patience)
        except BalancerError:
            self.files.restore(before)
            self.unfit = outline
            raise
        self.unfit = None
        self.count += 1

    def succeeded(self) -> None:
        """Start counting failures anew."""
        self._failures = 0
