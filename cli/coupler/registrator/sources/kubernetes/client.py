"""The Kubernetes API over HTTP: one request, one answer, or a stream of events.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/. Answers are Status objects as a rule, and plain
text where a request was turned away early (429, 503, an unknown API group).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from coupler.registrator.sources.kubernetes.credentials import Credentials, Current

_OK, _FIRST_REFUSAL, _UNAUTHORIZED, _SERVER_FAILURE = 200, 300, 401, 500
_LONGEST_MESSAGE = 500
_NEXT_STEPS = {
    401: "give a token or a client certificate that the server knows",
    403: "give the registrator's user the right, with a ClusterRole and a ClusterRoleBinding",
}


class ApiError(CouplerError):
    """The API server refused, answered what cannot be used, or did not answer: then `status` is 0.

    `reason` is the server's word for it ("NotFound", "Expired"), `details` is its Status object's, and `retry_after`
    says how many seconds it asked to be left alone.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after: float | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        request: str = "",
    ) -> None:
        said = f"the API server answered {status} {reason}".rstrip() if status else "the API server does not answer"
        super().__init__(f"{said} to {request}" if request else said, message, _NEXT_STEPS.get(status))
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after
        self.details: Mapping[str, Any] = details or {}


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str] | None
    body: bytes | None = None
    kind: str = ""
    endless: bool = False

    @property
    def target(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


class Stream:
    """The answer to a watch, chunk by chunk as they come."""

    def __init__(self, response: aiohttp.ClientResponse, request: str) -> None:
        self._response, self._request = response, request

    async def chunk(self) -> bytes:
        """Return what came, b"" at the end. Raises ApiError where the connection was lost."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error, self._request) from error

    def close(self) -> None:
        """Cut the connection; whoever waits for a chunk gets an ApiError."""
        self._response.close()


class ApiClient:
    """Requests to one API server, over one pool of connections. Every method may raise ApiError.

    A request that is refused as unauthorized is sent once more if the credentials have changed meanwhile. Redirects
    are not followed. `connect_seconds` is for a connection with TLS, `read_seconds` for the silence before and within
    an answer.
    """

    def __init__(self, credentials: Credentials, *, connect_seconds: float = 5.0, read_seconds: float = 30.0) -> None:
        self._credentials = credentials
        self._connect_seconds, self._read_seconds = connect_seconds, read_seconds
        self._version: tuple[int, int] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the object, or whatever JSON is at `path`."""
        return await self._ask("GET", path, query)

    async def version(self) -> tuple[int, int]:
        """Return the server's version, (1, 32); it is asked once."""
        if self._version is None:
            answer = await self._ask("GET", "/version", None)
            self._version = _number(answer, "major"), _number(answer, "minor")
        return self._version

    async def ready(self) -> bool:
        """Return whether the server has finished its start, as far as it says so."""
        async with await self._send(_Request("GET", "/readyz", None)) as response:
            return response.status < _SERVER_FAILURE

    async def list(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return one page of a list: a mapping with `metadata`, and `items` that is a list."""
        answer = await self._ask("GET", path, query)
        if not isinstance(answer, dict) or not isinstance(answer.get("metadata"), dict):
            raise ApiError(_OK, "Unusable", "this is no list", request=f"GET {path}")
        if answer.get("items") is None:
            answer["items"] = []  # how servers written in Go may say that there is nothing
        return answer

    async def post(self, path: str, body: Any, query: Mapping[str, str] | None = None) -> Any:
        """Create an object; return it as the server has it."""
        return await self._ask("POST", path, query, body)

    async def put(self, path: str, body: Any, query: Mapping[str, str] | None = None) -> Any:
        """Replace an object; return it as the server has it."""
        return await self._ask("PUT", path, query, body)

    async def patch(self, path: str, body: Any, query: Mapping[str, str] | None = None) -> Any:
        """Merge `body` into an object (RFC 7386); return it as the server has it."""
        return await self._ask("PATCH", path, query, body, "application/merge-patch+json")

    @asynccontextmanager
    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Stream]:
        """Yield the stream of events that `query` asks for. Nothing bounds its silence: the caller does."""
        request = f"GET {path}"
        try:
            async with asyncio.timeout(self._connect_seconds + self._read_seconds):
                response = await self._send(_Request("GET", path, query, endless=True))
        except TimeoutError as error:
            raise _unreachable(error, request) from error
        try:
            if response.status != _OK:
                raise await self._error(response, request)
            yield Stream(response, request)
        finally:
            response.close()  # a stream that was left in the middle cannot serve another request

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any = None, kind: str = "application/json"
    ) -> Any:
        content = None if body is None else orjson.dumps(body)
        response = await self._send(_Request(method, path, query, content, kind))
        request = f"{method} {path}"
        async with response:
            if response.status >= _FIRST_REFUSAL:
                raise await self._error(response, request)
            try:
                return orjson.loads(await response.read())
            except orjson.JSONDecodeError as error:
                raise ApiError(response.status, "Unusable", f"not JSON: {error}", request=request) from error
            except (aiohttp.ClientError, OSError) as error:
                raise _unreachable(error, request) from error

    async def _send(self, request: _Request) -> aiohttp.ClientResponse:
        current = await self._credentials.current()
        response = await self._send_once(request, current)
        if response.status == _UNAUTHORIZED:
            self._credentials.doubt()
            renewed = await self._credentials.current()
            if renewed != current:
                response.close()
                response = await self._send_once(request, renewed)
        return response

    async def _send_once(self, request: _Request, current: Current) -> aiohttp.ClientResponse:
        access = current.access
        headers = {"Accept": "application/json"}
        if access.token:
            headers["Authorization"] = f"Bearer {access.token}"
        if request.body is not None:
            headers["Content-Type"] = request.kind
        try:
            return await self._open().request(
                request.method,
                URL(access.server + request.target, encoded=True),
                data=request.body,
                headers=headers,
                ssl=current.tls or True,
                server_hostname=access.server_name if current.tls else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=self._connect_seconds,
                    sock_connect=self._connect_seconds,
                    sock_read=None if request.endless else self._read_seconds,
                ),
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error, f"{request.method} {request.path}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Not compressed: on the way to a nearby server that costs more time than it saves, and threads.
            headers = {"User-Agent": "coupler-registrator", "Accept-Encoding": "identity"}
            self._session = aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(limit=0),  # each watch holds a connection for itself
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    async def _error(self, response: aiohttp.ClientResponse, request: str) -> ApiError:
        try:
            content = await response.read()
        except (aiohttp.ClientError, OSError):
            content = b""
        return status_error(response.status, content, _seconds(response.headers.get("Retry-After")), request)


def status_error(status: int, content: bytes, retry_after: float | None, request: str) -> ApiError:
    """Return the error that an answer's body describes, be it a Status object or text."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        text = content.decode("utf-8", "replace").strip()[:_LONGEST_MESSAGE]
        return ApiError(status, "", text or "there is nothing in the answer", retry_after, request=request)
    details = answer.get("details")
    details = details if isinstance(details, dict) else {}
    if retry_after is None:
        retry_after = _seconds(details.get("retryAfterSeconds"))
    reason, message = str(answer.get("reason") or ""), str(answer.get("message") or "")[:_LONGEST_MESSAGE]
    return ApiError(status, reason, message, retry_after, details=details, request=request)


def _seconds(value: object) -> float | None:
    """Return what a Retry-After says in seconds; API servers never give a date."""
    try:
        return max(0.0, float(str(value))) if value is not None else None
    except ValueError:
        return None


def _number(version: Any, part: str) -> int:
    """Return a part of a version as a number; "21+" is 21, and what cannot be read is 0."""
    text = str(version.get(part, "")) if isinstance(version, dict) else ""
    digits = "".join(takewhile(str.isdigit, text))
    return int(digits) if digits.isascii() and digits else 0


def _unreachable(error: Exception, request: str) -> ApiError:
    kind = "Timeout" if isinstance(error, TimeoutError) else "Unreachable"
    return ApiError(0, kind, str(error) or type(error).__name__, request=request)
