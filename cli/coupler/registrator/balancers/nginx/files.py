"""Our files for nginx: tried beside the ones in place, put there atomically, put back where a reload fails.

A file is tried with a copy of the user's main file that includes the candidate instead. The copy lies in a folder of
links to everything beside the main file, so that whatever it includes by a relative path is found. What is in place is
touched only after nginx has accepted the candidate, and in an order in which every state between is whole: new
certificates (each under a name of its own), the file for HTTP, the file for TCP. So nginx can start at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.system import replace_file, run

if TYPE_CHECKING:
    from coupler.registrator.balancers.nginx.config import NginxSettings, Texts

_INCLUDE = re.compile(r"(?m)^(?P<before>[^#\n]*?\binclude\s+)(?P<quote>[\"']?)(?P<path>[^\"';\s]+)(?P=quote)\s*;")
_CERTIFICATE = re.compile(r"[0-9a-f]{32}\.pem")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What nginx said against a candidate: in which of our files and lines, if it names one."""

    message: str
    http_line: int | None = None
    stream_line: int | None = None


class Files:
    """Our files, and the way to try others."""

    def __init__(self, settings: NginxSettings) -> None:
        self._settings = settings

    def included(self, path: Path) -> bool:
        """Whether the user's main file includes `path` by its name."""
        found = _INCLUDE.finditer(self._main())
        return any(self._resolved(match["path"]) == path for match in found)

    def current(self) -> tuple[str, str]:
        """Return our files for HTTP and TCP as they lie there, empty if they do not."""
        return _read(self._settings.http), _read(self._settings.stream)

    def holds(self, texts: Texts) -> bool:
        """Whether everything lies there as in `texts`."""
        if self.current() != (texts.http, texts.stream):
            return False
        return all(_read(self._settings.certificates / name) == pem for name, pem in texts.certificates.items())

    async def refusal(self, texts: Texts) -> Refusal | None:
        """Return what nginx has against `texts`; None if it takes them. Certificates are in place afterwards."""
        await asyncio.to_thread(self._write_certificates, texts)
        with tempfile.TemporaryDirectory(prefix="coupler-") as folder:
            copy = await asyncio.to_thread(self._scratch, Path(folder), texts)
            code, output = await run([self._settings.program, "-t", "-q", "-c", str(copy)])
            if not code:
                return None
            message = next((line for line in output.splitlines() if "[emerg]" in line), output)
            lines = [self._line(message, copy.parent / file.name) for file in self._ours()]
            said = re.sub(r"^.*\[emerg\] [\d#]+: ", "", message).replace(f"{copy.parent}/", "")
            return Refusal(said or f"it ends with {code} and says nothing", *lines)

    def write(self, texts: Texts) -> None:
        """Put everything in place."""
        self._write_certificates(texts)
        replace_file(self._settings.http, texts.http)
        replace_file(self._settings.stream, texts.stream)

    def restore(self, before: tuple[str, str]) -> None:
        """Put our files back as they were before."""
        for path, text in zip(self._ours(), before, strict=True):
            replace_file(path, text)

    def certificates(self) -> frozenset[str]:
        """Return the names of the certificates that lie there."""
        with contextlib.suppress(FileNotFoundError):
            return frozenset(path.name for path in self._settings.certificates.iterdir())
        return frozenset()

    def collect(self) -> None:
        """Delete the certificates that our file does not name any more."""
        text = _read(self._settings.http)
        with contextlib.suppress(FileNotFoundError):
            for path in self._settings.certificates.iterdir():
                if _CERTIFICATE.fullmatch(path.name) and path.name not in text:
                    path.unlink()

    def _ours(self) -> tuple[Path, Path]:
        return self._settings.http, self._settings.stream

    def _write_certificates(self, texts: Texts) -> None:
        if texts.certificates:
            self._settings.certificates.mkdir(mode=0o700, exist_ok=True)
            self._settings.certificates.chmod(0o700)
        for name, pem in texts.certificates.items():
            replace_file(self._settings.certificates / name, pem, 0o600)

    def _scratch(self, folder: Path, texts: Texts) -> Path:
        """Lay out a folder in which nginx finds the candidate; return the copy of the main file in it."""
        main = self._settings.main
        beside = folder / "beside"
        beside.mkdir()
        for entry in main.parent.iterdir():
            if entry.name != main.name:
                (beside / entry.name).symlink_to(entry)
        candidates = {}
        for path, text in zip(self._ours(), (texts.http, texts.stream), strict=True):
            candidates[path] = beside / path.name
            candidates[path].unlink(missing_ok=True)
            candidates[path].write_text(text)

        def other(match: re.Match[str]) -> str:
            candidate = candidates.get(self._resolved(match["path"]))
            return f'{match["before"]}"{candidate}";' if candidate else match[0]

        copy = beside / main.name
        copy.write_text(_INCLUDE.sub(other, self._main()))
        return copy

    def _main(self) -> str:
        try:
            return self._settings.main.read_text()
        except OSError as error:
            raise BalancerError(
                f"nginx's configuration {self._settings.main} cannot be read", error.strerror
            ) from error

    def _resolved(self, path: str) -> Path:
        return self._settings.main.parent / path

    @staticmethod
    def _line(message: str, path: Path) -> int | None:
        found = re.search(rf" in {re.escape(str(path))}:(\d+)", message)
        return int(found[1]) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
