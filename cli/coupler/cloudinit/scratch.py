"""A folder as a node: nothing runs, and what systemd and the helper programs would leave behind is worked out.

A root with a `/usr/lib/systemd/system` or `/lib/systemd/system` has the units that are in there; one without is taken
to have every unit that is well named. Scripts are stored, not run. What cannot be known without running something (does
a service start?) is answered with 'done', unless the unit is certain to fail.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from coupler.cloudinit.accounts import Accounts
from coupler.cloudinit.golang import join_path, to_text
from coupler.cloudinit.node import Files, NodeError, Outcome
from coupler.cloudinit.unitfile import (
    Setting,
    is_certain_to_fail,
    is_unit_name,
    load_problem,
    settings_of,
    stays_active,
    values_of,
    words_of,
)

if TYPE_CHECKING:
    from pathlib import Path

_SHIPPED = ("/usr/local/lib/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
_CONFIGURED = ("/etc/systemd/system", "/run/systemd/system")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]+(?<!-)")
_MAX_HOSTNAME = 64


class ScratchRoot:
    """A root file system in a folder; `calls` are the helper programs that would have run, in order."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.files = Files(root.resolve(), durable=False, read_only=("/usr",))
        self.accounts = Accounts(self.files)
        self.calls: list[dict[str, object]] = []
        self._hostname: str | None = None
        self._active: set[str] = set()
        self._knows_units = any(self.files.real(folder).is_dir() for folder in _SHIPPED)

    def hostname(self) -> str:
        """Return the name that was set, else that of /etc/hostname, else this machine's."""
        if self._hostname is None:
            try:
                self._hostname = to_text(self.files.read("/etc/hostname")).strip()
            except FileNotFoundError:
                self._hostname = os.uname().nodename
        return self._hostname

    def has_user(self, name: str) -> bool:
        """Return whether there is a user of that name."""
        return self.accounts.user(name) is not None

    def call(self, argv: list[str], stdin: str = "") -> Outcome:
        """Note the call of a helper program and do what it would do to the files."""
        self.calls.append({"argv": argv, "stdin": stdin} if stdin else {"argv": argv})
        match argv:
            case ["hostnamectl", "set-hostname", name]:
                return self._set_hostname(name)
            case ["useradd", *arguments]:
                return self.accounts.useradd(arguments)
            case ["chpasswd", "-e"]:
                return self.accounts.chpasswd(stdin)
            case ["chown", owner, path]:
                return self.accounts.chown(owner, path)
        return Outcome(0)

    def _set_hostname(self, name: str) -> Outcome:
        """Set the host's name as hostnamectl does: a name that is none becomes the pretty one and is cleaned."""
        if name.startswith("-"):
            return Outcome(1, f"hostnamectl: invalid option -- '{name[1:2]}'")
        valid = len(name) <= _MAX_HOSTNAME and all(_HOST_LABEL.fullmatch(label) for label in name.split("."))
        static = name if valid else _clean_hostname(name)
        self._hostname = static
        if static:
            self._write("/etc/hostname", f"{static}\n")
        if not valid:
            escaped = re.sub(r'(["\\$`])', r"\\\1", name)
            self._write("/etc/machine-info", f'PRETTY_HOSTNAME="{escaped}"\n')
        return Outcome(0)

    def _write(self, path: str, text: str) -> None:
        self.files.make_directory(path.rpartition("/")[0])
        temporary = self.files.temporary(path.rpartition("/")[0], ".new-")
        self.files.fill(temporary, text.encode("utf-8", "surrogateescape"), 0o644)
        self.files.rename(temporary, path)

    def fetch(self, url: str) -> bytes:
        """Refuse: a scratch root has no network."""
        raise NodeError(f"unable to fetch {url}: a scratch root has no network")

    def enable(self, unit: str, *, runtime: bool) -> None:
        """Make the links of a unit's [Install] section."""
        self._enable(unit, runtime=runtime, seen=set())

    def _enable(self, unit: str, *, runtime: bool, seen: set[str]) -> None:
        if not is_unit_name(unit):
            raise NodeError(f"File {unit}: Invalid argument")
        seen.add(unit)
        source = self._find(unit)
        if source is None:
            if self._knows_units:
                raise NodeError(f"Unit file {unit} does not exist.")
            return
        if self._is_masked(source):
            raise NodeError(f"Unit file {source} is masked.")
        settings = self._settings(source)
        self._install(unit, source, settings, _CONFIGURED[1] if runtime else _CONFIGURED[0])
        for other in words_of(settings, "Install", "Also"):
            if other not in seen:
                self._enable(other, runtime=runtime, seen=seen)

    def _install(self, unit: str, source: str, settings: list[Setting], base: str) -> None:
        default = words_of(settings, "Install", "DefaultInstance")
        instance = unit.replace("@.", f"@{default[-1]}.") if default else unit
        for kind, folder in (("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")):
            for target in words_of(settings, "Install", kind):
                if "@." in instance and "@." not in target:
                    raise NodeError(f"Destination unit {target} is a non-template unit.")
                self.files.link(source, join_path(base, f"{target}.{folder}", instance), force=True)
        for alias in words_of(settings, "Install", "Alias"):
            self.files.link(source, join_path(base, alias), force=True)

    def daemon_reload(self) -> None:
        """Do nothing: no systemd runs here."""

    def job(self, command: str, unit: str) -> str:
        """Return how a unit command would end, as far as the unit's own text tells."""
        if not is_unit_name(unit):
            raise NodeError(f"Unit name {unit} is not valid.")
        if "@." in unit:
            raise NodeError(f"Unit name {unit} is missing the instance name.")
        source = self._find(unit)
        if source is None:
            if self._knows_units and not unit.startswith("systemd-"):
                raise NodeError(f"Unit {unit} not {'loaded' if command == 'stop' else 'found'}.")
            return "done"
        if command == "stop":
            self._active.discard(unit)
            return "done"
        if self._is_masked(source):
            raise NodeError(f"Unit {unit} is masked.")
        settings = self._settings(source)
        if load_problem(unit, settings) is not None:
            raise NodeError(f"Unit {unit} has a bad unit file setting.")
        return self._reload(unit, settings) if command == "reload" else self._start(command, unit, settings)

    def _reload(self, unit: str, settings: list[Setting]) -> str:
        if not values_of(settings, "Service", "ExecReload"):
            raise NodeError(f"Job type reload is not applicable for unit {unit}.")
        return "done" if unit in self._active else "invalid"

    def _start(self, command: str, unit: str, settings: list[Setting]) -> str:
        if "try" in command and unit not in self._active:
            return "done"
        if is_certain_to_fail(settings):
            return "failed"
        if unit.endswith(".mount"):
            self._mount(values_of(settings, "Mount", "Where")[-1], values_of(settings, "Mount", "Type")[-1:])
        if stays_active(unit, settings):
            self._active.add(unit)
        return "done"

    def _mount(self, where: str, kind: list[str]) -> None:
        """Make a mount point; an empty file system in memory belongs to everybody."""
        self.files.make_directory(where)
        if kind == ["tmpfs"]:
            self.files.real(where).chmod(0o1777)

    def transient(self, unit: str, description: str, argv: list[str]) -> None:  # noqa: ARG002 - nothing runs here
        """Leave what systemd leaves for any transient unit; the script itself is not run."""
        self.files.make_directory("/run/systemd/transient")

    def _find(self, unit: str) -> str | None:
        """Return the path of a unit's file, that of its template for an instance."""
        name, at, _ = unit.partition("@")
        template = f"{name}@.{unit.rpartition('.')[2]}" if at else unit
        paths = (join_path(folder, name) for name in (unit, template) for folder in (*_CONFIGURED, *_SHIPPED))
        return next((path for path in paths if self.files.is_link_or_file(path)), None)

    def _is_masked(self, path: str) -> bool:
        return self.files.exists(path) and self.files.is_null_or_empty(path)

    def _settings(self, path: str) -> list[Setting]:
        try:
            return settings_of(to_text(self.files.read(path)))
        except FileNotFoundError:
            return []


def _clean_hostname(name: str) -> str:
    """Return the letters, digits, inner hyphens and dots of a name."""
    kept = re.sub(r"[^A-Za-z0-9.-]", "", name)
    return re.sub(r"-*\.[.-]*", ".", kept).strip(".-")[:_MAX_HOSTNAME]
