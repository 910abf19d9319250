"""coupler-health and real etcd, over TLS: members that stop, a quorum that is lost, a database that is full."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.health.machines import SCRIPT, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.health.machines import Site

ETCD_ALONE = """\
fleet: {enabled: false}
kubernetes: {enabled: false}
network: {flannel: {enabled: false}, static_routes: false}"""


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Site]) -> Site:
    site = make_site(3, ETCD_ALONE, control=3)
    site.install(["etcd"])
    site.start_etcd("node-1", "node-2", "node-3")
    site.start_gateways()
    return site


@pytest.fixture(autouse=True)
def well(site: Site) -> None:
    """Every test begins with three healthy members."""
    for name, machine in site.machines.items():
        if "etcd" not in machine.started:
            site.start_etcd(name)
    for machine in site.machines.values():
        until(machine, "etcd", "ok")
        until(machine, "etcd-gateway", "ok")


def test_members_say_who_leads(site: Site) -> None:
    verdicts = [machine.health()["etcd"] for machine in site.machines.values()]
    assert sorted(verdicts) == ["ok follower", "ok follower", "ok leader"]


def test_one_component_may_be_asked_alone(site: Site) -> None:
    assert site.machines["node-2"].health("etcd-gateway") == {"etcd-gateway": "ok"}


def test_it_speaks_posix(site: Site) -> None:
    """Container Linux's /bin/sh is bash, which is then as POSIX has it; the lab's is dash."""
    (site.machines["node-1"].folder / "bin/shell").write_text('#!/bin/sh\nexec bash --posix "$@"\n')
    (site.machines["node-1"].folder / "bin/shell").chmod(0o755)
    assert site.machines["node-1"].health(shell="shell").keys() == {"etcd", "etcd-gateway"}


def test_a_member_that_is_stopped_is_named_by_its_own_node_alone(site: Site) -> None:
    site.machines["node-1"].stop("etcd")
    assert "Couldn't connect" in until(site.machines["node-1"], "etcd", "bad it does not answer: ")
    assert until(site.machines["node-1"], "etcd-gateway", "ok") == "ok", "it goes on to another member"
    until(site.machines["node-2"], "etcd", "ok")
    gate = site.machines["node-1"].health("--gate")["etcd.service"]
    assert gate.startswith("bad etcd: it does not answer: "), "no other node is to blame"


def test_without_a_quorum_the_gate_blames_nobody_who_lives(site: Site) -> None:
    site.machines["node-1"].stop("etcd")
    site.machines["node-2"].stop("etcd")
    third = site.machines["node-3"]
    assert until(third, "etcd", "bad no leader") == "bad no leader: 1 of 3 members answer"
    gate = third.health("--gate")
    assert gate["etcd.service"] == "waiting etcd: no leader: 1 of 3 members answer"
    assert gate["etcd-gateway.service"] == "ok etcd-gateway:", "it reaches a member, healthy or not"
    third.stop("etcd")
    site.start_etcd("node-3")
    said = until(third, "etcd.service", "waiting", "--gate")
    assert said == "waiting etcd: no leader: 1 of 3 members answer", (
        "it starts, and serves no client before it has a leader"
    )


def test_a_member_that_the_others_do_not_understand_is_to_blame_itself(site: Site) -> None:
    """Its peers answer, and still it finds no leader: that is its own configuration."""
    first = site.machines["node-1"]
    first.stop("etcd")
    peer = first.folder / "etc/pki/etcd/peer.crt"
    right = peer.read_bytes()
    # Of another authority, though the key fits.
    done = subprocess.run(
        ["openssl", "req", "-x509", "-new", "-key", f"{peer.with_suffix('.key')}", "-subj", "/CN=node-1", "-days", "1"],
        capture_output=True,
        check=True,
    )
    peer.write_bytes(done.stdout)
    try:
        site.start_etcd("node-1")
        until(first, "etcd.service", "bad etcd: ", "--gate")
    finally:
        first.stop("etcd")
        peer.write_bytes(right)


def test_an_alarm_is_the_reason(site: Site) -> None:
    first = site.machines["node-1"]
    pki = "/etc/coupler/pki/etcd"
    ctl = (
        f"ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert={pki}/ca.crt --cert={pki}/client.crt"
        f" --key={pki}/client.key"
    )
    first.do("head -c 1000000 /dev/zero | tr '\\0' x > /run/big")
    first.do(f"for i in $(seq 40); do {ctl} put k$i < /run/big; done || true")
    assert until(first, "etcd", "bad") == "bad alarm NOSPACE"
    revision = first.do(f"{ctl} get k -w json | grep -o '\"revision\":[0-9]*' | grep -o '[0-9]*'")
    first.do(f"{ctl} del --prefix k && {ctl} compact {revision}")
    for node in site.cluster.nodes:
        first.do(f"{ctl.replace('127.0.0.1', str(node.address))} defrag")
    first.do(f"{ctl} alarm disarm")


def test_a_clock_that_makes_certificates_wrong_is_named(site: Site) -> None:
    """A certificate is made valid from an hour before: a node two days behind finds none that is."""
    [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    said = site.machines["node-1"].run("env", f"LD_PRELOAD={library}", "FAKETIME=-2d", "sh", str(SCRIPT), "etcd")
    assert "certificate is not yet valid; this node's clock says " in said.stdout


def test_what_lacks_its_program_waits_with_the_reason_of_the_fetch(site: Site) -> None:
    machine = site.machines["node-2"]
    machine.stop("etcd")
    (machine.folder / "bin/etcd").unlink()
    (machine.folder / "run/artifacts").write_text("waiting etcd 3.5.25 the mirror does not have it\n")
    try:
        verdicts = machine.health()
        assert verdicts["etcd"] == "waiting etcd: the mirror does not have it"
    finally:
        (machine.folder / "bin/etcd").touch()
        (machine.folder / "run/artifacts").write_text("")
