"""The fake vulcand against what real ones did with the same writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.vulcand import ExitsError, Vulcand

RECORDINGS = Path(__file__).parents[2] / "fixtures" / "vulcand"
ACTIONS = {"put": "set", "create": "create", "update": "update", "cas_value": "compareAndSwap"}
ACTIONS |= {"cas_rev": "compareAndSwap", "delete": "delete", "compareAndDelete": "compareAndDelete"}

LIVE = {  # after which write, what was observed, of which path (and host)
    "01-create-backend-server-frontend": [(2, "after", "/c0/x"), (3, "after delete", "/c0/x")],
    "02-frontend-before-backend": [(0, "frontend only", "/d0/x"), (1, "then backend", "/d0/x"), (3, "then", "/d0/x")],
    "03-server-added": [(3, "distribution of 40 requests", "/")],
    "04-server-deleted": [(4, "distribution after", "/"), (5, "all servers deleted", "/")],
    "06-server-url-changed-by-prevExist": [(3, "distribution", "/"), (6, "distribution after it", "/")],
    "07-server-url-changed-by-cas": [
        (3, "distribution", "/"),
        (4, "after a plain PUT of the value already stored: distribution", "/"),
        (5, "distribution after that", "/"),
        (6, "compareAndDelete (prevValue): distribution", "/"),
    ],
    "08-backend-deleted-while-in-use": [
        (4, "only key backends/b1/backend deleted", "/"),
        (5, "backend key PUT again: distribution", "/"),
        (6, "whole backend tree deleted (frontend still there)", "/"),
        (8, "distribution 4", "/"),
        (9, "frontend PUT again: distribution", "/"),
    ],
    "24-frontend-changes": [
        (6, "old route", "/"),
        (7, "Host route: right host", "/", "shop.example"),
        (7, "Host route: host with port", "/", "shop.example:80"),
        (7, "Host route: upper case", "/", "SHOP.example"),
        (7, "Host route: other", "/", "other.example"),
        (12, "invalid route PUT over it: old host regexp route", "/", "a.example"),
        (14, "two frontends with the same route", "/same"),
        (15, "second one deleted", "/same"),
        (17, "overlap /p/.* (b1=s0) and /p/long/.* (b2=s2): GET /p/long/x", "/p/long/x"),
    ],
}
ONE_API = {"06-server-url-changed-by-prevExist": "v2", "07-server-url-changed-by-cas": "v2"}
PATHS = {
    "Path: /exact, /exact/, /exact/more": (8, ["/exact", "/exact/", "/exact/more"]),
    'PathRegexp("/api(/.*)?"): /api /api/ /api/x /apix /x/api': (9, ["/api", "/api/", "/api/x", "/apix", "/x/api"]),
    'PathRegexp("^/api(/.*)?$"): /api /api/ /api/x /apix /x/api': (10, ["/api", "/api/", "/api/x", "/apix", "/x/api"]),
}


class Replay:
    """One recording, and the keys in etcd as its writes left them."""

    def __init__(self, name: str, api: str) -> None:
        self.recording: dict[str, Any] = json.loads((RECORDINGS / f"{name}.{api}.json").read_text())
        self.observed: dict[str, Any] = self.recording["observed"]
        self.api = int(api[1:])
        self.keys: dict[str, str] = {}
        self.directories: set[str] = set()
        self.seal_key = bytes.fromhex(self.recording.get("seal_key", ""))

    def write(self, number: int, vulcand: Vulcand | None) -> None:
        """Carry out a write in etcd, and tell a vulcand of it."""
        write = self.recording["writes"][number]
        path = write["key"].strip("/").removeprefix("vulcand").strip("/")
        if write["op"] == "delete_prefix":
            gone = [key for key in sorted(self.keys) if f"{key}/".startswith(f"{path}/" if path else "")]
            self.keys = {key: value for key, value in self.keys.items() if key not in gone}
            self.directories = {each for each in self.directories if not f"{each}/".startswith(f"{path}/")}
            for each in gone if self.api == 3 else [path]:
                if vulcand is not None:
                    vulcand.event("delete", each)
            return
        if "delete" in write["op"].lower():
            self.keys.pop(path, None)
        else:
            self.keys[path] = write["value"]
            self.directories.add("/".join(path.split("/")[:2]))
        if vulcand is not None:
            action = ACTIONS[write["op"]]
            if self.api == 3:
                action = "delete" if "delete" in action.lower() else "put"
            vulcand.event(action, path, write.get("value"))

    def restarted(self) -> Vulcand:
        vulcand = Vulcand(self.api, self.seal_key)
        vulcand.start(self.keys, self.directories if self.api == 2 else ())
        return vulcand


def agree(observed: Any, answered: tuple[int, frozenset[str]]) -> None:
    """Compare an observation, in one of the forms of the recordings, with what the fake would answer."""
    status, servers = answered
    names = {f"s{int(url.rpartition(':')[2]) - 22600}" for url in servers}
    if isinstance(observed, list):
        observed = {"status": observed[0], "backend": observed[1]}
    if "status" in observed:
        assert status == observed["status"]
        assert (observed["backend"] in names) if names else observed["backend"] is None
        return
    seen = {tuple(answer.split()) for answer in observed}
    assert seen == ({(str(status), name) for name in names} or {(str(status), "None")})


# of those of one API, the rounds of the other are written down once, and end with another server
@pytest.mark.parametrize(("name", "api"), [(name, api) for name in LIVE for api in ONE_API.get(name, "v2 v3").split()])
def test_requests_are_answered_as_recorded(name: str, api: str) -> None:
    replay, vulcand = Replay(name, api), Vulcand(int(api[1:]))
    checks = LIVE[name]
    for number in range(len(replay.recording["writes"])):
        if number <= max(check[0] for check in checks):
            replay.write(number, vulcand)
            for _, what, *request in (check for check in checks if check[0] == number):
                agree(replay.observed[what], vulcand.ask(*request))
    assert not vulcand.refused or name[:2] in {"02", "06", "07", "08", "24"}


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_paths_match_as_recorded(api: str) -> None:
    replay, vulcand = Replay("24-frontend-changes", api), Vulcand(int(api[1:]))
    wanted = {number: (what, paths) for what, (number, paths) in PATHS.items()}
    for number in range(12):
        replay.write(number, vulcand)
        if number in wanted:
            what, paths = wanted[number]
            assert [vulcand.ask(path, "shop.example")[0] for path in paths] == replay.observed[what]
    hosts = ["a.example", "shop.test", "a.example.org"]
    assert [vulcand.ask("/", host)[0] for host in hosts] == replay.observed["HostRegexp"]


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_teardowns_are_answered_as_recorded(api: str) -> None:
    replay, vulcand = Replay("09-teardown-order", api), Vulcand(int(api[1:]))
    for block, seen in enumerate(replay.observed.values()):
        vulcand = Vulcand(replay.api)
        for number in range(6 * block, 6 * block + 3):
            replay.write(number, vulcand)
        for offset, (_, expected) in enumerate(seen["after each delete"]):
            replay.write(6 * block + 3 + offset, vulcand)
            agree(expected, vulcand.ask("/"))


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_recursive_deletions_are_seen_as_recorded(api: str) -> None:
    replay = Replay("32-recursive-delete", api)
    writes = replay.recording["writes"]
    blocks = iter(replay.observed.values())
    vulcand = Vulcand(replay.api)
    for number, write in enumerate(writes):
        if write["op"] == "put" and number and writes[number - 1]["op"] == "delete_prefix":
            replay.keys.clear()
            vulcand = Vulcand(replay.api)
        replay.write(number, vulcand)
        last = number + 1 == len(writes) or writes[number + 1]["op"] == "put"
        if write["op"] == "delete_prefix" and last:
            agree(next(blocks)["routed 0.4 s later"], vulcand.ask("/"))
    assert next(blocks, None) is None


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_a_start_goes_as_recorded(api: str) -> None:
    replay = Replay("33-leftover-empty-directories", api)
    writes = replay.recording["writes"]
    blocks = iter(replay.observed.values())
    for number, write in enumerate(writes):
        if write["op"] == "put" and number and writes[number - 1]["op"] == "delete":
            replay.keys.clear()
            replay.directories.clear()
        replay.write(number, None)
        if write["op"] == "delete" and (number + 1 == len(writes) or writes[number + 1]["op"] == "put"):
            seen = next(blocks)["after vulcand restart"]
            if seen["alive"]:
                agree(seen["keep"], replay.restarted().ask("/keep/x"))
            else:
                with pytest.raises(ExitsError):
                    replay.restarted()


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_half_a_backend_at_the_start(api: str) -> None:
    replay = Replay("10-servers-without-backend-key-at-start", api)
    for number in range(4):
        replay.write(number, None)
    if not replay.observed["alive"]:
        with pytest.raises(ExitsError):
            replay.restarted()
        return
    vulcand = replay.restarted()
    for number in range(4, 6):
        replay.write(number, vulcand)
    agree(replay.observed["backend key added later, then frontend: distribution"], vulcand.ask("/half/x"))


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_a_frontend_without_its_backend_at_the_start(api: str) -> None:
    replay = Replay("12-frontend-to-missing-backend-at-start", api)
    for number in range(4):
        replay.write(number, None)
    assert replay.observed["good"]["status"] == 0
    with pytest.raises(ExitsError):
        replay.restarted()


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_names_that_begin_others(api: str) -> None:
    replay = Replay("19-prefix-collision-backend-ids", api)
    for number in range(25, 34):
        replay.write(number, None)
    vulcand = replay.restarted()
    for name, seen in replay.observed["all three present, vulcand restarted: distributions"].items():
        agree(seen, vulcand.ask(f"/{name}/x"))


@pytest.mark.parametrize("api", ["v2", "v3"])
def test_certificates_are_shown_as_recorded(api: str) -> None:
    replay = Replay("35-hosts", api)
    vulcand = Vulcand(replay.api, replay.seal_key)
    for number, seen in enumerate(replay.observed):
        replay.write(number, vulcand)
        _show(seen["live"], vulcand)
        if seen["started anew"] is None:
            with pytest.raises(ExitsError):
                replay.restarted()
        else:
            _show(seen["started anew"], replay.restarted())


def _show(observed: dict[str, str | None], vulcand: Vulcand) -> None:
    for name, common in observed.items():
        assert common in ({shown.common for shown in vulcand.shows(name)} or {None})
