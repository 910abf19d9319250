"""What `cluster lb` makes of the registrators' answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from coupler.errors import ExitCode, UsageError
from coupler.model import load_cluster
from coupler.result import HostOutcome, State
from coupler.workflows import lb

if TYPE_CHECKING:
    from pathlib import Path


def state(*endpoints: tuple[str, str], ready: bool = True, drains: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the state of a registrator with one route to these endpoints."""
    return {
        "ready": ready,
        "not_ready_because": [] if ready else ["haproxy is not in step"],
        "sources": [{"name": "announcements", "synced": True, "problem": None}],
        "balancers": [{"name": "haproxy", "error": None}],
        "routes": [
            {"host": "shop.test", "path": "/", "exact": False, "headers": {"x": "1"}, "backend": "shop", "ready": 1}
        ],
        "tcp_routes": [],
        "backends": {
            "shop": {"endpoints": [{"uid": a, "address": a, "port": 80, "state": s, "weight": 1} for a, s in endpoints]}
        },
        "problems": [],
        "drains": list(drains),
    }


def answers(**states: dict[str, Any]) -> lb.Answers:
    lost = {"c": HostOutcome("c", State.UNREACHABLE, "it is off", "switch it on")}
    return lb.Answers(("a", "b", "c"), states, lost)


def listed(found: lb.Answers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> lb.LbList:
    monkeypatch.setattr(lb, "_everywhere", lambda *_: found)
    return lb.lb_list(load(tmp_path, "load_balancer: {}"))


def load(tmp_path: Path, more: str, roles: str = "control, lb") -> Any:
    (tmp_path / "cluster.yaml").write_text(
        'version: 1\nname: demo\ngit: {repository: "git://10.0.0.5/demo.git"}\nnodes:\n'
        f"  - {{name: a, address: 10.0.0.11, roles: [{roles}]}}\n{more}\n"
    )
    return load_cluster(tmp_path / "cluster.yaml")


def test_what_nodes_agree_about_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = listed(answers(a=state(("10.0.0.1", "ready")), b=state(("10.0.0.1", "ready"))), monkeypatch, tmp_path)
    assert found.agreed
    assert found.text().splitlines()[1].split() == [
        "shop.test",
        "/*",
        "[x:",
        "1]",
        "shop",
        "10.0.0.1:80",
        "ready",
        "all",
    ]
    assert "unreachable: c: it is off" in found.text()
    assert found.exit_code is ExitCode.HOST_FAILED


def test_what_they_disagree_about_is_a_line_for_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = listed(answers(a=state(("10.0.0.1", "ready")), b=state(("10.0.0.1", "drain"))), monkeypatch, tmp_path)
    assert not found.agreed
    assert [(row.endpoints, row.nodes) for row in found.rows] == [
        (("10.0.0.1:80 ready",), ("a",)),
        (("10.0.0.1:80 drain",), ("b",)),
    ]
    assert "the nodes disagree" in found.text()
    assert found.data()["agreed"] is False


def test_status_fails_where_one_is_not_in_step() -> None:
    ready = lb.Answers(("a",), {"a": state(("::1", "ready"), drains=("::1",))}, {})
    assert lb.LbStatus(ready).exit_code is ExitCode.DONE
    assert "1 of 1 ready" in lb.LbStatus(ready).text()
    unready = lb.LbStatus(lb.Answers(("a",), {"a": state(ready=False)}, {}))
    assert unready.exit_code is ExitCode.HOST_FAILED
    assert "a: haproxy is not in step" in unready.text()


def test_only_endpoints_that_are_there_are_drained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def everywhere(_: Any, __: Any, script: str) -> lb.Answers:
        asked.append(script)
        return lb.Answers(("a",), {"a": state(("10.0.0.1", "ready"))}, {})

    monkeypatch.setattr(lb, "_everywhere", everywhere)
    with pytest.raises(UsageError, match=r"no endpoint is called 10\.0\.0\.2"):
        lb.lb_drain(load(tmp_path, "load_balancer: {}"), "10.0.0.2")
    assert len(asked) == 1
    for name in ("10.0.0.1", "10.0.0.1:80"):
        lb.lb_drain(load(tmp_path, "load_balancer: {}"), name)
        assert "-X PUT" in asked[-1]
    lb.lb_drain(load(tmp_path, "load_balancer: {}"), "/it's/gone", undo=True)
    assert asked[-1].endswith("'http://lb/drains/%2Fit%27s%2Fgone'")


@pytest.mark.parametrize(
    ("more", "roles"), [("", "control, lb"), ("load_balancer: {}", "control")], ids=["no balancer", "no node"]
)
def test_without_a_load_balancer_nobody_is_asked(tmp_path: Path, more: str, roles: str) -> None:
    with pytest.raises(UsageError, match="no node runs the load balancer"):
        lb.lb_status(load(tmp_path, more, roles))


def held(*, holds: bool = False, tenure: str = "none", **more: Any) -> dict[str, Any]:
    """Return the state of a holder of the virtual address."""
    known = {"holds": holds, "tenure": tenure, "conflict_with": None, "etcd": None, "not_ready_because": []}
    return known | more


def test_status_says_who_has_the_virtual_address() -> None:
    found = lb.Answers(("a", "b"), {"a": state(("10.0.0.1", "ready")), "b": state(("10.0.0.1", "ready"))}, {})

    def status(**states: dict[str, Any]) -> lb.LbStatus:
        return lb.LbStatus(found, lb.VirtualAddress("10.0.0.100", lb.Answers(("a", "b"), states, {})))

    well = status(a=held(), b=held(holds=True, tenure="elected"))
    assert (well.exit_code, well.data()["virtual_address"]["holders"]) == (ExitCode.DONE, ["b"])
    assert "10.0.0.100 is at b" in well.text()
    kept = status(a=held(holds=True, tenure="kept", etcd="no quorum"), b=held(not_ready_because=["no quorum"]))
    assert kept.exit_code is ExitCode.DONE
    assert "a: keeps 10.0.0.100, for etcd does not answer: no quorum" in kept.text()
    assert "b: could not have 10.0.0.100: no quorum" in kept.text()
    nobody = status(a=held(), b=held())
    assert nobody.exit_code is ExitCode.HOST_FAILED
    assert "10.0.0.100 is at no node" in nobody.text()
    twice = status(a=held(holds=True, conflict_with="02:00:00:00:00:01"), b=held(holds=True))
    assert twice.exit_code is ExitCode.HOST_FAILED
    assert "a: 02:00:00:00:00:01 claims 10.0.0.100, too" in twice.text()
