"""ARP for one address on one interface: tell the network who has it, and hear who else says so.

Sources: RFC 826 (the packet), RFC 5227 (probe, announcement, conflict), packet(7).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from coupler.registrator.address.interface import InterfaceError

if TYPE_CHECKING:
    from collections.abc import Callable

_ARP, _IPV4, _ETHERNET = 0x0806, 0x0800, 1
_REQUEST, _REPLY = 1, 2
_EVERYBODY, _NOBODY = b"\xff" * 6, b"\0" * 6
_UNSPECIFIED = IPv4Address(0)
_FRAME = struct.Struct("!6s6sHHHBBH6s4s6s4s")
_OUTGOING = 4  # PACKET_OUTGOING


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says to have our address: by announcing it to everybody, or in answer to a question."""

    hardware: bytes
    announced: bool

    @property
    def name(self) -> str:
        """The hardware address as people write it."""
        return self.hardware.hex(":")


def announcements(hardware: bytes, address: IPv4Address) -> list[bytes]:
    """Return the frames that bring every neighbour's table up to date: some heed requests alone, others replies."""
    return [
        _frame(_REQUEST, hardware, address, _NOBODY, address),
        _frame(_REPLY, hardware, address, _EVERYBODY, address),
    ]


def probe(hardware: bytes, address: IPv4Address) -> bytes:
    """Return the question whether anybody has the address, which changes no table."""
    return _frame(_REQUEST, hardware, _UNSPECIFIED, _NOBODY, address)


def claim_in(frame: bytes, address: IPv4Address) -> Claim | None:
    """Return what a frame says about `address`: None if its sender does not say to have it."""
    if len(frame) < _FRAME.size:
        return None
    _, _, kind, link, protocol, _, _, _, hardware, sender, _, target = _FRAME.unpack_from(frame)
    if (kind, link, protocol) != (_ARP, _ETHERNET, _IPV4) or sender != address.packed:
        return None
    return Claim(hardware, announced=target == sender)


def _frame(what: int, hardware: bytes, sender: IPv4Address, asked: bytes, target: IPv4Address) -> bytes:
    head = (_EVERYBODY, hardware, _ARP, _ETHERNET, _IPV4, 6, 4, what)
    return _FRAME.pack(*head, hardware, sender.packed, asked, target.packed)


class Wire:
    """What neighbours are told and say, on one interface. `heard` is called with each claim of somebody else."""

    def __init__(self, interface: str, address: str, heard: Callable[[Claim], None]) -> None:
        self._address, self._heard = IPv4Address(address), heard
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.htons(_ARP)
            )
        except OSError as error:
            raise InterfaceError("ARP cannot be spoken", error.strerror, "give it CAP_NET_RAW") from error
        try:
            self._socket.bind((interface, _ARP))
        except OSError as error:
            self._socket.close()
            raise InterfaceError(f"ARP cannot be spoken on {interface}", error.strerror) from error
        self.hardware: bytes = self._socket.getsockname()[4]
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def announce(self) -> None:
        """Tell everybody that we have the address."""
        self._send(*announcements(self.hardware, self._address))

    def probe(self) -> None:
        """Ask who has the address; whoever does is heard."""
        self._send(probe(self.hardware, self._address))

    def close(self) -> None:
        """Say and hear nothing more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _send(self, *frames: bytes) -> None:
        try:
            for frame in frames:
                self._socket.send(frame)
        except OSError:
            return  # the interface is down: there is nobody to tell, and it is told again

    def _read(self) -> None:
        while True:
            try:
                frame, sender = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError:  # the interface went down
                return
            claim = claim_in(frame, self._address) if sender[2] != _OUTGOING else None
            if claim and claim.hardware != self.hardware:
                self._heard(claim)
