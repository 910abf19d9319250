"""Operations carried out on a node, one after another; the first that fails ends them.

`Applier` keeps the three records that the real programs leave: their log, the unit operations and the helper calls in
order. With `faithful` it does harm where the real program does (a temporary file stays behind when a write fails).
"""

from __future__ import annotations

import json
import re
from functools import singledispatchmethod
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import directory_of, join_path, quote, to_bytes, to_text
from coupler.cloudinit.node import Node, NodeError, Outcome, parse_mode
from coupler.cloudinit.operations import (
    AuthorizeKeys,
    DaemonReload,
    EnableUnit,
    EnsureUser,
    Fail,
    ImportKeys,
    MaskUnit,
    Operation,
    ReadUpdateConf,
    RestartNetworkd,
    RunCommand,
    RunScript,
    SetHostname,
    Skip,
    UnmaskUnit,
    UpdateEnvironment,
    WriteDropIn,
    WriteFile,
    WriteHosts,
    WriteUnit,
    WriteUpdateConf,
)
from coupler.cloudinit.plan import ENVIRONMENT_FILE, SHIPPED_UPDATE_CONF, UPDATE_CONF, key_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COMMANDS = ("start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "reload-or-try-restart")
_ENVIRONMENT_LINE = re.compile(r"^((?:([a-zA-Z0-9_]+)=)?.*?)\r?\n", re.MULTILINE)
_TRANSIENT = "Unit generated and executed by coreos-cloudinit on behalf of user"


class Applier:
    """Carries out operations on `node`; `log` takes each line of the log."""

    def __init__(self, node: Node, log: Callable[[str], None], workspace: str, *, faithful: bool) -> None:
        self.node = node
        self.log = log
        self.workspace = join_path("/", workspace)
        self.faithful = faithful
        self.units: list[str] = []
        self._update_conf = ""

    def run(self, operations: Iterable[Operation]) -> None:
        """Carry out the operations in order. Raises NodeError at the first that fails."""
        for operation in operations:
            self.do(operation)

    @singledispatchmethod
    def do(self, operation: Operation) -> None:
        """Carry out one operation. Raises NodeError."""
        raise TypeError(f"unknown operation {operation!r}")

    @do.register
    def _(self, operation: Fail) -> None:
        raise NodeError(operation.message)

    @do.register
    def _(self, operation: Skip) -> None:
        self.log(operation.log)
        if operation.word:
            self.units.append(operation.word)

    @do.register
    def _(self, operation: SetHostname) -> None:
        _demand(self.node.call(["hostnamectl", "set-hostname", operation.name]))
        self.log(f"Set hostname to {operation.name}")

    @do.register
    def _(self, operation: EnsureUser) -> None:
        name = operation.name
        if not self.node.has_user(name):
            self.log(f"Creating user '{name}'")
            outcome = self.node.call(["useradd", *operation.useradd])
            if outcome.exit_code:
                failure = f"exit status {outcome.exit_code}"
                self.log(
                    f"Command 'useradd {' '.join(operation.useradd)}' failed: {failure}\n{outcome.output}".rstrip()
                )
                self.log(f"Failed creating user '{name}': {failure}")
                raise NodeError(failure)
            return
        self.log(f"User '{name}' exists, ignoring creation-time fields")
        if operation.password:
            self.log(f"Setting '{name}' user's password")
            outcome = self.node.call(["chpasswd", "-e"], f"{name}:{operation.password}")
            if outcome.exit_code:
                self.log(f"Failed setting '{name}' user's password: exit status {outcome.exit_code}")
            _demand(outcome)

    @do.register
    def _(self, operation: AuthorizeKeys) -> None:
        self._authorize(operation.user, operation.label, operation.keys)

    def _authorize(self, user: str, label: str, keys: Iterable[str]) -> None:
        outcome = self.node.call(["update-ssh-keys", "-u", user, "-a", label], key_lines(keys))
        if outcome.exit_code:
            raise NodeError(f"Call to update-ssh-keys failed with exit status {outcome.exit_code}: {outcome.output}")

    @do.register
    def _(self, operation: ImportKeys) -> None:
        try:
            keys = [entry["key"] for entry in json.loads(self.node.fetch(operation.url))]
        except (ValueError, TypeError, KeyError) as error:
            raise NodeError(f"{operation.url} holds no list of SSH keys") from error
        self._authorize(operation.user, operation.label, keys)

    @do.register
    def _(self, operation: WriteFile) -> None:
        self._write_logged(operation.path, operation.content, operation.permissions, operation.owner)

    @do.register
    def _(self, _operation: ReadUpdateConf) -> None:
        for path in (UPDATE_CONF, SHIPPED_UPDATE_CONF):
            try:
                self._update_conf = to_text(self.node.files.read(path))
            except FileNotFoundError:
                continue
            return
        raise NodeError(f"open {SHIPPED_UPDATE_CONF}: no such file or directory")

    @do.register
    def _(self, operation: WriteUpdateConf) -> None:
        self._write_logged(UPDATE_CONF, merge_update_conf(self._update_conf, dict(operation.values)))

    @do.register
    def _(self, _operation: WriteHosts) -> None:
        self._write_logged("/etc/hosts", f"127.0.0.1 {self.node.hostname()}\n")

    @do.register
    def _(self, operation: UpdateEnvironment) -> None:
        try:
            old = to_text(self.node.files.read(ENVIRONMENT_FILE))
        except FileNotFoundError:
            old = ""
        new = merge_environment(old, dict(operation.values))
        if new != old:
            self._write(ENVIRONMENT_FILE, new)
        self.log(f"Updated {ENVIRONMENT_FILE}")

    @do.register
    def _(self, operation: WriteUnit) -> None:
        self.units.append(f"write {operation.name}")
        self.log(f"Writing unit {quote(operation.name)} to filesystem")
        self._write(operation.path, operation.content)
        self.log(f"Wrote unit {quote(operation.name)}")

    @do.register
    def _(self, operation: WriteDropIn) -> None:
        self.units.append(f"drop-in {operation.path}")
        self.log(f"Writing drop-in unit {quote(operation.name)} to filesystem")
        self._write(operation.path, operation.content)
        self.log(f"Wrote drop-in unit {quote(operation.name)}")

    @do.register
    def _(self, operation: MaskUnit) -> None:
        self.units.append(f"mask {operation.name}")
        self.log(f"Masking unit file {quote(operation.name)}")
        if self.node.files.exists(operation.path):
            self.node.files.remove(operation.path)
        self.node.files.link("/dev/null", operation.path)

    @do.register
    def _(self, operation: UnmaskUnit) -> None:
        self.units.append(f"unmask-runtime {operation.name}")
        self.log(f"Ensuring runtime unit file {quote(operation.name)} is unmasked")
        if not self.node.files.exists(operation.path):
            return
        if self.node.files.is_null_or_empty(operation.path):
            self.node.files.remove(operation.path)
        else:
            self.log(f"{operation.path} is not null or empty, refusing to unmask")

    @do.register
    def _(self, operation: EnableUnit) -> None:
        self.units.append(f"enable {operation.name}")
        self.log(f"Enabling unit file {quote(operation.name)}")
        self.node.enable(operation.name, runtime=operation.runtime)
        self.log(f"Enabled unit {quote(operation.name)}")

    @do.register
    def _(self, _operation: DaemonReload) -> None:
        self.units.append("daemon-reload")
        try:
            self.node.daemon_reload()
        except NodeError as error:
            raise NodeError(f"failed systemd daemon-reload: {error}") from error

    @do.register
    def _(self, _operation: RestartNetworkd) -> None:
        self.units.append("restart systemd-networkd.service")
        self.log("Restarting systemd-networkd")
        result = self.node.job("restart", "systemd-networkd.service")
        self.log(f"Restarted systemd-networkd ({result})")

    @do.register
    def _(self, operation: RunCommand) -> None:
        unit, command = operation.unit, operation.command
        self.units.append(f"{command} {unit}")
        self.log(f"Calling unit command {quote(command)} on {quote(unit)}")
        if command not in COMMANDS:
            raise NodeError(f"Unsupported systemd command {quote(command)}")
        result = self.node.job(command, unit)
        self.units[-1] += f" -> {result}"
        self.log(f"Result of {quote(command)} on {quote(unit)}: {result}")

    @do.register
    def _(self, operation: RunScript) -> None:
        scripts = join_path(self.workspace, "scripts")
        self.node.files.make_directory(self.workspace)
        self.node.files.make_directory(scripts)
        path = self.node.files.temporary(scripts, "")
        self._write(path, operation.content, "0744")
        name = f"coreos-cloudinit-{path.rpartition('/')[2]}.service"
        self.units.append(f"transient {name}")
        self.log(f"Creating transient systemd unit '{name}'")
        try:
            self.node.transient(name, _TRANSIENT, ["/bin/bash", path])
        finally:
            self._write(join_path(scripts, "unit-name"), name)

    def _write_logged(self, path: str, content: str, permissions: str = "0644", owner: str = "") -> None:
        self.log(f"Wrote file {self._write(path, content, permissions, owner)} to filesystem")

    def _write(self, path: str, content: str, permissions: str = "0644", owner: str = "") -> str:
        """Write a file by way of a temporary one beside it, so that it is never half there; return its full path."""
        files = self.node.files
        path = join_path("/", path)
        folder = directory_of(path)
        self.log(f"Writing file to {quote(path)}")
        files.make_directory(folder)
        mode = parse_mode(permissions)
        temporary = files.temporary(folder, "cloudinit-temp")
        try:
            files.fill(temporary, to_bytes(content), mode)
            if owner:
                _demand(self.node.call(["chown", owner, temporary]))
            files.rename(temporary, path)
        except NodeError:
            if not self.faithful:
                files.remove(temporary)
            raise
        self.log(f"Wrote file to {quote(path)}")
        return path


def _demand(outcome: Outcome) -> None:
    if outcome.exit_code:
        raise NodeError(f"exit status {outcome.exit_code}")


def merge_update_conf(old: str, values: dict[str, str]) -> str:
    """Return update.conf with the values set: each replaces the first line that begins with its name, or is added."""
    pending = dict(values)
    lines = []
    for line in old.removesuffix("\n").split("\n") if old else ():
        name = next((name for name in pending if line.startswith(name)), None)
        lines.append(line.removesuffix("\r") if name is None else f"{name}={pending.pop(name)}")
    return "".join(f"{line}\n" for line in [*lines, *(f"{name}={pending[name]}" for name in sorted(pending))])


def merge_environment(old: str, values: dict[str, str]) -> str:
    """Return an environment file with the values set, its other lines as they are but for their DOS line ends."""
    pending = dict(values)
    if old and not old.endswith("\n"):
        old += "\n"
    lines = [
        f"{match[2]}={pending.pop(match[2])}" if match[2] in pending else match[1]
        for match in _ENVIRONMENT_LINE.finditer(old)
    ]
    return "".join(f"{line}\n" for line in [*lines, *(f"{name}={pending[name]}" for name in sorted(pending))])
