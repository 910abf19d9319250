"""Running a playbook: `sys.executable -m ansible playbook` in a process of its own, its events as they happen.

`python -m ansible` works where `ansible-playbook` is not on PATH (pipx, uvx).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PLUGINS = Path(__file__).parent / "ansible_plugins"
_MOST_FORKS = 50
_GRACE = 5  # seconds between asking Ansible to end and making it


@dataclass(frozen=True)
class Host:
    """One host of the inventory, with what OpenSSH must know."""

    name: str
    address: str
    port: int
    user: str


@dataclass(frozen=True)
class Login:
    """How OpenSSH logs in: the private key (None: the user's own), and whose host keys are known."""

    known_hosts: tuple[Path, ...]
    private_key: Path | None = None


@dataclass(frozen=True)
class Event:
    """What became of one task on one host; `state` is ok, changed, failed or unreachable."""

    host: str
    task: str
    state: str
    text: str


def run_playbook(
    playbook: Path,
    hosts: tuple[Host, ...],
    login: Login,
    variables: Mapping[str, Any],
    folder: Path,
    on_event: Callable[[Event], None],
    *,
    check: bool = False,
) -> None:
    """Run a playbook on `hosts` and tell each event as it happens.

    `folder` (private to this run) takes the inventory, the variables and Ansible's log. A failed or unreachable host
    is an event, not an exception.

    Raises:
        CouplerError: Ansible itself failed: it ended without a result for each host.
    """
    inventory, values, log = folder / "inventory.json", folder / "variables.json", folder / "ansible.log"
    inventory.write_text(json.dumps(_inventory(hosts, login)), encoding="utf-8")
    values.write_text(json.dumps(dict(variables)), encoding="utf-8")
    command = [sys.executable, "-m", "ansible", "playbook", "--inventory", str(inventory), "--extra-vars", f"@{values}"]
    command += ["--forks", str(min(_MOST_FORKS, max(1, len(hosts)))), *(["--check"] if check else []), str(playbook)]
    heard: set[str] = set()
    with log.open("w", encoding="utf-8") as log_file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            env=_environment(playbook, folder),
            start_new_session=True,  # a Ctrl-C is for us; we decide what becomes of Ansible
        )
        try:
            for event in _events(process, log_file.write):
                heard.add(event.host)
                on_event(event)
            process.wait()
        finally:
            _end(process)
    silent = [host.name for host in hosts if host.name not in heard]
    if silent:
        raise CouplerError(
            f"Ansible ended with exit code {process.returncode} and no result for {', '.join(silent[:5])}",
            why=_last_line(log),
            log=str(log),
        )


def _end(process: subprocess.Popen[str]) -> None:
    """End Ansible and the ssh processes that it started, if they still run."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


def _events(process: subprocess.Popen[str], log: Callable[[str], object]) -> Iterator[Event]:
    for line in process.stdout or ():
        try:
            data = json.loads(line)
        except ValueError:
            log(line)
            continue
        if isinstance(data, dict) and data.get("event") == "host":
            yield Event(data["host"], data["task"], data["state"], data["text"])


def _inventory(hosts: tuple[Host, ...], login: Login) -> dict[str, Any]:
    known = " ".join(f'"{path}"' for path in login.known_hosts)
    options = f"-o StrictHostKeyChecking=yes -o UserKnownHostsFile='{known}'"
    shared = {"ansible_ssh_common_args": options}
    if login.private_key:
        shared |= {"ansible_ssh_private_key_file": str(login.private_key)}
        shared["ansible_ssh_common_args"] += " -o IdentitiesOnly=yes"
    entries = {
        host.name: {"ansible_host": host.address, "ansible_port": host.port, "ansible_user": host.user}
        for host in hosts
    }
    return {"nodes": {"hosts": entries, "vars": shared}}


def _environment(playbook: Path, folder: Path) -> dict[str, str]:
    """Return Ansible's environment: nothing of the user's own Ansible configuration gets in."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return inherited | {
        "ANSIBLE_CONFIG": str(playbook.parent / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(_PLUGINS),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "ansible" / "tmp"),
        "LC_ALL": "C.UTF-8",
    }


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
