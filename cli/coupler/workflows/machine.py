"""What a document becomes on a machine: files, units, and the operations in the order of the machine's lineage."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from coupler.cloudinit import operations as ops
from coupler.cloudinit.golang import join_path
from coupler.cloudinit.node import parse_mode
from coupler.cloudinit.plan import UPDATE_CONF, plan_document
from coupler.cloudinit.session import read_config
from coupler.cloudinit.substitute import substitute
from coupler.result import count
from coupler.workflows.conditions import Condition, conditions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from coupler.cloudinit.grammar import Lineage
    from coupler.render.provenance import EntryPath

_SERVICE_SECTIONS = {"etcd": "etcd", "etcd2": "etcd2", "fleet": "fleet", "locksmithd": "locksmith"}
"""The section of `coreos` that becomes the generated drop-in of a service."""

_GENERATED: Mapping[str, EntryPath] = {
    "run/flannel/options.env": ("coreos", "flannel"),
    "etc/oem-release": ("coreos", "oem"),
}
"""Files that sections become; only these have paths without a slash in front (see `plan`)."""


class Kind(StrEnum):
    """What a file is for."""

    FILE = "file"
    UNIT = "unit"
    DROP_IN = "drop-in"


@dataclass(frozen=True)
class File:
    """A file as the document leaves it. `owner` is an argument of chown, empty for root.

    Of one that is `merged`, the document sets only these lines; the rest is the machine's. `entries` are the parts of
    the document that it comes from.
    """

    path: str
    content: str
    mode: int
    owner: str
    kind: Kind
    entries: tuple[EntryPath, ...]
    merged: bool = False


@dataclass(frozen=True)
class Unit:
    """A unit that the document has to do with: its files, and what is done to it."""

    name: str
    files: tuple[File, ...]
    enabled: bool
    masked: bool
    commands: tuple[str, ...]
    entries: tuple[EntryPath, ...]

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions in its files, drop-ins in the order in which systemd reads them."""
        own = [file for file in self.files if file.kind is Kind.UNIT]
        drop_ins = sorted(
            (file for file in self.files if file.kind is Kind.DROP_IN), key=lambda file: file.path.rpartition("/")[2]
        )
        return conditions_of(file.content for file in (*own, *drop_ins))

    @property
    def is_ours(self) -> bool:
        """Whether the document has the unit itself, not only something about it."""
        return any(file.kind is Kind.UNIT for file in self.files)


@dataclass(frozen=True)
class Step:
    """One operation in words: what is done, and to what."""

    does: str
    to: str


@dataclass(frozen=True)
class Machine:
    """What a document becomes: files by path, units by name in the document's order, operations in their order."""

    files: Mapping[str, File]
    units: Mapping[str, Unit]
    steps: tuple[Step, ...]


def machine(
    document: str, lineage: Lineage, values: Mapping[str, str] | None = None, hostname: str = "localhost"
) -> Machine:
    """Return what a document becomes on a machine.

    `values` are the address variables that the machine knows; without them the document's variables stay as they are.

    Raises:
        UnreadableError: no machine of this lineage would take the document.
    """
    config = read_config(document if values is None else substitute(document, values), lineage)
    plan = plan_document(config, lineage, {})
    building = _Building(config["hostname"] or hostname)
    for operation in plan:
        _apply(operation, building)
    units = {name: unit.finished(name, building.files) for name, unit in building.units.items() if unit.matters}
    return Machine(building.files, units, tuple(_steps(plan)))


@dataclass
class _UnitBuilding:
    paths: dict[str, None] = field(default_factory=dict)
    enabled: bool = False
    masked: bool = False
    commands: list[str] = field(default_factory=list)

    @property
    def matters(self) -> bool:
        """Whether more is done than to take away a mask that is not there."""
        return bool(self.paths or self.enabled or self.masked or self.commands)

    def finished(self, name: str, files: Mapping[str, File]) -> Unit:
        """Return the unit."""
        own = tuple(files[path] for path in self.paths if path in files)
        entries = [("coreos", "units", name), *(entry for file in own for entry in file.entries)]
        if name == "locksmithd.service" and self.commands:
            entries.append(("coreos", "update", "reboot_strategy"))
        if name == "update-engine.service":
            entries += [("coreos", "update", "group"), ("coreos", "update", "server")]
        commands = tuple(self.commands)
        return Unit(name, own, self.enabled, self.masked, commands, tuple(dict.fromkeys(entries)))


