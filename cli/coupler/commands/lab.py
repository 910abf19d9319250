"""`cluster lab`: real systemd machines on this host, for trying a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from coupler.commands.verb import ClusterFile, MirrorFolder, Nodes, Yes, confirmation, verb
from coupler.result import Result, Text, table

if TYPE_CHECKING:
    from coupler.lab import Lab

app = typer.Typer(help="Boot machines with systemd and sshd on this host.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(metavar="MACHINE...", help="Machines of the lab.")]
Name = Annotated[str, typer.Argument(metavar="MACHINE", help="A machine of the lab.")]
Command = Annotated[Optional[list[str]], typer.Argument(metavar="COMMAND", help="What to run there.")]  # noqa: UP045
_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@app.command("up")
@verb
def up(file: ClusterFile = None, nodes: Nodes = None, mirror: MirrorFolder = None) -> Result:
    """Boot the nodes of cluster.yaml as lab machines; where there is no cluster.yaml, write one."""
    from coupler import ui
    from coupler.workflows.lab import lab_up

    return lab_up(file, nodes, mirror, ui.progress().note)


@app.command("down")
@verb
def down(
    file: ClusterFile = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete the keys, the subnet and the git repository of the lab too.")
    ] = False,
) -> Result:
    """Switch all machines off and delete their disks."""
    lab = _open(file)
    there = lab.down(forget=forget)
    return Text(f"lab {lab.name}: {'down' if there else 'was down'}", {"name": lab.name, "changed": there})


@app.command("status")
@verb
def status(file: ClusterFile = None) -> Result:
    """Show the machines of the lab and what the host serves them."""
    from coupler.workflows.lab import machine_data

    lab = _open(file)
    now = lab.status()
    rows = [(entry.machine.name, str(entry.machine.address), entry.machine.mac, entry.power) for entry in now.machines]
    if not rows:
        return Text(f"lab {lab.name} is down\nnext: cluster lab up", {"name": lab.name, "machines": []})
    servers = {"git": lab.repository_url, "mirror": lab.mirror_url}
    lines = [
        table(("MACHINE", "ADDRESS", "MAC", "POWER"), rows),
        *(f"{name}: {url}{'' if now.servers[name] else ' (stopped)'}" for name, url in servers.items()),
    ]
    return Text(
        "\n".join(lines),
        {
            "name": lab.name,
            "subnet": str(now.subnet),
            "machines": [machine_data(entry.machine) | {"power": str(entry.power)} for entry in now.machines],
            "servers": {name: {"url": url, "runs": now.servers[name]} for name, url in servers.items()},
        },
    )


@app.command("ssh", context_settings=_PASS_ON)
def ssh(name: Name, command: Command = None, file: ClusterFile = None) -> None:
    """Log in on a machine, or run a command there, as user core over SSH."""
    _become(_open(file).ssh_command(name, _words(command)))


@app.command("exec", context_settings=_PASS_ON)
def exec_(name: Name, command: Command = None, file: ClusterFile = None) -> None:
    """Run a command in a machine as root, past the network: works with the cable cut and without sshd."""
    _become(_open(file).command(name, _words(command) or ["/bin/bash"]))


@app.command("cut")
@verb
def cut(names: Names, file: ClusterFile = None) -> Result:
    """Pull the network cables of machines out."""
    _open(file).cut(*names)
    return _done("cut", names)


@app.command("heal")
@verb
def heal(names: Names, file: ClusterFile = None) -> Result:
    """Put the network cables of machines in again."""
    _open(file).heal(*names)
    return _done("healed", names)


@app.command("kill")
@verb
def kill(names: Names, file: ClusterFile = None) -> Result:
    """Switch machines off at once, as a power cut does."""
    _open(file).kill(*names)
    return _done("killed", names)


@app.command("start")
@verb
def start(names: Names, file: ClusterFile = None) -> Result:
    """Switch machines on again, with the disks that they had."""
    _open(file).start(*names)
    return _done("started", names)


@app.command("replace")
@verb
def replace(names: Names, file: ClusterFile = None, yes: Yes = False) -> Result:
    """Put new machines, with empty disks, in the place of these: what they had is lost."""
    confirmation(yes=yes)(f"What is on the disks of {', '.join(names)} is lost. Replace?")
    _open(file).replace(*names)
    return _done("replaced", names)


@app.command("reboot")
@verb
def reboot(names: Names, file: ClusterFile = None) -> Result:
    """Reboot machines, all at once, and wait until they answer."""
    _open(file).reboot(*names)
    return _done("rebooted", names)


def _open(file: Path | None) -> Lab:
    from coupler.workflows.lab import open_lab

    return open_lab(file)


def _done(what: str, names: list[str]) -> Result:
    return Text(f"{what} {', '.join(names)}", {"machines": names})


def _words(command: list[str] | None) -> list[str]:
    """Return the command without the `--` that separates it from our own options."""
    return command[1:] if command and command[0] == "--" else command or []


def _become(argv: list[str]) -> NoReturn:
    """Go on as another program: it gets the terminal, and its exit code is ours."""
    os.execvp(argv[0], argv)  # noqa: S606 - the user asked for this very command
