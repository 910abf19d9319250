"""The stand-in for fleetd: a machine, its agent, the engine of the cluster, and the API on a socket of systemd.

Keys and their values are those of fleet's registry. A unit goes to a machine that has the MachineMetadata or MachineID
that it wants, or to all of these if it is Global; what it wants else is not looked at. Nobody watches: each looks every
second.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import TYPE_CHECKING, Any

from tests.standins import golang
from tests.standins.etcd import Credentials, Etcd, Object
from tests.standins.fleet_units import Option, hash_of, parse, requirements, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "/_coreos.com/fleet"
FOLDER = Path("/run/fleet/units")
TTL = 30  # seconds that a machine may be silent
_PAUSE = 1.0  # seconds
_FIRST_SOCKET = 3  # sd_listen_fds(3)


class Registry:
    """What fleet keeps in etcd. Every method raises OSError where that does not answer."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    def register(self, machine: Object) -> None:
        """Say that a machine is there."""
        self._etcd.v2("PUT", f"{PREFIX}/machines/{machine['ID']}/object", value=_dump(machine), ttl=TTL)

    def machines(self) -> list[Object]:
        """Return the machines that are there, by their identifiers."""
        found = self._etcd.tree(f"{PREFIX}/machines")
        return [json.loads(value) for key, value in sorted(found.items()) if key.endswith("/object")]

    def jobs(self) -> dict[str, Object]:
        """Return the units by their names: hash, text, wanted state, machine, and whose heartbeat it has."""
        texts = {key: json.loads(value)["Raw"] for key, value in self._etcd.tree(f"{PREFIX}/unit").items()}
        jobs: dict[str, Object] = {}
        for key, value in self._etcd.tree(f"{PREFIX}/job").items():
            name, _, what = key.partition("/")
            jobs.setdefault(name, {})[what] = value
        for job in jobs.values():
            job["hash"] = bytes(json.loads(job["object"])["UnitHash"]).hex() if "object" in job else ""
            job["text"] = texts.get(job["hash"], "")
        return {name: job for name, job in sorted(jobs.items()) if job["text"]}

    def create(self, name: str, text: str, state: str) -> None:
        """Have a unit."""
        digest = hash_of(text)
        self._etcd.v2("PUT", f"{PREFIX}/unit/{digest}", value=_dump({"Raw": text}))
        found = {"Name": name, "UnitHash": list(bytes.fromhex(digest))}
        self._etcd.v2("PUT", f"{PREFIX}/job/{name}/object", value=_dump(found))
        self.want(name, state)

    def want(self, name: str, state: str) -> None:
        """Say what state a unit should have."""
        self._etcd.v2("PUT", f"{PREFIX}/job/{name}/target-state", value=state)

    def destroy(self, name: str) -> bool:
        """Forget a unit; whether there was one."""
        return self._etcd.v2("DELETE", f"{PREFIX}/job/{name}", "recursive=true") is not None

    def schedule(self, name: str, machine: str) -> None:
        """Give a unit that no machine has to one."""
        self._etcd.v2("PUT", f"{PREFIX}/job/{name}/target", "prevExist=false", value=machine)

    def unschedule(self, name: str, machine: str) -> None:
        """Take a unit from a machine."""
        self._etcd.v2("DELETE", f"{PREFIX}/job/{name}/target", f"prevValue={machine}")

    def beat(self, name: str, machine: str, *, launched: bool) -> None:
        """Say that a machine has launched a unit, or no more."""
        key = f"{PREFIX}/job/{name}/job-state"
        if launched:
            self._etcd.v2("PUT", key, value=machine, ttl=TTL)
        else:
            self._etcd.v2("DELETE", key, f"prevValue={machine}")

    def states(self) -> list[Object]:
        """Return the states of the units, each with `name` and `machineID`."""
        found = self._etcd.tree(f"{PREFIX}/states")
        pairs = [(key.partition("/"), json.loads(value)) for key, value in sorted(found.items())]
        return [{**state, "name": key[0], "machineID": key[2]} for key, state in pairs]

    def report(self, name: str, machine: str, state: Object | None) -> None:
        """Say how a unit is on a machine; None: it is gone."""
        keys = (f"{PREFIX}/state/{name}", f"{PREFIX}/states/{name}/{machine}")
        for key in keys:
            if state:
                self._etcd.v2("PUT", key, value=_dump({**state, "machineState": {"ID": machine}}), ttl=TTL)
            else:
                self._etcd.v2("DELETE", key)

    def leads(self, machine: str) -> bool:
        """Whether the engine of this machine leads, for some seconds."""
        key, me = f"{PREFIX}/lease/engine-leader", _dump({"MachineID": machine, "Version": 1})
        return any(
            self._etcd.v2("PUT", key, condition, value=me, ttl=10)
            for condition in ("prevExist=false", f"prevValue={urllib.parse.quote(me)}")
        )

    def leave(self, machine: str) -> None:
        """Say that a machine is gone."""
        self._etcd.v2("DELETE", f"{PREFIX}/machines/{machine}", "recursive=true")


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def fits(text: str, machine: Object) -> bool:
    """Whether a machine is as a unit wants it."""
    wants = requirements(parse(text))
    metadata: dict[str, set[str]] = {}
    for pair in wants.get("MachineMetadata", ()):
        name, _, value = pair.partition("=")
        metadata.setdefault(name, set()).add(value)
    return all(machine["Metadata"].get(name) in values for name, values in metadata.items()) and (
        machine["ID"] in wants.get("MachineID", [machine["ID"]])
    )


