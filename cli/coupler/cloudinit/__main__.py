"""`coreos-cloudinit`, as a program: the flags of the real one, and three of our own.

`--as coreos|flatcar` chooses the lineage and then does everything as it does, harm included. `--root DIR` applies into
a scratch root instead of this machine, and `--operations FILE` writes there, as JSON, the exit code, the log, the unit
operations and the helper calls.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.cloudinit.apply import Applier
    from coupler.cloudinit.node import Node
    from coupler.cloudinit.sources import Source

VERSION = "flatcar-8df59e8+coupler"
"""The program whose behaviour this is, and that it is not that program."""

_USAGE = 2
_SWITCHES = frozenset(("version", "validate", "ignore-failure", "from-proc-cmdline", "help"))
_OPTIONS = frozenset(
    ("from-file", "from-url", "from-configdrive", "workspace", "ssh-key-name", "oem", "as", "root", "operations")
)
_FOREIGN = frozenset(
    (
        "convert-netconf",
        "from-waagent",
        "from-metadata-service",
        "from-ec2-metadata",
        "from-gce-metadata",
        "from-cloudsigma-metadata",
        "from-digitalocean-metadata",
        "from-vmware-guestinfo",
        "from-vmware-ovf-env",
    )
)


class _UsageError(Exception):
    pass


@dataclass
class _Arguments:
    """The command line: one or two dashes, `--name=value` or `--name value`, as Go's flag package reads it."""

    values: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, words: list[str]) -> _Arguments:
        arguments = cls()
        queue = list(words)
        while queue and queue[0].startswith("-") and queue[0] not in ("-", "--"):
            word = queue.pop(0)
            name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
            if name in _FOREIGN:
                raise _UsageError(f"-{name} is for a machine in a cloud; this program has no such source")
            if name in _SWITCHES:
                if not equals or value in ("1", "t", "T", "TRUE", "true", "True"):
                    arguments.switches.add(name)
            elif name not in _OPTIONS:
                raise _UsageError(f"flag provided but not defined: -{name}")
            elif equals or queue:
                arguments.values[name] = value if equals else queue.pop(0)
            else:
                raise _UsageError(f"flag needs an argument: -{name}")
        return arguments


def main(words: list[str] | None = None) -> int:
    """Run the program; return its exit code."""
    try:
        arguments = _Arguments.parse(sys.argv[1:] if words is None else words)
        if "help" in arguments.switches:
            print(__doc__)
            return 0
        if "version" in arguments.switches:
            print(f"coreos-cloudinit {VERSION}")
            return 0
        return _run(arguments)
    except _UsageError as error:
        print(error, file=sys.stderr)
        return _USAGE


def _run(arguments: _Arguments) -> int:
    from coupler.cloudinit.grammar import Lineage
    from coupler.cloudinit.node import NodeError
    from coupler.cloudinit.session import Session
    from coupler.cloudinit.substitute import addresses

    try:
        lineage = Lineage(arguments.values.get("as", "flatcar"))
    except ValueError as error:
        raise _UsageError(f"-as is coreos or flatcar, not {arguments.values['as']}") from error
    record = _Record()
    applier = _applier(arguments, record.log)
    session = Session(
        applier,
        lineage,
        addresses(os.environ),
        arguments.values.get("ssh-key-name", "coreos-cloudinit"),
        record.say,
        ignore_failure="ignore-failure" in arguments.switches,
    )
    source = _source(arguments, record.log)
    if source is None:
        record.log("No datasources available in time")
        return 1
    os.umask(0o022)
    try:
        exit_code = session.check(source) if "validate" in arguments.switches else session.apply(source)
    except NodeError as error:
        record.log(f"Failed fetching meta-data from datasource: {error}")
        exit_code = 1
    if "operations" in arguments.values:
        _write_operations(arguments.values["operations"], applier, exit_code, record)
    return exit_code


@dataclass
class _Record:
    """What the program prints, as it prints it: the log with the time before each message, the rest as it is."""

    lines: list[str] = field(default_factory=list)
    output: str = ""

    def log(self, text: str) -> None:
        self.lines += text.split("\n")
        print(f"{time.strftime('%Y/%m/%d %H:%M:%S')} {_printable(text)}", file=sys.stderr)

    def say(self, text: str) -> None:
        self.output += text
        print(_printable(text), end="")


def _applier(arguments: _Arguments, log: Callable[[str], None]) -> Applier:
    from coupler.cloudinit.apply import Applier

    workspace = arguments.values.get("workspace", "/var/lib/coreos-cloudinit")
    return Applier(_node(arguments), log, workspace, faithful="as" in arguments.values)


def _node(arguments: _Arguments) -> Node:
    if "root" in arguments.values:
        from pathlib import Path

        from coupler.cloudinit.scratch import ScratchRoot

        return ScratchRoot(Path(arguments.values["root"]))
    from coupler.cloudinit.live import Machine

    return Machine()


def _source(arguments: _Arguments, log: Callable[[str], None]) -> Source | None:
    from coupler.cloudinit.sources import ConfigDrive, File, KernelCommandLine, Url

    kinds: dict[str, Callable[[str], Source]] = {"from-file": File, "from-url": Url, "from-configdrive": ConfigDrive}
    sources = [kind(arguments.values[name]) for name, kind in kinds.items() if name in arguments.values]
    if "from-proc-cmdline" in arguments.switches:
        sources.append(KernelCommandLine())
    if not sources:
        raise _UsageError("Provide at least one of --from-file, --from-url, --from-configdrive or --from-proc-cmdline")
    for source in sources:
        log(f'Checking availability of "{source.kind}"')
        if source.available():
            return source
    return None


def _write_operations(path: str, applier: Applier, exit_code: int, record: _Record) -> None:
    import json
    from pathlib import Path

    operations = {
        "exit": exit_code,
        "stdout": record.output,
        "log": record.lines,
        "units": applier.units,
        "calls": getattr(applier.node, "calls", []),
    }
    Path(path).write_text(json.dumps(operations, indent=1) + "\n")


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


if __name__ == "__main__":
    sys.exit(main())
