"""The stand-in API server in a process of its own, so that it takes no time of those who are measured."""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING, Any

from tests.fakes.kube_thread import KubeThread

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class KubeServer:
    """A server that answers until it is closed."""

    def __init__(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._ask = ours
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.url: str = ours.recv()

    def put(self, *items: dict[str, Any]) -> float:
        """Write objects, and return when the first was (by the machine's monotonic clock)."""
        self._ask.send(items)
        return float(self._ask.recv())

    def close(self) -> None:
        """End it."""
        self._ask.send(None)
        self._process.join()


def _serve(pipe: Connection) -> None:
    server = KubeThread()
    pipe.send(server.url)
    while (items := pipe.recv()) is not None:
        began = time.monotonic()
        server.do(lambda items=items: [server.api.put(item) for item in items])  # type: ignore[misc]
        pipe.send(began)
    server.close()