@dataclass
class _Building:
    hostname: str
    files: dict[str, File] = field(default_factory=dict)
    units: dict[str, _UnitBuilding] = field(default_factory=dict)

    def unit(self, name: str) -> _UnitBuilding:
        """Return the unit, which may be new."""
        return self.units.setdefault(name, _UnitBuilding())

    def write(self, file: File) -> None:
        """Write a file; the last one wins."""
        self.files.pop(file.path, None)
        self.files[file.path] = file


@singledispatch
def _apply(operation: ops.Operation, on: _Building) -> None:
    """Do to `on` what an operation does to files and units; most do nothing."""


@_apply.register
def _(operation: ops.WriteFile, on: _Building) -> None:
    path = join_path("/", operation.path)
    entry = _GENERATED.get(operation.path, ("write_files", operation.path))
    on.write(File(path, operation.content, parse_mode(operation.permissions), operation.owner, Kind.FILE, (entry,)))


@_apply.register
def _(operation: ops.WriteUpdateConf, on: _Building) -> None:
    content = "".join(f"{name}={value}\n" for name, value in sorted(operation.values))
    on.write(File(UPDATE_CONF, content, 0o644, "", Kind.FILE, (("coreos", "update"),), merged=True))


@_apply.register
def _(_operation: ops.WriteHosts, on: _Building) -> None:
    content = f"127.0.0.1 {on.hostname}\n"
    on.write(File("/etc/hosts", content, 0o644, "", Kind.FILE, (("manage_etc_hosts",),)))


@_apply.register
def _(operation: ops.WriteUnit, on: _Building) -> None:
    entry = ("coreos", "units", operation.name)
    on.write(File(operation.path, operation.content, 0o644, "", Kind.UNIT, (entry,)))
    on.unit(operation.name).paths[operation.path] = None


@_apply.register
def _(operation: ops.WriteDropIn, on: _Building) -> None:
    folder = operation.path.rpartition("/")[0]
    unit = folder.rpartition("/")[2].removesuffix(".d")
    section = _SERVICE_SECTIONS.get(unit.removesuffix(".service"))
    generated = section and folder.startswith("/run/") and operation.name == "20-cloudinit.conf"
    entry: EntryPath = ("coreos", str(section)) if generated else ("coreos", "units", unit)
    on.write(File(operation.path, operation.content, 0o644, "", Kind.DROP_IN, (entry,)))
    on.unit(unit).paths[operation.path] = None


@_apply.register
def _(operation: ops.MaskUnit, on: _Building) -> None:
    on.files.pop(operation.path, None)
    on.unit(operation.name).masked = True


@_apply.register
def _(operation: ops.UnmaskUnit, on: _Building) -> None:
    on.unit(operation.name)


@_apply.register
def _(operation: ops.EnableUnit, on: _Building) -> None:
    on.unit(operation.name).enabled = True


@_apply.register
def _(operation: ops.RunCommand, on: _Building) -> None:
    on.unit(operation.unit).commands.append(operation.command)


_WORDS: Mapping[type, Callable[[Any], Step]] = {
    ops.SetHostname: lambda do: Step("set the host name", do.name),
    ops.EnsureUser: lambda do: Step("make the user", do.name),
    ops.AuthorizeKeys: lambda do: Step(f"authorize {count(len(do.keys), 'SSH key')} of", do.user),
    ops.ImportKeys: lambda do: Step("authorize the SSH keys of", f"{do.user} from {do.url}"),
    ops.WriteFile: lambda do: Step("write", join_path("/", do.path)),
    ops.WriteUpdateConf: lambda _: Step("merge into", UPDATE_CONF),
    ops.WriteHosts: lambda _: Step("write", "/etc/hosts"),
    ops.WriteUnit: lambda do: Step("write", do.name),
    ops.WriteDropIn: lambda do: Step("write", "/".join(do.path.split("/")[-2:])),
    ops.MaskUnit: lambda do: Step("mask", do.name),
    ops.UnmaskUnit: lambda do: Step("unmask in /run", do.name),
    ops.EnableUnit: lambda do: Step("enable", do.name),
    ops.DaemonReload: lambda _: Step("reload", "systemd"),
    ops.RestartNetworkd: lambda _: Step("restart", "systemd-networkd.service"),
    ops.RunCommand: lambda do: Step(do.command, do.unit),
    ops.Fail: lambda do: Step("stop with an error", do.message),
}
"""Operations in words; what is not here a person need not know."""


def _steps(plan: Iterable[ops.Operation]) -> Iterator[Step]:
    for operation in plan:
        if words := _WORDS.get(type(operation)):
            yield words(operation)
