"""HAProxy's certificates, kept as the hosts want them: in the process without a reload, in files for its next start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coupler.registrator.balancers.haproxy.certificates import (
    Entry,
    Observed,
    delisting,
    earlier,
    entries,
    list_text,
    listed_well,
    loading,
    outdated,
    parse_fingerprint,
    parse_list,
    succeeded,
    surplus,
    unloading,
)
from coupler.registrator.balancers.haproxy.files import read_folder, secret_folder
from coupler.registrator.balancers.system import replace_file
from coupler.registrator.names import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coupler.registrator.balancers.haproxy.config import Settings
    from coupler.registrator.balancers.haproxy.files import Files
    from coupler.registrator.model import Host


class Asks(Protocol):
    """A way to the runtime API."""

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """Return the answers to `commands`."""


class Keyring:
    """The certificates of hosts. Of those that HAProxy refuses it knows why, and keeps what was there before.

    `strict`: a handshake for a name without a certificate is refused, as there is no default. `reread` stands for the
    certificates that only a reload can take up.
    """

    def __init__(self, settings: Settings, files: Files) -> None:
        self._list, self._folder = settings.certificate_list, settings.certificate_folder
        self._on = bool(settings.tls_binds)
        self._files = files
        self._hosts: tuple[Host, ...] | None = None
        self._judged: dict[str, str] = {}  # path and digest → why HAProxy refuses it, or nothing
        self.wanted: Mapping[str, Entry] = {}
        self.refused: dict[str, str] = {}
        self.strict, self.reread = True, ""

    async def choose(self, hosts: tuple[Host, ...]) -> None:
        """Take the certificates of `hosts` for those that are wanted, but for what HAProxy would not start with."""
        if hosts is self._hosts or not self._on:
            return
        offered = entries(hosts, self._folder)
        keys = {path: f"{path} {digest(entry.pem)}" for path, entry in offered.items()}
        stored = await self._stored() if any(self._judged.get(key) != "" for key in keys.values()) else {}
        unknown = {p: e.pem for p, e in offered.items() if keys[p] not in self._judged and stored.get(p) != e.pem}
        verdicts = await self._files.refused_certificates(unknown) if unknown else {}
        known = {path: (verdicts or {}).get(path) or self._judged.get(key, "") for path, key in keys.items()}
        remembered = (path for path in keys if verdicts is not None or path not in unknown)
        self._judged = {keys[path]: known[path] for path in remembered}
        self.refused = {f"host {offered[path].host}": why for path, why in known.items() if why}
        refused = [offered[path] for path, why in known.items() if why]
        self.wanted = {path: entry for path, entry in offered.items() if not known[path]}
        self.wanted |= {str(e.path): before for e in refused if (before := earlier(e, stored.get(str(e.path), "")))}
        self.wanted = dict(sorted(self.wanted.items(), key=lambda item: item[1].host))
        large = [entry.pem for entry in self.wanted.values() if entry.large]
        self.strict = all(entry.host for entry in self.wanted.values())
        self.reread = digest("".join(large)) if large else ""
        self._hosts = hosts

    async def load(self, socket: Asks, failed: dict[str, str], *, remove: bool) -> int:
        """Bring the process to what is wanted, then the files. Return how much changed; note what failed, by host."""
        if not self._on:
            return 0
        observed = await self.observe(socket)
        changes, own = 0, dict[str, str]()
        if observed.listed is not None:
            changes, own = await self._load(socket, observed)
            changes += await self._leave(socket) if remove else 0
        await self.store(remove=remove, without=own)
        failed |= own
        return changes

    async def plan(self, socket: Asks) -> list[str]:
        """Return what `load` would do, but for the certificates themselves."""
        if not self._on:
            return []
        observed = await self.observe(socket)
        lines = [f"set ssl cert {entry.path}" for entry in self.wanted.values() if outdated(entry, observed)]
        lines += [
            f"add ssl crt-list {self._list} {entry.path} {entry.names}"
            for entry in self.wanted.values()
            if not listed_well(entry, observed)
        ]
        lines += delisting(self.wanted, observed, self._folder, self._list)
        return lines + [f"del ssl cert {path}" for path in surplus(self.wanted, observed, self._folder)]

    async def observe(self, socket: Asks) -> Observed:
        """Return what process and files have of ours."""
        listing, loaded = await socket.ask([f"show ssl crt-list -n {self._list}", "show ssl cert"])
        mine = [line for line in loaded.splitlines() if line.startswith(f"{self._folder}/")]
        shown = await socket.ask([f"show ssl cert {path}" for path in mine]) if mine else []
        fingerprints = {path: parse_fingerprint(text) for path, text in zip(mine, shown, strict=True)}
        return Observed(parse_list(listing), fingerprints, await self._stored())

    async def differs(self, socket: Asks) -> bool:
        """Whether process or files have something else than what is wanted."""
        if not self._on:
            return False
        observed = await self.observe(socket)
        wrong = any(outdated(e, observed) or not listed_well(e, observed) for e in self.wanted.values())
        return wrong or self._too_much(observed) or await self._listed() != list_text(self.wanted.values())

    async def store(self, *, remove: bool, without: Mapping[str, str] | None = None) -> None:
        """Write the files; only what `remove` allows goes."""
        if self._on:
            failed = [entry for entry in self.wanted.values() if f"host {entry.host}" in (without or {})]
            await asyncio.to_thread(self._write, failed, remove)

    def _write(self, failed: Sequence[Entry], remove: bool) -> None:
        secret_folder(self._folder)
        for entry in self.wanted.values():
            if entry not in failed:
                replace_file(entry.path, entry.pem, 0o600)
        kept = [entry for entry in self.wanted.values() if entry.path.exists()]
        before = self._list.read_text().splitlines() if self._list.exists() else []
        lines = list_text(kept).splitlines()
        if not remove:
            mine = {line.split(" ")[0] for line in lines}
            lines += [line for line in before if (own := line.split(" ")[0]) not in mine and Path(own).exists()]
        replace_file(self._list, "".join(f"{line}\n" for line in lines))
        if remove:
            wanted = {entry.path.name for entry in kept}
            for path in self._folder.iterdir():
                if path.name not in wanted:
                    path.unlink()

    async def _load(self, socket: Asks, observed: Observed) -> tuple[int, dict[str, str]]:
        failed: dict[str, str] = {}
        late = [e for e in self.wanted.values() if not e.large and outdated(e, observed)]
        for entry in late:
            answers = await socket.ask(loading(entry, observed))
            if not succeeded(answers[-1]):
                failed[f"host {entry.host}"] = "; ".join(answers)
                await socket.ask(unloading(entry, observed))
        missing = [
            entry
            for entry in self.wanted.values()
            if not listed_well(entry, observed) and not entry.large and f"host {entry.host}" not in failed
        ]
        answers = await socket.ask([f"add ssl crt-list {self._list} <<\n{e.path} {e.names}\n" for e in missing])
        failed.update({f"host {e.host}": a for e, a in zip(missing, answers, strict=True) if not succeeded(a)})
        return len({entry.host for entry in (*late, *missing)}), failed

    async def _leave(self, socket: Asks) -> int:
        observed = await self.observe(socket)
        commands = delisting(self.wanted, observed, self._folder, self._list)
        gone = surplus(self.wanted, observed, self._folder)
        commands += [f"del ssl cert {path}" for path in gone]
        if commands:
            await socket.ask(commands)  # what is in use still goes with the next reload
        return len(gone)

    def _too_much(self, observed: Observed) -> bool:
        gone = surplus(self.wanted, observed, self._folder)
        return bool(gone or delisting(self.wanted, observed, self._folder, self._list))

    async def _stored(self) -> dict[str, str]:
        return await asyncio.to_thread(read_folder, self._folder)

    async def _listed(self) -> str | None:
        return await asyncio.to_thread(lambda: self._list.read_text() if self._list.exists() else None)
