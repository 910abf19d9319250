"""The stand-ins for locksmithctl and locksmithd: the reboot lock in etcd, as locksmith's lock/semaphore.go has it.

The real daemon hears of an update from update_engine on D-Bus; this one looks for the file `NEEDED`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from bisect import insort
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from tests.standins import golang
from tests.standins.etcd import Credentials, Etcd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NEEDED = Path("/run/standins/needs-reboot")
"""There when the machine has to reboot."""
DAEMON = "locksmithd"
_PATIENCE = 5.0  # seconds until a lock of an earlier boot is given back, and between two attempts
_COMMANDS = ("help", "lock", "reboot", "send-need-reboot", "set-max", "status", "unlock")


class RefusedError(Exception):
    """The lock is not as the change needs it."""


class Lock:
    """A lock for reboots. Every method raises OSError where etcd does not answer."""

    def __init__(self, etcd: Etcd, group: str) -> None:
        self._etcd = etcd
        self._key = f"/coreos.com/updateengine/rebootlock{group and '/groups/'}{quote_plus(group)}/semaphore"
        first = {"semaphore": 1, "max": 1, "holders": None}
        etcd.v2("PUT", self._key, "prevExist=false", value=_text(first))

    def state(self) -> tuple[dict[str, object], int]:
        """Return the semaphore, and the index of its last change."""
        found = self._etcd.v2("GET", self._key)
        if found is None:
            raise OSError(f"no {self._key}")
        return json.loads(found["node"]["value"]), found["node"]["modifiedIndex"]

    def change(self, how: Callable[[dict[str, object]], None]) -> dict[str, object]:
        """Change it, and return what it was before. Raises RefusedError."""
        while True:
            before, index = self.state()
            after = dict(before)
            how(after)
            if self._etcd.v2("PUT", self._key, f"prevIndex={index}", value=_text(after)):
                return before


def _text(state: Mapping[str, object]) -> str:
    return json.dumps(state, separators=(",", ":"))


def _take(state: dict[str, object], holder: str) -> None:
    holders: list[str] = [*(state["holders"] or ())]  # type: ignore[misc]
    free: int = state["semaphore"]  # type: ignore[assignment]
    if free <= 0:
        raise RefusedError(f"semaphore is at {free}")
    if holder in holders:
        raise RefusedError("holder exists")
    insort(holders, holder)
    state.update(semaphore=free - 1, holders=holders)


def _give(state: dict[str, object], holder: str) -> None:
    holders: list[str] = [*(state["holders"] or ())]  # type: ignore[misc]
    if holder not in holders:
        raise RefusedError("holder does not exist")
    holders.remove(holder)
    state.update(semaphore=state["semaphore"] + 1, holders=holders)  # type: ignore[operator]


def _let(state: dict[str, object], most: int) -> None:
    state.update(semaphore=state["semaphore"] + most - state["max"], max=most)  # type: ignore[operator]


def main(words: Sequence[str], version: str, known: Mapping[str, bool]) -> None:
    """Be locksmithctl; or locksmithd where its unit started this.

    The real program goes by the name that it is started with, which a script does not learn.
    """
    daemon = not words and f"/{DAEMON}.service" in Path("/proc/self/cgroup").read_text(encoding="utf-8")
    try:
        given, rest = golang.parse(words, known)
    except golang.UnknownOptionError as error:
        golang.say(f"flag provided but not defined: -{error}")
        sys.exit(2)
    options = golang.with_environment(given, "LOCKSMITHD" if daemon else "LOCKSMITHCTL", known)
    if "version" in given:
        print(f"locksmithctl version {version}")  # noqa: T201 - its answer
    elif daemon:
        _daemon(options)
    elif not rest or rest[0] == "help":
        print(f"COMMANDS: {' '.join(_COMMANDS)}")  # noqa: T201 - its answer
    elif rest[0] not in _COMMANDS:
        golang.say(f"locksmithctl: unknown subcommand: {json.dumps(rest[0])}")
        sys.exit(2)
    else:
        _control(options, rest[0], rest[1:])


def _lock(options: Mapping[str, str]) -> Lock:
    files = (options.get(f"etcd-{file}", "") for file in ("cafile", "certfile", "keyfile"))
    servers = options.get("endpoint", "http://127.0.0.1:2379,http://127.0.0.1:4001")
    try:
        return Lock(Etcd(servers.split(","), Credentials(*files)), options.get("group", ""))
    except OSError as error:
        golang.say(f"Error initializing etcd client: {error}")
        sys.exit(1)


def _control(options: Mapping[str, str], command: str, words: Sequence[str]) -> None:
    lock = _lock(options)
    holder = words[0] if words else _machine()
    try:
        if command == "lock":
            lock.change(lambda state: _take(state, holder))
        elif command == "unlock":
            lock.change(lambda state: _give(state, holder))
        elif command == "set-max":
            before = lock.change(lambda state: _let(state, int(words[0])))
            print(f"Old-Max: {before['max']}\nMax: {words[0]}")  # noqa: T201 - its answer
        elif command == "status":
            state, _ = lock.state()
            print(f"Available: {state['semaphore']}\nMax: {state['max']}")  # noqa: T201 - its answer
            if state["holders"]:
                print("", "MACHINE ID", *state["holders"], sep="\n")  # type: ignore[misc]  # noqa: T201
        else:
            golang.say(f"this stand-in has no {command}")
            sys.exit(1)
    except RefusedError as error:
        golang.say(f"Error {command}ing: {error}")
        sys.exit(1)


def _daemon(options: Mapping[str, str]) -> None:
    strategy = os.environ.get("REBOOT_STRATEGY") or "reboot"
    if strategy == "off":
        golang.say('Reboot strategy is "off" - locksmithd is exiting.')
        return
    golang.say(f'locksmithd starting strategy="{strategy}"')
    me = _machine()
    lock = None
    if strategy == "etcd-lock":
        time.sleep(_PATIENCE)
        lock = _lock(options)
        try:
            lock.change(lambda state: _give(state, me))
            golang.say("Unlocked existing lock for this machine")
        except RefusedError:
            pass
    while not NEEDED.exists():
        time.sleep(1)
    while lock:
        try:
            lock.change(lambda state: _take(state, me))
            break
        except (RefusedError, OSError) as error:
            golang.say(f"Failed to acquire lock: {error}. Retrying in {_PATIENCE:.0f}s.")
            time.sleep(_PATIENCE)
    subprocess.run(["systemctl", "reboot"], check=True)
    golang.say("Reboot sent. Going to sleep.")
    time.sleep(7 * 24 * 3600)


def _machine() -> str:
    return Path("/etc/machine-id").read_text(encoding="utf-8").strip()
