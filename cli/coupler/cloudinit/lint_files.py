"""Rules about files: their modes, who writes them, and paths that cannot be written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import clean_path, join_path, to_bytes
from coupler.cloudinit.grammar import Lineage
from coupler.cloudinit.node import MAX_NAME, MAX_PATH
from coupler.cloudinit.parse import NodeKind
from coupler.cloudinit.plan import UPDATE_CONF, is_network_unit
from coupler.errors import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.parse import Node
    from coupler.cloudinit.subject import Subject
    from coupler.errors import Finding

_MODE = re.compile(r"0?[0-7]{3,4}")
_OCTAL_PREFIX = re.compile(r"0[oO]([0-7]{3,4})")
_MAX_PLAIN_MODE = 0o777
_DECIMAL_MODES = {
    str(mode): f"0{mode:03o}" for mode in (0o400, 0o440, 0o444, 0o600, 0o640, 0o644, 0o664, 0o700, 0o750, 0o755, 0o775)
}
"""Usual modes by what they are in decimal, as other formats and programs write them."""

_FOLDERS = frozenset(
    f"/{name}"
    for name in (
        *("bin", "boot", "dev", "etc", "home", "lib", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv"),
        *("sys", "tmp", "usr", "var", "var/lib", "var/log", "home/core", "run/systemd", "run/systemd/system"),
        *("etc/systemd", "etc/systemd/network", "etc/systemd/system"),
    )
)
"""Folders that every node has."""

_NULLS = ("", "~", "null", "Null", "NULL")
_GENERATED = {
    ("coreos", "oem"): "/etc/oem-release",
    ("coreos", "update"): UPDATE_CONF,
    ("manage_etc_hosts",): "/etc/hosts",
    ("coreos", "flannel"): "/run/flannel/options.env",
    ("coreos", "etcd"): "/run/systemd/system/etcd.service.d/20-cloudinit.conf",
    ("coreos", "etcd2"): "/run/systemd/system/etcd2.service.d/20-cloudinit.conf",
    ("coreos", "fleet"): "/run/systemd/system/fleet.service.d/20-cloudinit.conf",
    ("coreos", "locksmith"): "/run/systemd/system/locksmithd.service.d/20-cloudinit.conf",
}


def _permissions(subject: Subject) -> Iterator[Finding]:
    for file in subject.outline.items("write_files"):
        mode = subject.outline.at(file, "permissions")
        if mode.kind is not NodeKind.SCALAR or mode.tag:
            continue
        if match := _OCTAL_PREFIX.fullmatch(mode.value):
            meant = match[1].rjust(4, "0")
            message = f"{mode.value} is no mode to coreos-cloudinit: it ends its run at this file"
            fix = subject.quoted(mode, meant)
            yield subject.finding("octal-prefix", Severity.ERROR, message, mode, f'write "{meant}"', fix)
        elif mode.plain and mode.value in _DECIMAL_MODES:
            meant = _DECIMAL_MODES[mode.value]
            message = f"{mode.value} is {meant} in decimal; here its digits are taken for an octal mode"
            yield subject.finding("decimal-permissions", Severity.ERROR, message, mode, f'write "{meant}"')
        elif mode.plain and _MODE.fullmatch(mode.value):
            message = f"permissions: {mode.value} is an integer to YAML; its digits are taken for the octal mode"
            meant = mode.value.rjust(4, "0")
            fix = subject.quoted(mode, meant)
            yield subject.finding("unquoted-permissions", Severity.WARNING, message, mode, f'write "{meant}"', fix)
        if _MODE.fullmatch(mode.value) and int(mode.value, 8) > _MAX_PLAIN_MODE:
            message = f"the file gets mode {int(mode.value, 8) & _MAX_PLAIN_MODE:04o}: special bits are lost in silence"
            yield subject.finding("special-bits", Severity.ERROR, message, mode, "set them with chmod in a unit")


def _paths(subject: Subject) -> Iterator[Finding]:
    writers: dict[str, str] = {}
    parents: dict[str, str] = {}
    for path, writer, node in written(subject):
        folders = list(_folders_of(path))
        inside = next((folder for folder in folders if folder in writers), None)
        if path in ("/", "."):
            message = "a file without a path ends the run"
            yield subject.finding("path-missing", Severity.ERROR, message, node, "give it a path")
        elif path in _FOLDERS or path in parents or inside is not None:
            folder = path if inside is None else inside
            message = f"{folder} would have to be a file and a folder, and the run ends there"
            yield subject.finding("path-folder", Severity.ERROR, message, node, "give the file another path")
        elif not _is_possible(path):
            message = "no file system takes this path: a name in it is longer than 255 bytes, or holds a NUL"
            yield subject.finding("path-folder", Severity.ERROR, message, node, "give the file another path")
        elif path in writers:
            message = f"{path} is written by {writers[path]} and again by {writer}, which wins"
            yield subject.finding("path-conflict", Severity.WARNING, message, node, "let one of them write it")
        else:
            writers[path] = writer
            parents |= dict.fromkeys(folders, path)


def _folders_of(path: str) -> Iterator[str]:
    while (path := path.rpartition("/")[0]) and path != "/":
        yield path


def _is_possible(path: str) -> bool:
    if "\0" in path or len(to_bytes(path)) >= MAX_PATH:
        return False
    return all(len(to_bytes(name)) <= MAX_NAME for name in path.split("/"))


def _listed(subject: Subject) -> Iterator[tuple[str, str, Node]]:
    outline = subject.outline
    files = outline.at(outline.root, "write_files")
    for child in files.children if files.kind is NodeKind.SEQUENCE else []:
        file = outline.follow(child)
        if file.kind is NodeKind.SCALAR and subject.lineage is Lineage.COREOS and file.value in _NULLS:
            yield "/", "write_files", child  # an item without a value is a file with all its fields empty
        node = outline.at(file, "path")
        if file.kind is not NodeKind.MAPPING or node.kind is not NodeKind.SCALAR:
            continue
        yield join_path("/", node.value), "write_files", node if node.line else file


def written(subject: Subject) -> Iterator[tuple[str, str, Node]]:
    """Yield (path, who writes it, the place that says so) in the order of writing."""
    outline = subject.outline
    yield from _listed(subject)
    for keys, path in _GENERATED.items():
        node = outline.at(outline.root, *keys)
        if node.children or (node.kind is NodeKind.SCALAR and node.value):
            yield path, ".".join(keys), node
    for unit in outline.items("coreos", "units"):
        name, node = subject.value(unit, "name"), outline.at(unit, "name")
        if not name:
            continue
        folder = clean_path(f"/{'run' if subject.truth(unit, 'runtime') else 'etc'}/systemd/")
        folder += "/network" if is_network_unit(name) else "/system"
        if subject.value(unit, "content"):
            yield join_path(folder, name), f"the unit {name}", node
        for drop_in in outline.at(unit, "drop_ins").children:
            item = outline.follow(drop_in)
            if subject.value(item, "name") and subject.value(item, "content"):
                yield join_path(folder, f"{name}.d", subject.value(item, "name")), f"a drop-in of {name}", item


RULES = (_permissions, _paths)