def is_global(text: str) -> bool:
    """Whether a unit runs on every machine that fits."""
    return requirements(parse(text)).get("Global", ["false"])[-1].lower() in {"true", "yes", "1", "on"}


class Agent:
    """What this machine runs of fleet's units, by systemd."""

    def __init__(self, registry: Registry, machine: Object) -> None:
        self._registry, self._machine = registry, machine

    def _has(self) -> dict[str, str]:
        """Return the units that are here, each with its hash."""
        return {path.name: hash_of(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.*")}

    def reconcile(self) -> None:
        """Have the units that this machine should have, and say how they are. Raises OSError."""
        me = self._machine["ID"]
        wanted = {
            name: job
            for name, job in self._registry.jobs().items()
            if job.get("target-state") in {"loaded", "launched"}
            and (fits(job["text"], self._machine) if is_global(job["text"]) else job.get("target") == me)
        }
        for name, digest in self._has().items():
            if name not in wanted or wanted[name]["hash"] != digest:
                self.unload(name)
        here = self._has()
        for name, job in wanted.items():
            if name not in here:
                golang.say(f"loading {name}")
                FOLDER.mkdir(parents=True, exist_ok=True)
                (FOLDER / name).write_text(job["text"], encoding="utf-8")
                _systemctl("link", "--runtime", f"{FOLDER / name}")
                if job["target-state"] == "launched":
                    _systemctl("start", "--no-block", name)
            elif job["target-state"] == "loaded" and job.get("job-state") == me:
                _systemctl("stop", "--no-block", name)
            elif job["target-state"] == "launched" and job.get("job-state") != me:
                _systemctl("start", "--no-block", name)
            self._registry.beat(name, me, launched=job["target-state"] == "launched")
            self._registry.report(name, me, {**_state(name), "unitHash": job["hash"]})

    def unload(self, name: str) -> None:
        """Have a unit no more. Raises OSError."""
        golang.say(f"unloading {name}")
        _systemctl("stop", name)
        (FOLDER / name).unlink()
        Path("/run/systemd/system", name).unlink(missing_ok=True)
        _systemctl("daemon-reload")
        self._registry.beat(name, self._machine["ID"], launched=False)
        self._registry.report(name, self._machine["ID"], None)

    def purge(self) -> None:
        """Leave nothing behind, as fleetd does when it is told to stop."""
        for name in self._has():
            self.unload(name)
        self._registry.leave(self._machine["ID"])


def _systemctl(*words: str) -> str:
    done = subprocess.run(["systemctl", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        golang.say(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _state(name: str) -> Object:
    shown = _systemctl("show", "-p", "LoadState,ActiveState,SubState", name).splitlines()
    found = dict(line.partition("=")[::2] for line in shown)
    return {f"{key[0].lower()}{key[1:]}": found[key] for key in ("LoadState", "ActiveState", "SubState")}


def engine(registry: Registry) -> None:
    """Give every unit that should run a machine, and take it from one that is gone. Raises OSError."""
    machines = {machine["ID"]: machine for machine in registry.machines()}
    jobs = {name: job for name, job in registry.jobs().items() if not is_global(job["text"])}
    load = dict.fromkeys(machines, 0)
    for name, job in jobs.items():
        target, wanted = job.get("target"), job.get("target-state") in {"loaded", "launched"}
        if target and not (wanted and target in machines and fits(job["text"], machines[target])):
            registry.unschedule(name, target)
            job.pop("target")
        elif target:
            load[target] += 1
    for name, job in jobs.items():
        possible = [number for number, machine in machines.items() if fits(job["text"], machine)]
        if "target" not in job and job.get("target-state") in {"loaded", "launched"} and possible:
            chosen = min(possible, key=lambda number: (load[number], number))
            load[chosen] += 1
            golang.say(f"scheduling {name} to {chosen}")
            registry.schedule(name, chosen)


def main(words: Sequence[str], version: str, known: Mapping[str, bool]) -> None:
    """Be fleetd until it is told to stop."""
    try:
        options, _ = golang.parse(words, known)
    except golang.UnknownOptionError as error:
        golang.say(f"flag provided but not defined: -{error}")
        sys.exit(2)
    if "version" in options:
        print(f"fleetd version {version}")  # noqa: T201 - its answer
        return
    setting = {name.removeprefix("FLEET_").lower(): value for name, value in os.environ.items()}
    files = (setting.get(f"etcd_{file}", "") for file in ("cafile", "certfile", "keyfile"))
    try:
        etcd = Etcd(setting["etcd_servers"].split(","), Credentials(*files))
    except OSError as error:
        golang.say(f"FATAL: Failed creating Server: {error}")
        sys.exit(1)
    registry = Registry(etcd)
    pairs = (pair.partition("=") for pair in setting.get("metadata", "").split(",") if "=" in pair)
    machine = {
        "ID": Path("/etc/machine-id").read_text(encoding="utf-8").strip(),
        "PublicIP": setting.get("public_ip", ""),
        "Metadata": {name.strip(): value.strip() for name, _, value in pairs},
        "Capabilities": {"DISABLE_ENGINE": False, "GRPC": False},
        "Version": version,
    }
    agent = Agent(registry, machine)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=_serve, args=(registry,), daemon=True).start()
    try:
        while True:
            try:
                registry.register(machine)
                if registry.leads(machine["ID"]):
                    engine(registry)
                agent.reconcile()
            except OSError as error:
                golang.say(f"etcd: {error}")
            time.sleep(_PAUSE)
    finally:
        agent.purge()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


def _serve(registry: Registry) -> None:
    class Handler(_Handler):
        known = registry

    if os.environ.get("LISTEN_FDS") != "1":
        golang.say("no socket is passed: the API is not served")
        return
    server = _Server("", Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=_FIRST_SOCKET)
    server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    """fleet's API (its Documentation/api-v1.md)."""

    known: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        pass

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        self._do("GET")

    def do_PUT(self) -> None:
        self._do("PUT")

    def do_DELETE(self) -> None:
        self._do("DELETE")

    def _do(self, method: str) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        path = urllib.parse.unquote(self.path.partition("?")[0]).removeprefix("/fleet/v1")
        try:
            self._answer(method, path, body)
        except OSError as error:
            golang.say(f"etcd: {error}")
            self._send(500, _error(500, ""))

    def _answer(self, method: str, path: str, body: Any) -> None:
        kind, _, name = path.strip("/").partition("/")
        if method == "GET" and path == "/machines":
            found = self.known.machines()
            named = [{"id": one["ID"], "metadata": one["Metadata"], "primaryIP": one["PublicIP"]} for one in found]
            self._send(200, {"machines": named})
        elif method == "GET" and path == "/state":
            self._send(200, {"states": [_api_state(state) for state in self.known.states()]})
        elif kind != "units" or (not name and method != "GET"):
            self._send(404, _error(404, ""))
        elif method == "PUT":
            self._put(name, body)
        elif method == "DELETE":
            self._send(*((204, None) if self.known.destroy(name) else (404, _error(404, "unit does not exist"))))
        else:
            states = {(state["name"], state["machineID"]) for state in self.known.states()}
            units = {unit: _api_unit(unit, job, states) for unit, job in self.known.jobs().items()}
            if not name:
                self._send(200, {"units": list(units.values())})
            else:
                self._send(*((200, units[name]) if name in units else (404, _error(404, "unit does not exist"))))

    def _put(self, name: str, body: Object) -> None:
        options = [Option(each["section"], each["name"], each["value"]) for each in body.get("options") or ()]
        found, state = self.known.jobs().get(name), body.get("desiredState", "")
        if not found and not options:
            self._send(409, _error(409, "unit does not exist and options field empty"))
        elif options and (not found or hash_of(text_of(options)) != found["hash"]):
            self.known.create(name, text_of(options), state or "inactive")
            self._send(201, None)
        elif not state:
            self._send(409, _error(409, "must provide DesiredState to update existing unit"))
        elif name.partition("@")[2].startswith(".") and state != "inactive":
            self._send(400, _error(400, f'cannot activate template "{name}"'))
        else:
            self.known.want(name, state)
            self._send(204, None)

    def _send(self, status: int, answer: Object | None) -> None:
        text = _dump(answer).encode() if answer is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _error(code: int, message: str) -> Object:
    return {"error": {"code": code, "message": message}}


def _api_state(state: Object) -> Object:
    systemd = {f"systemd{key[0].upper()}{key[1:]}": state[key] for key in ("loadState", "activeState", "subState")}
    return {"name": state["name"], "hash": state["unitHash"], "machineID": state["machineID"], **systemd}


def _api_unit(name: str, job: Object, states: set[tuple[str, str]]) -> Object:
    target = job.get("target", "")
    current = "inactive"
    if target and (name, target) in states:
        current = "launched" if job.get("job-state") == target else "loaded"
    options = [{"section": one.section, "name": one.name, "value": one.value} for one in parse(job["text"])]
    found = {"name": name, "options": options, "desiredState": job.get("target-state", "inactive")}
    return {**found, "currentState": current, "machineID": target}
