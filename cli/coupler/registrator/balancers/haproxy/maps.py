"""HAProxy's maps, replaced whole and at once: filled beside the old version, then committed.

Source: https://docs.haproxy.org/2.6/management.html#9.3 (`prepare map`, `add map @<ver>`, `commit map`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.config import map_text
from coupler.registrator.balancers.haproxy.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from coupler.registrator.balancers.haproxy.keyring import Asks

    MapTexts = Mapping[Path, Mapping[str, str]]

_LARGEST_PAYLOAD = 12_000  # bytes; a command and its payload share a buffer of 16,384


async def parse_map(text: str) -> dict[str, str]:
    """Return the entries in an answer to `show map`."""
    pace = Pace()
    entries: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split(" ", 2)
        if len(words) == len(("address", "key", "value")):
            entries[words[1]] = words[2]
        await pace.breathe()
    return entries


def map_fills(path: Path, version: str, entries: Mapping[str, str]) -> list[str]:
    """Return the commands that fill a version of a map: payloads that fit into HAProxy's buffer."""
    fills: list[str] = []
    lines: list[str] = []
    size = 0
    for line in map_text(entries).splitlines(keepends=True):
        if size + len(line) > _LARGEST_PAYLOAD:
            fills.append(f"add map @{version} {path} <<\n{''.join(lines)}")
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    return [*fills, f"add map @{version} {path} <<\n{''.join(lines)}"] if lines else fills


async def read_maps(socket: Asks, wanted: MapTexts) -> dict[Path, dict[str, str]]:
    """Return what HAProxy has in the maps of `wanted`."""
    answers = await socket.ask([f"show map {path}" for path in wanted]) if wanted else []
    return {path: await parse_map(answer) for path, answer in zip(wanted, answers, strict=True)}


async def move_maps(socket: Asks, wanted: MapTexts, *, remove: bool) -> int:
    """Make the maps those of `wanted`; without `remove`, what is there besides stays. Return how many changed."""
    loaded = await read_maps(socket, wanted)
    whole = {path: entries if remove else {**loaded[path], **entries} for path, entries in wanted.items()}
    stale = {path: entries for path, entries in whole.items() if entries != loaded[path]}
    if stale:
        await _swap(socket, stale)
    return len(stale)


async def _swap(socket: Asks, maps: MapTexts) -> None:
    answers = await socket.ask([f"prepare map {path}" for path in maps])
    versions = [answer.rpartition(" ")[2] for answer in answers]
    if not all(version.isdigit() for version in versions):
        raise BalancerError("HAProxy does not know our maps", "; ".join(answers), "does it read our file?")
    numbered = list(zip(maps.items(), versions, strict=True))
    fills = [fill for (path, entries), version in numbered for fill in map_fills(path, version, entries)]
    commits = [f"commit map @{version} {path}" for (path, _), version in numbered]
    answers = await socket.ask([*fills, *commits])
    if any(answer.strip("+ ") for answer in answers):
        raise BalancerError("HAProxy did not take the routes", "; ".join(answers))
