"""What systemd is told: ready, stopping, alive (source: sd_notify(3)). Silent where nobody listens."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(state: str) -> None:
    """Send `state`, lines of `NAME=value`, to the service manager if one asked for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def watchdog() -> None:
    """Say that we are alive for as long as this runs, twice as often as the manager demands."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    if not microseconds or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 2_000_000)
