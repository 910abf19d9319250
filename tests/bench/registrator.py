"""What the registrator takes from a change on the API server's wire to a balancer that has it, and what it weighs.

`registrator run` is a process, fed by the stand-in API server in another. Each size is backends by endpoints of each; a
backend more, whose endpoint is there, takes the requests. A change is one endpoint more or less in one EndpointSlice.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.kube_server import KubeServer
from tests.bench.measure import Row, table
from tests.contract.etcd import Etcd
from tests.contract.haproxy.world import Balancer as HAProxyBed
from tests.contract.nginx.world import Balancer as NginxBed
from tests.contract.service.world import Registrator
from tests.contract.traffic import App
from tests.fakes.kube_objects import endpoint_slice, service

from coupler.registrator.balancers.vulcand.ids import server_id
from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = ((10, 1), (1000, 1), (1000, 10))
_ROUNDS, _RELOADS = 200, 10
_PATIENCE = 60.0
_IDLE_SECONDS = 10.0
_AUDIT, _AUDITS = 2.0, 3


@dataclass
class Site:
    """Services with endpoints on the API server. Of each backend one endpoint comes and goes."""

    kube: KubeServer
    app: App
    backends: int
    endpoints: int
    more: dict[int, str] = field(default_factory=dict)
    _addresses: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    def publish(self) -> None:
        """Write everything that there is at first."""
        for number in range(self.backends):
            note = {"coupler.io/host": f"web-{number}.test"}
            self.kube.put(service(f"web-{number}", 80, annotations=note), self._slice(number))
        self.kube.put(service("fresh", 80, annotations={"coupler.io/host": "fresh.test"}), self.fresh())

    def turn(self, number: int) -> tuple[float, str | None]:
        """Add an endpoint to a backend, or take it away again; return when, and its address if it was added."""
        added = None if self.more.pop(number, None) else self._address()
        if added:
            self.more[number] = added
        return self.kube.put(self._slice(number)), added

    def fresh(self, *, ready: bool = False) -> dict[str, Any]:
        """Return the slice of the backend that has one endpoint or none."""
        entries = [(f"uid-{self._address()}", "127.0.0.1", "ready")] if ready else []
        return endpoint_slice("fresh", "fresh", self.app.port, *entries)

    def _slice(self, number: int) -> dict[str, Any]:
        fixed = [f"10.{number >> 8}.{number & 255}.{n + 1}" for n in range(self.endpoints)]
        entries = [(f"{number:08x}-0000-4000-8000-{address}", address, "ready") for address in fixed]
        if address := self.more.get(number):
            entries.append((f"uid-{address}", address, "ready"))
        return endpoint_slice(f"web-{number}-abcde", f"web-{number}", self.app.port, *entries)

    def _address(self) -> str:
        number = next(self._addresses)
        return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


class Stats:
    """HAProxy's stats socket, kept open."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self.ask("prompt")

    def ask(self, command: str) -> str:
        """Return the answer to a command."""
        self._socket.sendall(command.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n> "):
            answer += self._socket.recv(65536)
        return answer.decode()

    def close(self) -> None:
        """Let go."""
        self._socket.close()


@dataclass
class Measured:
    """Seconds of one balancer at one size."""

    acknowledged: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)


