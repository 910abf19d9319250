"""What processes that run for ever have in common: they end when they are told to, or by an error of their own."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


def told_to_stop() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def work_until(stop: asyncio.Event, jobs: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do all jobs side by side until `stop` is set; then, or where one raises, all of them are cancelled."""
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    stopped = asyncio.ensure_future(stop.wait())
    try:
        pending = {*tasks, stopped}
        while stopped in pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                raise_of(task)  # an error of our own ends the service; its manager starts it anew
    finally:
        await cancelled(stopped, *tasks)


def raise_of(task: asyncio.Future[Any]) -> None:
    """Raise what a task ended with: of a group of errors, the first that a person can act on."""
    try:
        task.result()
    except BaseExceptionGroup as group:
        ours: BaseException | None = group.subgroup(CouplerError)
        while isinstance(ours, BaseExceptionGroup):
            ours = ours.exceptions[0]
        raise ours or group from group


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
