"""A cluster that notes which of its keys are read.

`watched` wraps the frozen model: whoever reads an attribute of it gets the same value, and the recorder the key's path
in cluster.yaml. Values that are derived from others (`etcd_members`, `artifacts_needed`) are computed from the watched
cluster, so that the keys behind them are noted too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import getattr_static
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from coupler.model import Cluster, Node
from coupler.model.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.source import KeyPath


class Read(NamedTuple):
    """A key of cluster.yaml that was read: with everything below it (`whole`), or only whether it is there."""

    path: KeyPath
    whole: bool = True


class Recorder:
    """Collects what is read; `pending` is what was read since somebody last took it."""

    def __init__(self) -> None:
        self.pending: set[Read] = set()

    def take(self) -> set[Read]:
        """Return what is pending, and begin anew."""
        taken, self.pending = self.pending, set()
        return taken

    def capture(self, compute: Callable[[], Any]) -> tuple[Any, set[Read]]:
        """Return what `compute` returns, and what it read; nothing of that becomes pending."""
        outside, self.pending = self.pending, set()
        try:
            return compute(), self.pending
        finally:
            self.pending = outside


class Once:
    """A value that is computed when it is first asked for. What it was computed from counts as read each time."""

    def __init__(self, recorder: Recorder, compute: Callable[[], Any]) -> None:
        self._recorder = recorder
        self._compute = compute
        self._result: tuple[Any, set[Read]] | None = None

    def __call__(self) -> Any:
        """Return the value."""
        self._result = self._result or self._recorder.capture(self._compute)
        value, reads = self._result
        self._recorder.pending |= reads
        return value


def watched(cluster: Cluster, recorder: Recorder) -> Cluster:
    """Return the cluster with `recorder` looking on."""
    return cast("Cluster", _WatchedSection(recorder, cluster, ()))


class _WatchedSection:
    """A section of cluster.yaml at `path`."""

    def __init__(self, recorder: Recorder, section: Section, path: KeyPath) -> None:
        self._recorder = recorder
        self._section = section
        self._path = path
        self._derived: dict[str, Once] = {}

    def __getattr__(self, name: str) -> Any:
        section = self._section
        if field := type(section).model_fields.get(name):
            path = (*self._path, field.alias or name)
            if field.default is None:
                self._recorder.pending.add(Read(path, whole=False))
            return _watch(self._recorder, getattr(section, name), path)
        if isinstance(section, Cluster) and name == "nodes":
            self._recorder.pending.add(Read(("nodes",), whole=False))
            return _WatchedNodes(_WatchedNode(self._recorder, node) for node in section.nodes)
        attribute = getattr_static(type(section), name)  # raises AttributeError, as it should
        if isinstance(attribute, cached_property | property):
            function = attribute.func if isinstance(attribute, cached_property) else attribute.fget
            bound = MethodType(cast("Callable[..., Any]", function), self)
            return self._derived.setdefault(name, Once(self._recorder, bound))()
        return MethodType(attribute, self)


class _WatchedNode:
    """A node of cluster.yaml. Two are the same if the nodes are."""

    def __init__(self, recorder: Recorder, node: Node) -> None:
        self._recorder = recorder
        self._node = node

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._node, name)
        key = "ssh" if name.startswith("ssh_") else name
        self._recorder.pending.add(Read(("nodes", self._node.row, key)))
        if key == "ssh":
            self._recorder.pending.add(Read(("ssh", name.partition("_")[2])))
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WatchedNode) and self._node is other._node

    __hash__ = None  # type: ignore[assignment]


class _WatchedNodes(tuple[_WatchedNode, ...]):
    """The nodes. Their number is that of the names, some of which are ranges."""

    __slots__ = ()

    def __len__(self) -> int:
        for node in self:
            node.name  # noqa: B018 - it counts as read
        return super().__len__()


class _WatchedMapping(Mapping[str, Any]):
    """A mapping of sections."""

    def __init__(self, recorder: Recorder, values: Mapping[str, Section], path: KeyPath) -> None:
        self._recorder = recorder
        self._values = values
        self._path = path

    def __getitem__(self, key: str) -> Any:
        # What a section says may be written in short, as the value of its own key.
        self._recorder.pending.add(Read((*self._path, key), whole=False))
        return _WatchedSection(self._recorder, self._values[key], (*self._path, key))

    def __iter__(self) -> Iterator[str]:
        self._recorder.pending.add(Read(self._path, whole=False))
        return iter(self._values)

    def __len__(self) -> int:
        self._recorder.pending.add(Read(self._path, whole=False))
        return len(self._values)


def _watch(recorder: Recorder, value: Any, path: KeyPath) -> Any:
    """Return a value that was read at `path`: a section goes on watching, anything else is noted as read."""
    if isinstance(value, Section):
        return _WatchedSection(recorder, value, path)
    if isinstance(value, Mapping) and any(isinstance(item, Section) for item in value.values()):
        return _WatchedMapping(recorder, value, path)
    if isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
        recorder.pending.add(Read(path, whole=False))
        return tuple(_watch(recorder, item, (*path, index)) for index, item in enumerate(value))
    recorder.pending.add(Read(path))
    return value
