"""HTTP to the members of one etcd: the member that answered is kept, the next one is tried when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp

from coupler.registrator.etcd import EtcdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

_LOOK_AT_FILES_EVERY = 10.0
_TIMED_OUT = (408, 504)
_SERVER_ERROR = 500
_NEXT_STEP = "is etcd running, and has it a quorum? Ask it: etcdctl endpoint health --cluster"


@dataclass(frozen=True, slots=True)
class Access:
    """Where etcd is and who we are to it. Timeouts are in seconds, of one attempt with one member.

    `ca`, `certificate` and `key` are files in PEM; they are read again when they change.
    """

    endpoints: tuple[str, ...]
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    connect_timeout: float = 2.0
    request_timeout: float = 5.0

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise EtcdError("no etcd is named", next_step="name at least one, as http://127.0.0.1:2379")
        for url in self.endpoints:
            if not url.startswith(("http://", "https://")):
                raise EtcdError(f"{url!r} is no URL of an etcd", next_step="it begins with http:// or https://")
        object.__setattr__(self, "endpoints", tuple(url.rstrip("/") for url in self.endpoints))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a member said."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class Endpoints:
    """The members of one etcd. One that refuses, is silent or answers with a server error makes way for the next."""

    def __init__(self, access: Access, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.access = access
        self._clock = clock
        self._current = 0
        self._session: aiohttp.ClientSession | None = None
        self._files: object = None
        self._look_again = 0.0

    @property
    def url(self) -> str:
        """Return the member that is asked first."""
        return self.access.endpoints[self._current]

    def skip(self, url: str) -> None:
        """Ask another member than `url` from now on, if there is one."""
        if url == self.url:
            self._current = (self._current + 1) % len(self.access.endpoints)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> Answer:
        """Return the first answer of a member that is no server error. `once`: do not ask a second member.

        A request whose answer was lost is sent again to another member: it may be carried out twice.
        """
        timeout = aiohttp.ClientTimeout(total=self.access.request_timeout, sock_connect=self.access.connect_timeout)
        failures = []
        for _ in range(1 if once else len(self.access.endpoints)):
            url = self.url
            session = await self._ready()
            try:
                async with session.request(method, url + path, data=body, headers=headers, timeout=timeout) as response:
                    answer = Answer(url, response.status, response.headers, await response.read())
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                failures.append(f"{url}: {_reason(error)}")
            else:
                if answer.status < _SERVER_ERROR and answer.status not in _TIMED_OUT:
                    return answer
                failures.append(f"{url}: {answer.status} {_text(answer.body)}")
            self.skip(url)
        raise EtcdError("etcd does not answer", "; ".join(failures), _NEXT_STEP)

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open an answer that does not end; whoever reads it sets the time it may be silent."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.access.connect_timeout)
        url = self.url
        session = await self._ready()
        try:
            async with contextlib.AsyncExitStack() as stack:
                opening = session.request(method, url + path, data=body, headers=headers, timeout=timeout)
                async with asyncio.timeout(self.access.request_timeout):
                    response = await stack.enter_async_context(opening)
                if response.status >= _SERVER_ERROR:
                    raise EtcdError("etcd does not answer", f"{url}: {response.status}", _NEXT_STEP)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self.skip(url)
            raise EtcdError("the connection to etcd broke", f"{url}: {_reason(error)}", _NEXT_STEP) from error
        except EtcdError:
            self.skip(url)
            raise

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ready(self) -> aiohttp.ClientSession:
        access = self.access
        if any(url.startswith("https://") for url in access.endpoints) and self._clock() >= self._look_again:
            files = await asyncio.to_thread(_state_of, (access.ca, access.certificate, access.key))
            if files != self._files or self._session is None:
                context = await asyncio.to_thread(_context, access)
                await self.close()
                self._session = _session(context)
                self._files = files
            self._look_again = self._clock() + _LOOK_AT_FILES_EVERY
        if self._session is None:
            self._session = _session(None)
        return self._session


def _session(context: ssl.SSLContext | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=True if context is None else context, limit=0)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False)


def _context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca)
        if access.certificate is not None:
            context.load_cert_chain(access.certificate, access.key)
    except (OSError, ssl.SSLError) as error:
        raise EtcdError(
            "the files for TLS to etcd cannot be used", str(error), "are they in PEM, and a pair?"
        ) from error
    return context


def _state_of(paths: tuple[Path | None, ...]) -> object:
    state = []
    for path in paths:
        try:
            seen = path.stat() if path is not None else None
        except OSError:
            seen = None
        state.append(seen and (seen.st_ino, seen.st_mtime_ns, seen.st_size))
    return tuple(state)


def _reason(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) and not str(error) else str(error) or repr(error)


def _text(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace").strip()
