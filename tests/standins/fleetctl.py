"""The stand-in for fleetctl, by fleet's API on its socket. What it has not is what reaches other machines by SSH."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.standins import golang
from tests.standins.fleet_units import Option as UnitOption
from tests.standins.fleet_units import hash_of, parse, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Object = dict[str, Any]
_GLOBAL = "-"
_SOCKET = "unix:///var/run/fleet.sock"
_ATTEMPTS = 30
_SHORT, _LONG = 8, 40


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("fleet", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """fleet's API. Every method raises OSError where it does not answer so."""

    def __init__(self, path: str, seconds: float) -> None:
        self._path, self._seconds = path, seconds

    def ask(self, method: str, path: str, body: Object | None = None) -> Object | None:
        """Return the answer, None where there is no such thing."""
        connection = _Connection(self._path, self._seconds)
        data = json.dumps(body) if body is not None else None
        connection.request(method, f"/fleet/v1{path}", data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status >= http.client.BAD_REQUEST:
            raise OSError(f"googleapi: Error {answer.status}: {json.loads(text)['error']['message']}")
        found: Object = json.loads(text) if text else {}
        return found

    def all(self, what: str, called: str) -> list[Object]:
        """Return all units, machines, or states."""
        found: list[Object] = (self.ask("GET", f"/{what}") or {})[called]
        return found


def main(words: Sequence[str], version: str, lines: Iterable[str]) -> None:
    """Be fleetctl. `lines` are `COMMAND OPTION [KIND]`, with `-` for what every command takes."""
    commands: dict[str, list[str]] = {}
    for line in lines:
        command, _, option = line.partition(" ")
        commands.setdefault(command, []).extend([option] if option else [])
    everywhere = golang.kinds(commands.pop(_GLOBAL))
    command = next((word for word in words if word in commands), "")
    known = everywhere | golang.kinds(commands.get(command, ()))
    try:
        options, rest = golang.parse(words, known, anywhere=True)
    except golang.UnknownOptionError as error:
        # The real one exits with 0 then.
        golang.say(f"Error: unknown flag: --{error}\ncannot execute cmdFleet: unknown flag: --{error}")
        return
    if rest[:1] and rest[0] not in commands:
        golang.say(f'Error: unknown command "{rest[0]}" for "fleetctl"')
        return
    options = golang.with_environment(options, "FLEETCTL", everywhere)
    if command == "version" or "version" in options:
        print(f"fleetctl version {version}")  # noqa: T201 - its answer
        return
    if options.get("driver", "API") != "API" or command not in _COMMANDS:
        golang.say(f"this stand-in has no {command or 'driver but the API'}")
        sys.exit(1)
    path = options.get("endpoint", _SOCKET).removeprefix("unix://")
    try:
        sys.exit(_COMMANDS[command](Api(path, float(options.get("request-timeout", "3"))), options, rest[1:]))
    except OSError as error:
        golang.say(f"Error: {error}")
        sys.exit(1)


def _table(rows: list[dict[str, str]], columns: str, default: str, options: Mapping[str, str]) -> int:
    chosen = options.get("fields", default).split(",")
    for name in chosen:
        if name not in columns.split(","):
            golang.say(f'Invalid key in output format: "{name}"')
            return 1
    if options.get("no-legend") != "true":
        print("\t".join(chosen).upper())  # noqa: T201 - its answer
    for row in rows:
        print("\t".join(row[name] for name in chosen))  # noqa: T201 - its answer
    return 0


def _short(text: str, options: Mapping[str, str]) -> str:
    full = "true" in {options.get("full"), options.get("l")}
    return text if full or not text else f"{text[:_SHORT]}..."


def _list_machines(api: Api, options: Mapping[str, str], _: Sequence[str]) -> int:
    rows = [
        {
            "machine": _short(machine["id"], options),
            "ip": machine["primaryIP"] or "-",
            "metadata": ",".join(f"{key}={value}" for key, value in sorted(machine["metadata"].items())) or "-",
        }
        for machine in api.all("machines", "machines")
    ]
    return _table(rows, "machine,ip,metadata", "machine,ip,metadata", options)


def _list_units(api: Api, options: Mapping[str, str], _: Sequence[str]) -> int:
    addresses = {machine["id"]: machine["primaryIP"] for machine in api.all("machines", "machines")}
    rows = [
        {
            "unit": state["name"],
            "machine": f"{_short(state['machineID'], options)}/{addresses.get(state['machineID'], '')}",
            "load": state["systemdLoadState"],
            "active": state["systemdActiveState"],
            "sub": state["systemdSubState"],
            "hash": state["hash"] if "full" in options else state["hash"][:7],
        }
        for state in api.all("state", "states")
    ]
    return _table(rows, "active,hash,load,machine,sub,unit", "unit,machine,active,sub", options)


def _list_unit_files(api: Api, options: Mapping[str, str], _: Sequence[str]) -> int:
    addresses = {machine["id"]: machine["primaryIP"] for machine in api.all("machines", "machines")}
    rows = []
    for unit in api.all("units", "units"):
        digest, target = hash_of(_text(unit)), unit["machineID"]
        rows.append(
            {
                "unit": unit["name"],
                "hash": digest if "full" in options else digest[:7],
                "dstate": unit["desiredState"],
                "state": unit["currentState"],
                "target": f"{_short(target, options)}/{addresses.get(target, '')}" if target else "-",
            }
        )
    return _table(rows, "dstate,hash,state,target,unit", "unit,hash,dstate,state,target", options)


def _text(unit: Object) -> str:
    return text_of([UnitOption(one["section"], one["name"], one["value"]) for one in unit["options"]])


def _submitted(api: Api, options: Mapping[str, str], word: str) -> Object:
    """Return a unit of fleet, which has it from now on if `word` is a file. Raises OSError."""
    file = Path(word)
    name = file.name
    unit = api.ask("GET", f"/units/{name}")
    if file.is_file():
        parsed = parse(file.read_text(encoding="utf-8"))
        differs = unit and hash_of(_text(unit)) != hash_of(text_of(parsed))
        if differs and options.get("replace") != "true":
            called = f"Unit {name} in registry differs from local unit file {word}"
            golang.say(f"WARNING: {called}. Add --replace to override.")
        elif not unit or differs:
            new = [{"section": one.section, "name": one.name, "value": one.value} for one in parsed]
            api.ask("PUT", f"/units/{name}", {"name": name, "desiredState": "inactive", "options": new})
            print(f"Unit {name} inactive")  # noqa: T201 - its answer
            unit = api.ask("GET", f"/units/{name}")
    if not unit:
        raise OSError(f"unable to find Unit({name}) in the registry or on filesystem")
    return unit


def _submit(api: Api, options: Mapping[str, str], words: Sequence[str]) -> int:
    for word in words:
        _submitted(api, options, word)
    return 0


def _to(state: str, verb: str) -> Callable[[Api, Mapping[str, str], Sequence[str]], int]:
    def run(api: Api, options: Mapping[str, str], words: Sequence[str]) -> int:
        for word in words:
            name = _submitted(api, options, word)["name"]
            api.ask("PUT", f"/units/{name}", {"name": name, "desiredState": state})
            if options.get("no-block") == "true":
                print(f"Triggered unit {name} {verb}")  # noqa: T201 - its answer
            elif not _becomes(lambda name=name: (api.ask("GET", f"/units/{name}") or {}).get("currentState") == state):  # type: ignore[misc]
                golang.say(f"Error waiting for unit states: {name} is not {state}")
                return 1
        return 0

    return run


def _unload(api: Api, _: Mapping[str, str], words: Sequence[str]) -> int:
    for name in words:
        if api.ask("GET", f"/units/{name}") is None:
            golang.say("Units not found in registry")
            return 1
        api.ask("PUT", f"/units/{name}", {"name": name, "desiredState": "inactive"})
    golang.say("Successfully unloaded units [].")
    return 0


def _destroy(api: Api, _: Mapping[str, str], words: Sequence[str]) -> int:
    for name in words:
        if api.ask("DELETE", f"/units/{name}") is None:
            golang.say("Units not found in registry")
        else:
            print(f"Destroyed {name}")  # noqa: T201 - its answer
    return 0


def _cat(api: Api, _: Mapping[str, str], words: Sequence[str]) -> int:
    unit = api.ask("GET", f"/units/{words[0]}")
    if unit is None:
        golang.say(f"Unit {words[0]} not found")
        return 1
    print(_text(unit), end="")  # noqa: T201 - its answer
    return 0


def _becomes(what: Callable[[], bool]) -> bool:
    for _ in range(_ATTEMPTS):
        if what():
            return True
        time.sleep(1)
    return False


_COMMANDS: dict[str, Callable[[Api, Mapping[str, str], Sequence[str]], int]] = {
    "cat": _cat,
    "destroy": _destroy,
    "list-machines": _list_machines,
    "list-unit-files": _list_unit_files,
    "list-units": _list_units,
    "load": _to("loaded", "load"),
    "start": _to("launched", "start"),
    "submit": _submit,
    "unload": _unload,
}
