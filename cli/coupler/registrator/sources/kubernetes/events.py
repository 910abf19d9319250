"""The events of a watch, however its bytes fall into chunks: in the middle of a line or a character."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from coupler.registrator.sources.kubernetes.client import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Chunks(Protocol):
    """Where bytes come from; b"" is their end."""

    async def chunk(self) -> bytes:
        """Return what came."""


class SilentError(Exception):
    """Nothing came for too long."""


class Lines:
    """Gives whole lines, and keeps the beginning of the next one; a line may be of any length."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes, without their ends; empty ones are left out."""
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            line = b"".join((*self._parts, piece)) if self._parts else piece
            self._parts.clear()
            if line.strip():
                yield line
        if rest:
            self._parts.append(rest)


class Events:
    """What a watch says, decoded. A line that the stream ends in is no event: it will be sent again."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks, self._lines = chunks, Lines()

    async def batch(self, patience: float) -> list[dict[str, Any]]:
        """Return the next events, at least one of them; none at the end of the stream.

        Raises SilentError where nothing at all comes for `patience` seconds, ApiError where the connection is lost
        or what comes is no event.
        """
        batch: list[dict[str, Any]] = []
        while not batch:
            try:
                async with asyncio.timeout(patience):
                    chunk = await self._chunks.chunk()
            except TimeoutError as error:
                raise SilentError from error
            if not chunk:
                break
            batch = [_event(line) for line in self._lines.feed(chunk)]
        return batch


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise garbled(f"not JSON: {error}") from error
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise garbled("this is no event")
    return event


def garbled(why: str) -> ApiError:
    """Return the error for a stream that says what cannot be used."""
    return ApiError(200, "Unusable", why)
