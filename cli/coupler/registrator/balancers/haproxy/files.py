"""HAProxy's files: written atomically, and only where HAProxy accepts them."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.config import map_text
from coupler.registrator.balancers.system import replace_file, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CHECK_SECONDS = 30.0
_READABLE, _SECRET_FOLDER = 0o644, 0o700


class Files:
    """Our configuration file and its maps. `base` are the user's own files, which HAProxy reads before ours."""

    def __init__(self, config: Path, base: Sequence[Path], program: str) -> None:
        self.config = config
        self._base = tuple(base)
        self._program = program
        self._one_at_a_time = asyncio.Lock()

    def current(self) -> str | None:
        """Return our file as it lies there."""
        return self.config.read_text() if self.config.exists() else None

    async def unlike(self, text: str, maps: Mapping[Path, Mapping[str, str]]) -> bool:
        """Whether file or maps are not these."""
        wanted = {path: map_text(entries) for path, entries in maps.items()} | {self.config: text}
        return await asyncio.to_thread(lambda: any(_text(path) != text for path, text in wanted.items()))

    async def write(self, text: str, maps: Mapping[Path, Mapping[str, str]]) -> dict[Path, str | None]:
        """Put file and maps in place if HAProxy accepts them; return what was there. Raises BalancerError."""
        async with self._one_at_a_time:
            before = await asyncio.to_thread(lambda: {path: _text(path) for path in (*maps, self.config)})
            for path in (path for path in maps if before[path] is None):
                await asyncio.to_thread(replace_file, path, "")  # HAProxy's check looks for them
            if text != before[self.config]:
                await self._check(text)
            for path, entries in maps.items():
                await asyncio.to_thread(replace_file, path, map_text(entries))
            if text != before[self.config]:
                await asyncio.to_thread(replace_file, self.config, text)
        return before

    def restore(self, before: Mapping[Path, str | None]) -> None:
        """Put files back as they were."""
        for path, text in before.items():
            if text is None:
                path.unlink(missing_ok=True)
            else:
                replace_file(path, text)

    async def refused_certificates(self, texts: Mapping[str, str]) -> dict[str, str] | None:
        """Return which of these certificates (a text of PEM by name) HAProxy does not start with, and why.

        None: it does not start for another reason, and has not judged them.
        """
        with tempfile.TemporaryDirectory(prefix="coupler-") as folder:
            lines = ["frontend coupler-check"]
            for number, text in enumerate(texts.values()):
                path = Path(folder) / f"{number}.pem"
                await asyncio.to_thread(replace_file, path, text, 0o600)
                lines.append(f"  bind 127.0.0.1:1 ssl crt {path}")
            candidate = Path(folder) / "check.cfg"
            candidate.write_text("\n".join([*lines, "  mode http", ""]))
            code, output = await self._verdict(candidate)
            if not code:
                return {}
            found = re.findall(rf"\[{re.escape(str(candidate))}:(\d+)\](.*)", output)
            refused = {int(line) - 2: why.strip(" :").replace(folder, "") for line, why in found}
            return {name: refused[number] for number, name in enumerate(texts) if number in refused} or None

    async def _check(self, text: str) -> None:
        with tempfile.TemporaryDirectory(prefix="coupler-") as folder:
            candidate = Path(folder) / self.config.name
            await asyncio.to_thread(candidate.write_text, text)
            code, output = await self._verdict(candidate)
        if code:
            raise BalancerError("HAProxy refuses the configuration; the one before it stays", output)

    async def _verdict(self, candidate: Path) -> tuple[int, str]:
        files = [word for file in (*self._base, candidate) for word in ("-f", str(file))]
        return await run([self._program, "-c", *files])


def secret_folder(path: Path) -> None:
    """Make a folder that its owner alone may look into."""
    path.mkdir(mode=_SECRET_FOLDER, exist_ok=True)
    path.chmod(_SECRET_FOLDER)


def read_folder(folder: Path) -> dict[str, str]:
    """Return the text of every file in a folder by path, of none where there is no folder."""
    return {str(path): _text(path) or "" for path in folder.iterdir()} if folder.is_dir() else {}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
