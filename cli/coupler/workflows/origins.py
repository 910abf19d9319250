"""Where the parts of a document come from: the fragment, and the lines of what the user wrote that shaped them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.render.provenance import Origin, provenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coupler.model import LoadedCluster
    from coupler.model.source import KeyPath, Source
    from coupler.render.provenance import EntryPath
    from coupler.render.recording import Read
    from coupler.result import Json

_HANDFUL = 5
"""More keys than this below one key are shown as that key, as are several in its own line."""


@dataclass(frozen=True, order=True)
class Key:
    """A key that somebody wrote: the file, its line (from 1), and its path as a person writes it."""

    file: str
    line: int
    name: str

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {"file": self.file, "line": self.line, "key": self.name}


@dataclass(frozen=True)
class Provenance:
    """The fragments that wrote something, the keys that shaped it, and the same keys in short, for people."""

    fragments: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    shown: tuple[Key, ...] = ()

    def text(self) -> str:
        """Return it in one line: fragment, then key:line."""
        names = [name.removeprefix("cloud-config/").removesuffix(".yaml.j2") for name in self.fragments]
        keys = ", ".join(f"{key.name}:{key.line}" for key in self.shown)
        return ", ".join(Path(name).name if name.startswith("/") else name for name in names) + (
            f" ← {keys}" if keys else ""
        )

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {"fragments": list(self.fragments), "keys": [key.data() for key in self.keys]}


class Origins:
    """The origin of everything in the document of a cluster."""

    def __init__(self, loaded: LoadedCluster) -> None:
        self._by_path: dict[EntryPath, list[Origin]] = defaultdict(list)
        for origin in provenance(loaded.cluster):
            for length in range(1, len(origin.path) + 1):
                self._by_path[origin.path[:length]].append(origin)
        self._main = _Index(loaded.source)
        self._extra = _Index(loaded.cluster.extra.source) if loaded.cluster.extra else self._main

    def of(self, paths: Iterable[EntryPath]) -> Provenance:
        """Return the provenance of these entries, or sections of entries, together."""
        origins = list(dict.fromkeys(origin for path in paths for origin in self._by_path.get(path, ())))
        keys: set[Key] = set()
        shown: set[Key] = set()
        for own, index in ((False, self._main), (True, self._extra)):
            reads = {read for origin in origins if origin.own is own for read in origin.reads}
            keys |= index.keys(reads)
            shown |= index.shown(reads)
        if any(origin.own for origin in origins):
            extra = self._main.key(("extra",))
            keys.add(extra)
            shown.add(extra)
        fragments = dict.fromkeys(origin.fragment for origin in origins)
        return Provenance(tuple(fragments), tuple(sorted(keys)), tuple(sorted(shown)))


class _Index:
    """The keys of one file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._below: Mapping[KeyPath, list[KeyPath]] = defaultdict(list)
        for path in source.positions:
            for length in range(len(path)):
                self._below[path[:length]].append(path)

    def key(self, path: KeyPath) -> Key:
        """Return the key at a path that is written."""
        return Key(self._source.file, self._source.positions[path].key[0], _name(path))

    def keys(self, reads: Iterable[Read]) -> set[Key]:
        """Return every written key among these reads."""
        return {self.key(path) for path in self._written(reads, expand=True)}

    def shown(self, reads: set[Read]) -> set[Key]:
        """Return the same keys in short: one that was read as a whole alone, and many below one key as that key."""
        paths = self._written(reads, expand=False)
        above = {path[:length] for path in paths for length in range(1, len(path))}
        paths -= above & {read.path for read in reads if not read.whole}
        for length in range(max(map(len, paths), default=1) - 1, 0, -1):
            groups: dict[KeyPath, set[KeyPath]] = defaultdict(set)
            for path in paths:
                if len(path) > length:
                    groups[path[:length]].add(path)
            for parent, children in groups.items():
                if len(children) > _HANDFUL or (len(children) > 1 and self._on_one_line({parent, *children})):
                    paths = (paths - children) | {parent}
        return {self.key(path) for path in paths}

    def _on_one_line(self, paths: set[KeyPath]) -> bool:
        return len({self._source.positions[path].key[0] for path in paths}) == 1

    def _written(self, reads: Iterable[Read], *, expand: bool) -> set[KeyPath]:
        paths: set[KeyPath] = set()
        for read in reads:
            if read.path in self._source.positions:
                paths.add(read.path)
                if read.whole and expand:
                    paths.update(self._below.get(read.path, ()))
        return paths


def _name(path: KeyPath) -> str:
    """Return a path as a person writes it: `nodes[0].address`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")
