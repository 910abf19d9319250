"""The bytes of a watch, as recorded, cut at every place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from tests.contract.kubernetes.recordings import raw_watch

from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.events import Events, SilentError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Given:
    """Chunks that are there already; behind them the stream ends, or is silent."""

    def __init__(self, chunks: Iterable[bytes], *, ends: bool = True) -> None:
        self._chunks, self._ends = iter(chunks), ends

    async def chunk(self) -> bytes:
        chunk = next(self._chunks, b"")
        if not (chunk or self._ends):
            await asyncio.Event().wait()
        return chunk


async def everything(chunks: Iterable[bytes]) -> list[dict[str, Any]]:
    events, found = Events(Given(chunks)), list[dict[str, Any]]()
    while batch := await events.batch(5.0):
        found += batch
    return found


def test_recorded_bytes_are_the_same_events_however_they_are_cut() -> None:
    body = raw_watch()
    whole = [orjson.loads(line) for line in body.splitlines()]
    assert len(whole) > 5
    assert {event["type"] for event in whole} == {"MODIFIED"}
    for size in (1, 2, 7, 1000, len(body)):
        assert asyncio.run(everything(body[at : at + size] for at in range(0, len(body), size))) == whole


def test_a_character_may_be_cut_in_two() -> None:
    line = '{"type":"ADDED","object":{"city":"Łódź 東京 🚂"}}\n'.encode()
    event = orjson.loads(line)
    for at in range(len(line)):
        assert asyncio.run(everything(chunk for chunk in (line[:at], line[at:]) if chunk)) == [event]


def test_a_line_without_an_end_is_no_event() -> None:
    whole = b'{"type":"ADDED","object":{}}\n'
    assert asyncio.run(everything([whole, whole[:-1]])) == [{"type": "ADDED", "object": {}}]
    assert asyncio.run(everything([b"\n", b"\r\n", whole])) == [{"type": "ADDED", "object": {}}]


@pytest.mark.parametrize("line", [b"{", b"[]", b"null", b'{"type":"ADDED"}', b'{"object":[]}', b'{"object":"\xff"}'])
def test_what_is_no_event_is_an_error(line: bytes) -> None:
    with pytest.raises(ApiError) as error:
        asyncio.run(everything([line + b"\n"]))
    assert error.value.reason == "Unusable"


def test_silence_is_told_from_the_end() -> None:
    async def run() -> None:
        events = Events(Given([b'{"type":"ADDED",'], ends=False))
        with pytest.raises(SilentError):
            await events.batch(0.02)
        assert await Events(Given([])).batch(0.02) == []

    asyncio.run(run())