def quantile(seconds: list[float], part: float) -> float:
    """Return the smallest value that `part` of them do not exceed."""
    return sorted(seconds)[max(0, -(-len(seconds) * round(100 * part) // 100) - 1)]


def until(what: Callable[[], bool], pause: float = 0.0) -> float:
    """Return when `what` held, by the monotonic clock. Raises TimeoutError."""
    deadline = time.monotonic() + _PATIENCE
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} never holds")
        time.sleep(pause)
    return time.monotonic()


def status(port: int, host: str) -> int:
    """Return the status that a request gets, 0 for none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def serving(site: Site, port: int) -> float:
    """Return the seconds from a first endpoint on the wire to the first request that it serves."""
    site.kube.put(site.fresh())
    until(lambda: status(port, "fresh.test") in {502, 503, 504}, 0.001)
    time.sleep(0.05)
    began = site.kube.put(site.fresh(ready=True))
    return until(lambda: status(port, "fresh.test") == 200) - began


@contextlib.contextmanager
def running(folder: Path, site: Site, balancer: dict[str, Any], **more: Any) -> Iterator[Registrator]:
    """Run a registrator from the site to a balancer; it is ended where this ends."""
    settings = {"sources": {"kubernetes": {"server": site.kube.url}}, "balancers": balancer, **more}
    registrator = Registrator(folder / "registrator", settings)
    registrator.start(ready=False)
    try:
        yield registrator
    finally:
        registrator.kill()


def in_step(registrator: Registrator) -> bool:
    """Whether it says that the balancer has everything."""
    try:
        return registrator.get("/readyz")[0] == 200
    except OSError:
        return False


@contextlib.contextmanager
def haproxy(folder: Path, app: App) -> Iterator[HAProxyBed]:
    """A HAProxy that runs."""
    bed = HAProxyBed(folder, (app, app))
    bed.write_base()
    asyncio.run(bed.adapter().prepare(Desired()))
    bed.start()
    try:
        yield bed
    finally:
        bed.kill()


def haproxy_settings(bed: HAProxyBed) -> dict[str, Any]:
    """Return how the registrator reaches it."""
    return {
        "haproxy": {
            "socket": str(bed.socket),
            "config": str(bed.config),
            "base": [str(bed.base)],
            "http": [f"127.0.0.1:{bed.port}"],
            "tcp-address": "127.0.0.1",
            "reload-interval": 0.1,
        }
    }


def move_haproxy(site: Site, bed: HAProxyBed, rounds: int) -> Measured:
    """Change endpoints, and look at the stats socket until they are there."""
    measured, stats = Measured(), Stats(bed.socket)
    name = {
        number: backend
        for backend in stats.ask("show backend").split()
        if (found := re.search(r"web-(\d+)", backend)) and (number := int(found[1])) >= 0
    }
    for turn in range(rounds):
        number = turn // 2 % site.backends
        before = site.more.get(number)
        began, added = site.turn(number)
        address, command = added or before, f"show servers state {name[number]}"
        there = added is not None
        measured.acknowledged.append(until(lambda: (f" {address} " in stats.ask(command)) is there) - began)  # noqa: B023
        time.sleep(0.01)
    server = next(
        line.split()[3] for line in stats.ask(f"show servers state {name[0]}").splitlines() if "10.0.0.1" in line
    )
    for turn in range(rounds):
        began = time.monotonic()
        stats.ask(f"set server {name[0]}/{server} weight {100 - turn % 2}")
        measured.floor.append(time.monotonic() - began)
    stats.ask(f"set server {name[0]}/{server} weight 100")
    stats.close()
    measured.served = [serving(site, bed.port) for _ in range(rounds // 4)]
    return measured


@contextlib.contextmanager
def nginx(folder: Path, app: App) -> Iterator[NginxBed]:
    """An nginx that runs."""
    bed = NginxBed(folder, (app, app))
    bed.write_main()
    asyncio.run(bed.adapter().prepare(Desired()))
    bed.start()
    try:
        yield bed
    finally:
        bed.stop()


def nginx_settings(bed: NginxBed) -> dict[str, Any]:
    """Return how the registrator reaches it."""
    settings = bed.settings()
    return {
        "nginx": {
            "folder": str(settings.folder),
            "main": str(bed.main),
            "pid-file": str(settings.pid_file),
            "http": list(settings.http_binds),
            "tcp-address": "127.0.0.1",
            "status": settings.status,
        }
    }


def move_nginx(site: Site, bed: NginxBed, rounds: int) -> Measured:
    """Change endpoints, and ask which generation of its files nginx runs until it is another."""
    measured = Measured()
    for turn in range(rounds):
        before = bed.generation()
        began, _ = site.turn(turn % site.backends)
        measured.acknowledged.append(until(lambda: bed.generation() not in {None, before}) - began)  # noqa: B023
        time.sleep(0.3)
    measured.served = [serving(site, bed.port) for _ in range(rounds)]
    return measured


def reload_nginx(bed: NginxBed, measured: Measured, rounds: int) -> None:
    """Reload by hand, for a file that differs in its generation alone; no registrator may run that would mend it."""
    for turn in range(rounds):
        text = bed.text()
        before = next(word.rstrip(";") for word in text.split() if re.fullmatch("[0-9a-f]{32};", word))
        until(lambda: bed.generation() == before, 0.01)  # noqa: B023 (the registrator's last one may be under way)
        time.sleep(0.3)  # a master that just reloaded waits before it reads its configuration again
        after = f"{before}{turn}"
        bed.settings().http.write_text(text.replace(before, after))
        began = time.monotonic()
        os.kill(int(bed.settings().pid_file.read_text()), signal.SIGHUP)
        measured.floor.append(until(lambda: bed.generation() == after) - began)  # noqa: B023
        bed.settings().http.write_text(text)
        os.kill(int(bed.settings().pid_file.read_text()), signal.SIGHUP)
        until(lambda: bed.generation() == before)  # noqa: B023


class EtcdKeys:
    """An etcd's v3 API over one kept connection (its JSON gateway)."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)

    def put(self, key: str, value: str) -> None:
        """Write a key."""
        self._post("put", {"key": _coded(key), "value": _coded(value)})

    def count(self, key: str, end: str | None = None) -> int:
        """Return how many keys there are from `key` on and before `end`; without it 1 or 0."""
        more = {"range_end": _coded(end)} if end else {}
        return int(self._post("range", {"key": _coded(key), "count_only": True, **more}).get("count", 0))

    def names(self, key: str, end: str) -> list[str]:
        """Return the names of keys."""
        found = self._post("range", {"key": _coded(key), "range_end": _coded(end), "keys_only": True}).get("kvs", [])
        return [base64.b64decode(one["key"]).decode() for one in found]

    def _post(self, what: str, body: dict[str, Any]) -> Any:
        self._connection.request("POST", f"/v3/kv/{what}", json.dumps(body))
        return json.loads(self._connection.getresponse().read())


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def move_vulcand(site: Site, etcd: Etcd, rounds: int) -> Measured:
    """Change endpoints, and read vulcand's keys in etcd until they are there."""
    measured, keys = Measured(), EtcdKeys(etcd.port)
    folders = {name.split("/")[2] for name in keys.names("vulcand/backends/", "vulcand/backends0")}
    name = {int(found[1]): one for one in folders if (found := re.search(r"web-(\d+)", one))}
    for turn in range(rounds):
        number = turn // 2 % site.backends
        before = site.more.get(number)
        began, added = site.turn(number)
        key = f"vulcand/backends/{name[number]}/servers/{server_id(f'http://{added or before}:{site.app.port}')}"
        wanted = int(added is not None)
        measured.acknowledged.append(until(lambda: keys.count(key) == wanted) - began)  # noqa: B023
        time.sleep(0.01)
    for turn in range(rounds):
        began = time.monotonic()
        keys.put("bench/floor", str(turn))
        measured.floor.append(time.monotonic() - began)
    return measured


def measure(folder: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of the registrator, and lines about what it weighs at the largest size."""
    app, rows, lines = App("bench"), list[Row](), list[str]()
    try:
        for place, (backends, endpoints) in enumerate(SIZES):
            largest = place == len(SIZES) - 1
            kube = KubeServer()
            try:
                site = Site(kube, app, backends, endpoints)
                site.publish()
                size = f"{backends:,} by {endpoints:,}"
                for name, bed in _BEDS.items():
                    here = folder / f"{name}-{place}"
                    here.mkdir()
                    found, said = bed(here, site, size, largest)
                    rows += found
                    lines += said
            finally:
                kube.close()
    finally:
        app.stop()
    return rows, lines


def _with_haproxy(folder: Path, site: Site, size: str, largest: bool) -> tuple[list[Row], list[str]]:
    lines = []
    with haproxy(folder, site.app) as bed:
        began = time.monotonic()
        with running(folder, site, haproxy_settings(bed)) as registrator:
            synced = until(lambda: in_step(registrator), 0.005) - began
            time.sleep(5)
            measured = move_haproxy(site, bed, _ROUNDS)
            if largest:
                lines = [
                    f"first sync, its own start and HAProxy's reload included: {synced:.1f} s",
                    *weight(registrator),
                ]
        if largest:
            with running(folder, site, haproxy_settings(bed), audit=_AUDIT) as registrator:
                until(lambda: in_step(registrator), 0.05)
                lines.append(f"longest stall of the loop during audits: {stall(registrator) * 1000:.0f} ms")
    return result(measured, f"HAProxy, {size}", "`set server` on a bare socket"), lines


def _with_nginx(folder: Path, site: Site, size: str, _largest: bool) -> tuple[list[Row], list[str]]:
    with nginx(folder, site.app) as bed:
        with running(folder, site, nginx_settings(bed)) as registrator:
            until(lambda: in_step(registrator), 0.05)
            time.sleep(3)
            measured = move_nginx(site, bed, _RELOADS)
        reload_nginx(bed, measured, _RELOADS)
        return result(measured, f"nginx, {size}", "a bare reload"), []


def _with_vulcand(folder: Path, site: Site, size: str, _largest: bool) -> tuple[list[Row], list[str]]:
    etcd = Etcd(folder)
    etcd.start()
    try:
        with running(folder, site, {"vulcand": {"etcd": {"endpoints": [etcd.url]}}}) as registrator:
            until(lambda: in_step(registrator), 0.05)
            time.sleep(3)
            return result(move_vulcand(site, etcd, _ROUNDS), f"vulcand's keys, {size}", "an etcd put"), []
    finally:
        etcd.stop()


_BEDS = {"haproxy": _with_haproxy, "nginx": _with_nginx, "vulcand": _with_vulcand}


def result(measured: Measured, what: str, beside: str) -> list[Row]:
    """Return the rows of one balancer at one size."""
    floor = quantile(measured.floor, 0.5)
    parts = {"acknowledged": measured.acknowledged, "first request": measured.served}
    return [
        Row(f"{what}: {name}, p{round(100 * part)}", quantile(seconds, part), beside, floor)
        for name, seconds in parts.items()
        if seconds
        for part in (0.5, 0.99)
    ]


def weight(registrator: Registrator) -> list[str]:
    """Return lines about the memory of a registrator, and about its processor time while nothing happens."""
    assert registrator.process is not None
    folder = Path(f"/proc/{registrator.process.pid}")
    resident = int(next(line.split()[1] for line in (folder / "status").read_text().splitlines() if "VmRSS" in line))
    before = _ticks(folder)
    time.sleep(_IDLE_SECONDS)
    used = (_ticks(folder) - before) / os.sysconf("SC_CLK_TCK") / _IDLE_SECONDS
    return [f"resident memory: {resident / 1024:.0f} MB", f"processor time while idle: {100 * used:.1f} %"]


def _ticks(folder: Path) -> int:
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def stall(registrator: Registrator) -> float:
    """Return the longest time that a question to a registrator waits while it audits its balancer."""
    longest, end = 0.0, time.monotonic() + _AUDIT * (_AUDITS + 1)
    while time.monotonic() < end:
        began = time.monotonic()
        registrator.get("/healthz")
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.002)
    return longest


def main() -> None:
    """Measure the registrator alone."""
    with tempfile.TemporaryDirectory(prefix="coupler-bench-") as name:
        rows, lines = measure(Path(name))
    sys.stdout.write("\n".join([table(rows), "", *lines, ""]))


if __name__ == "__main__":
    main()
