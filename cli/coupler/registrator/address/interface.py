"""An address on an interface of this machine, by ip(8).

The kernel is told for how many seconds the address is valid. So it goes by itself when nobody is left to take it away:
the process was killed, or hangs. By this limit, and its length of 32, ours is told from one that an operator has put
there, which is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Any

from coupler.errors import CouplerError

_FOREVER = 0xFFFFFFFF
_HOST = 32
_GET_FLAGS = 0x8913  # SIOCGIFFLAGS, netdevice(7)
_RUNNING = 0x40  # IFF_RUNNING


class InterfaceError(CouplerError):
    """There is no interface for the address, or it cannot be changed."""


@dataclass(frozen=True, slots=True)
class Found:
    """One address of one interface; `ours`: put there by us, in this life or an earlier one."""

    interface: str
    at: IPv4Interface
    ours: bool


def found_in(listed: list[dict[str, Any]], address: str) -> list[Found]:
    """Return every IPv4 address in what `ip -json address show` lists. Ours can be `address` alone."""
    return [
        Found(
            link["ifname"],
            IPv4Interface(f"{entry['local']}/{entry['prefixlen']}"),
            entry["local"] == address and entry["prefixlen"] == _HOST and entry["valid_life_time"] < _FOREVER,
        )
        for link in listed
        for entry in link.get("addr_info", ())
        if entry["family"] == "inet"
    ]


def home_of(found: list[Found], address: str, interface: str | None) -> Found:
    """Return the machine's own address beside which `address` belongs. Raises InterfaceError.

    It is the one whose network has the address, on the named interface if there is one.
    """
    wanted = IPv4Interface(address).ip
    here = [each for each in found if interface in (None, each.interface) and each.at.ip != wanted]
    alien = next((each for each in found if each.at.ip == wanted and not each.ours), None)
    if alien:
        what = f"{alien.interface} has {address} already, as {alien.at}, and not from us"
        raise InterfaceError(what, next_step=f"remove it: ip address del {alien.at} dev {alien.interface}")
    home = next((each for each in here if wanted in each.at.network), None)
    if home is None and interface and here:
        home = here[0]
    if home is None:
        networks = ", ".join(f"{each.interface} {each.at}" for each in here) or "none"
        where = interface or "an interface"
        what = f"{where} has no network with {address}" if not interface else f"{interface} has no IPv4 address"
        raise InterfaceError(what, f"there are: {networks}", "choose an address in the network of these machines")
    return home


class Interface:
    """Where one address belongs on this machine."""

    def __init__(self, address: str, name: str | None = None) -> None:
        self.address = address
        self._wanted = name

    async def home(self) -> Found:
        """Return the interface, with its own address. Raises InterfaceError."""
        return home_of(await self._found(), self.address, self._wanted)

    async def hold(self, interface: str, seconds: int) -> None:
        """Have the address for so many seconds from now. Raises InterfaceError."""
        life = ("valid_lft", str(seconds), "preferred_lft", str(seconds))
        await _ip("address", "replace", f"{self.address}/{_HOST}", "dev", interface, *life)

    async def release(self) -> bool:
        """Take away the address wherever we put it, in this life or an earlier one; say whether it was there.

        Raises InterfaceError.
        """
        ours = [each for each in await self._found() if each.ours]
        for each in ours:
            await _ip("address", "del", str(each.at), "dev", each.interface)
        return bool(ours)

    async def _found(self) -> list[Found]:
        return found_in(json.loads(await _ip("-json", "-4", "address", "show") or "[]"), self.address)


def has_carrier(interface: str) -> bool:
    """Return whether the other end of its cable is there; False if there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            answer = fcntl.ioctl(channel, _GET_FLAGS, struct.pack("16sH14x", interface.encode(), 0))
        except OSError:
            return False
    flags: int = struct.unpack_from("16xH", answer)[0]
    return bool(flags & _RUNNING)


async def _ip(*words: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "ip",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise InterfaceError("ip cannot be run", str(error), "install iproute2") from error
    try:
        out, complaint = await process.communicate()
    except asyncio.CancelledError:  # what comes next finds things as it left them
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise InterfaceError(f"ip {' '.join(words)} fails", complaint.decode().strip())
    return out.decode()
