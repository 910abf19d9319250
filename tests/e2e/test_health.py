"""Health in the lab: status names what is bad, a pull is judged by what it made worse, a reboot waits for health."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Site

pytestmark = pytest.mark.lab

HANGS = "systemctl kill --signal=STOP etcd"
GOES_ON = "systemctl kill --signal=CONT etcd"
WRONG_GATEWAY = """\
  write_files:
    - path: /etc/systemd/system/etcd-gateway.service.d/90-wrong.conf
      content: |
        [Service]
        ExecStart=
        ExecStart=/opt/bin/etcd gateway start --listen-addr=127.0.0.1:2378 --endpoints=127.0.0.1:1
"""
LOCKSMITHD = """
program=$(systemctl show -P ExecStart locksmithd | sed 's/.* path=\\([^ ]*\\) .*/\\1/')
printf '#!/bin/sh\\nexec sleep infinity\\n' > "$program" && chmod 0755 "$program"
mkdir -p /etc/systemd/system/locksmithd.service.d
printf '[Unit]\\nConditionPathExists=\\n' > /etc/systemd/system/locksmithd.service.d/00-without-update-engine.conf
"""
"""A stand-in for locksmithd, which does nothing but run; the lab's own waits for an update engine, too."""


@pytest.fixture(scope="module")
def site(make_cluster: Callable[[int, str], Site]) -> Site:
    return make_cluster(3, "12s")


@pytest.fixture(autouse=True)
def afresh(site: Site) -> Iterator[None]:
    with site.put_back():
        yield


def until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.2)


def components(site: Site) -> dict[str, dict[str, list[str]]]:
    """Return what `cluster status` says of each component: the nodes where it is well, waits, is bad or unknown."""
    return {entry["component"]: entry for entry in site.json("status").data["components"]}


def test_every_component_is_well_or_waits_for_its_program(site: Site) -> None:
    everywhere, found = list(site.machines), dict[str, dict[str, list[str]]]()

    def each_is_well_or_waits() -> bool:
        found.update(components(site))
        return all(everywhere in (entry["ok"], entry["waiting"]) for entry in found.values())

    until(each_is_well_or_waits, "a component is neither well nor waits everywhere")
    assert {"etcd", "etcd-gateway", "containerd"} <= {name for name, entry in found.items() if entry["ok"]}
    lines = site.inside("node-2", "/opt/bin/coupler-health; true").splitlines()
    assert [line.split()[0] for line in lines] == list(found), "the node runs them all"


def test_status_names_the_member_that_is_stopped(site: Site) -> None:
    site.inside("node-1", "systemctl stop etcd")
    answer = site.cluster("status")
    assert answer.exit_code == 5
    assert "bad: etcd on node-1: it does not answer: " in answer.stdout
    assert "etcd: 2 of 3 members are healthy: the loss of one more stops it" in answer.stdout
    found = components(site)
    assert (found["etcd"]["ok"], found["etcd"]["bad"]) == (["node-2", "node-3"], ["node-1"])
    assert found["etcd-gateway"]["bad"] == [], "it goes to another member"


def test_a_document_is_kept_where_what_is_bad_was_so_before(site: Site) -> None:
    site.inside("node-1", HANGS)
    try:
        site.extra("  write_files:\n    - path: /etc/brought\n      content: new\n")
        assert site.cluster("publish").exit_code == 0
        site.lab.exec("node-1", ["systemctl", "start", "coupler-pull"])
        assert f'"result": "applied", "reason": "", "applied": "{site.published}"' in site.inside(
            "node-1", "cat /run/coupler/status.json; cat /etc/brought"
        )
        assert "bad: etcd on node-1" in site.cluster("status").stdout
    finally:
        site.inside("node-1", GOES_ON)


def test_a_document_that_makes_a_component_bad_is_undone_though_every_unit_runs(site: Site) -> None:
    site.extra(WRONG_GATEWAY)
    answer = site.json("init", "--limit", "node-2")
    assert answer.exit_code == 5
    assert "not healthy within 12 s: etcd-gateway: 127.0.0.1:2379: " in answer.failed["node-2"]
    until(lambda: "node-2" in components(site)["etcd-gateway"]["ok"], "it does not go back")
    assert site.inside("node-2", "ls -d /etc/systemd/system/etcd-gateway.service.d 2>/dev/null; true") == ""


def test_locksmithd_waits_for_health_after_a_reboot(site: Site) -> None:
    """It frees the node's lock as it starts, and then the next node may reboot."""
    site.inside(
        "node-3",
        f"{LOCKSMITHD}\nmkdir -p /etc/systemd/system/etcd.service.d\n"
        "printf '[Unit]\\nConditionPathExists=/nowhere\\n' > /etc/systemd/system/etcd.service.d/99-never.conf",
    )
    site.lab.reboot("node-3")
    until(
        lambda: "etcd bad " in site.inside("node-3", "journalctl -b --quiet -u coupler-healthy -o cat"),
        "nobody says what is bad",
    )
    until(lambda: "applied" in site.inside("node-3", "ls /run/coupler"), "the document is not applied")
    assert site.inside("node-3", "systemctl is-active locksmithd || true") == "inactive"
    assert site.inside("node-3", "systemctl show -P ConditionResult locksmithd") == "no"
    site.inside(
        "node-3", "rm -r /etc/systemd/system/etcd.service.d; systemctl daemon-reload; systemctl start --no-block etcd"
    )
    until(
        lambda: site.inside("node-3", "systemctl is-active locksmithd || true") == "active",
        "locksmithd is not started",
    )
