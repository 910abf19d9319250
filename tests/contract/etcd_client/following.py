"""A watch that a test looks at while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from coupler.registrator.etcd import Batch, Store

DEADLINE = 20.0


async def until(what: Callable[[], bool], why: str) -> None:
    """Wait until `what` holds; fail with `why` at the deadline."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not what():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(why) from None


class Following:
    """What a watch has said so far, and by which error it ended."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.error: BaseException | None = None

    @property
    def keys(self) -> list[tuple[str, bytes | None]]:
        return [(e.key, e.item and e.item.value) for batch in self.batches for e in batch.events]


@contextlib.asynccontextmanager
async def following(store: Store, prefix: str, revision: int) -> AsyncIterator[Following]:
    """Watch; the context begins when the watch stands or has failed."""
    seen = Following()

    async def follow() -> None:
        try:
            async with contextlib.aclosing(store.watch(prefix, revision)) as batches:
                async for batch in batches:
                    seen.batches.append(batch)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            seen.error = error

    task = asyncio.create_task(follow())
    try:
        await until(lambda: bool(seen.batches or seen.error), "the watch does not stand")
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
