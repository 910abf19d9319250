"""The stand-in API server in a thread of its own, for tests that are not asynchronous themselves."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from tests.fakes.kube_api import V1_32, KubeApi

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.kube_store import Personality

T = TypeVar("T")


class KubeThread:
    """A server that answers until it is closed; `api` may be touched inside `do` alone.

    `prepare` is what the thread does first, such as to enter the network of another machine.
    """

    def __init__(
        self, personality: Personality = V1_32, *, prepare: Callable[[], None] = lambda: None, **options: Any
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=[prepare], daemon=True)
        self._thread.start()
        self.api = self.do(lambda: KubeApi(personality, **options))
        self.up()

    def _run(self, prepare: Callable[[], None]) -> None:
        prepare()
        self._loop.run_forever()

    @property
    def url(self) -> str:
        return self.api.url

    def do(self, work: Callable[[], T]) -> T:
        """Run something in the server's thread; return what it returns."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def put(self, *items: dict[str, Any]) -> None:
        for item in items:
            self.do(lambda item=item: self.api.put(item))  # type: ignore[misc]

    def delete(self, resource: str, name: str) -> None:
        self.do(lambda: self.api.delete(resource, name, "shop"))

    def objects(self, resource: str, api: str | None = None) -> dict[tuple[str, str], dict[str, Any]]:
        return self.do(lambda: self.api.objects(resource, api=api))

    def up(self) -> None:
        asyncio.run_coroutine_threadsafe(self.api.up(), self._loop).result(30)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.api.__aexit__(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
