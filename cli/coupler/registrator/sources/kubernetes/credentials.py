"""What proves who we are, kept fresh: tokens and certificates are rotated under a program that runs for months."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coupler.registrator.sources.kubernetes.access import Access

_LONGEST_TRUST = 60.0  # seconds; files are read again after this even if they look the same


@dataclass(frozen=True, slots=True)
class Current:
    """What a request needs now. Another `tls` than before means: do not use connections of before."""

    access: Access
    tls: ssl.SSLContext | None


class Credentials:
    """Reads the access again when one of its files changed, when it is older than a minute, or when it is doubted.

    What cannot be read while it is being replaced is left for the next request; the last good one serves meanwhile,
    and `problem` says what is wrong.
    """

    def __init__(self, read: Callable[[], Access], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem: str | None = None
        self._read, self._clock = read, clock
        self._current: Current | None = None
        self._seen: tuple[object, ...] = ()
        self._read_at = 0.0
        self._lock = asyncio.Lock()

    async def current(self) -> Current:
        """Return what to use now. Raises ConfigurationError where nothing could ever be read."""
        async with self._lock:
            if self._current is not None and not self._current.access.files:
                return self._current
            return await asyncio.to_thread(self._refresh)

    def doubt(self) -> None:
        """Say that the server did not believe us: everything is read again for the next request."""
        self._read_at = float("-inf")

    def _refresh(self) -> Current:
        now, current = self._clock(), self._current
        if current is not None:
            fresh = now - self._read_at < _LONGEST_TRUST
            if fresh and self._seen == tuple(map(_signature, current.access.files)):
                return current
        try:
            access = self._read()
            # Looked at after reading: what changes in between is read once more, and never missed.
            seen = tuple(map(_signature, access.files))
            same = current is not None and _tls_parts(access) == _tls_parts(current.access)
            tls = current.tls if current is not None and same else tls_context(access)
        except ConfigurationError as error:
            self.problem = f"{error}: {error.why}" if error.why else str(error)
            if current is None:
                raise
            return current
        self.problem = None
        self._current, self._seen, self._read_at = Current(access, tls), seen, now
        return self._current


def tls_context(access: Access) -> ssl.SSLContext | None:
    """Return how to speak TLS with the server, None for plain HTTP. Raises ConfigurationError for unusable PEM."""
    if not access.server.startswith("https://"):
        return None
    try:
        context = ssl.create_default_context(cadata=_text(access.authority))
    except (ssl.SSLError, ValueError) as error:
        raise _unusable(access, "certificate authority", error) from error
    # Python 3.13 began to ask for extensions that the authorities of many a cluster lack.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if access.certificate is not None and access.key is not None:
        try:
            _load_pair(context, access.certificate, access.key)
        except (OSError, ValueError) as error:
            raise _unusable(access, "client certificate with its key", error) from error
    return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load the pair by way of memory: the ssl module takes paths only, and a key has no business on a disk."""
    descriptors: list[int] = []
    try:
        for content in (certificate, key):
            descriptors.append(os.memfd_create("coupler", os.MFD_CLOEXEC))
            with open(descriptors[-1], "wb", closefd=False) as file:
                file.write(content)
        first, second = (f"/proc/self/fd/{descriptor}" for descriptor in descriptors)
        context.load_cert_chain(first, second, password=_no_password)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # asking at the terminal would stop the program


def _tls_parts(access: Access) -> tuple[object, ...]:
    return access.server, access.authority, access.certificate, access.key


def _text(pem: bytes | None) -> str | None:
    return None if pem is None else pem.decode("ascii")


def _unusable(access: Access, what: str, error: Exception) -> ConfigurationError:
    where = ", ".join(map(str, access.files)) or access.server
    return ConfigurationError(f"{where}: the {what} cannot be used", str(error))


def _signature(path: Path) -> tuple[int, ...] | None:
    """Return what changes when the file does: a rotation replaces it, or the link that leads to it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
