"""The stand-in for flanneld, started as its unit starts it; and a real one beside it, where there is one."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.health.machines import Site, until
from tests.standins.build import runnable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.health.machines import Machine

CLUSTER = """\
version: 1
name: leased
git: {repository: "git://10.77.0.9/leased.git"}
etcd: {version: 3.4.27}
fleet: {enabled: false}
kubernetes: {enabled: false}
network: {flannel: {version: 0.18.1}}
nodes:
  - {name: node-1, address: 10.77.0.1, roles: [control, worker]}
  - {name: node-2, address: 10.77.0.2, roles: [worker]}
"""
PKI = "/etc/coupler/pki/etcd"
FLAGS = ["--etcd-endpoints=https://127.0.0.1:2379", "--etcd-prefix=/coreos.com/network"]
FLAGS += [f"--etcd-cafile={PKI}/ca.crt", f"--etcd-certfile={PKI}/client.crt", f"--etcd-keyfile={PKI}/client.key"]
FLAGS += ["--subnet-file=/run/flannel/subnet.env", "--ip-masq"]
CTL = f"ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert={PKI}/ca.crt --cert={PKI}/client.crt"
CTL += f" --key={PKI}/client.key"
CONFIG = '{"Backend": {"Type": "vxlan"}, "Network": "10.244.0.0/16", "SubnetLen": 24}'
LEASES = "/coreos.com/network/subnets"


def real() -> Path | None:
    """Return a real flanneld that has leases in etcd's v3 API, if COUPLER_TEST_MIRROR names a folder with one."""
    found = Path(os.environ.get("COUPLER_TEST_MIRROR", "/nowhere")).glob("flanneld/0.*/*/flanneld")
    return next((path for path in found if int(path.parents[1].name.split(".")[1]) >= 18), None)


@pytest.fixture(params=["two stand-ins", "a stand-in and a real one"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    lacks = [program for program in ("unshare", "nsenter", "bridge", "etcd", "iptables") if not shutil.which(program)]
    if os.geteuid() or lacks:
        pytest.skip(f"machines of their own: this needs root, and {', '.join(lacks) or 'nothing else'}")
    other = None if request.param == "two stand-ins" else real()
    if request.param != "two stand-ins" and not other:
        pytest.skip("a real flanneld since 0.18: COUPLER_TEST_MIRROR names no mirror folder that has it")
    site = Site(tmp_path, CLUSTER)
    try:
        site.install(["etcd", "etcdctl"])
        for name, program in (("node-1", None), ("node-2", other)):
            place = site.machines[name].folder / "bin/flanneld"
            place.symlink_to(program or runnable(tmp_path, "flanneld"))
        site.start_etcd("node-1")
        site.start_gateways()
        until(site.machines["node-1"], "etcd-gateway", "ok")
        yield site
    finally:
        site.close()


def start(machine: Machine, number: int) -> None:
    address = f"10.77.0.{number}"
    machine.start("flanneld", "flanneld", *FLAGS, f"--iface={address}", f"--public-ip={address}")


def subnet(machine: Machine) -> str:
    """Return the lease that its file has, as soon as that is there."""
    deadline = time.monotonic() + 20
    while not (found := machine.run("sh", "-c", ". /run/flannel/subnet.env && echo $FLANNEL_SUBNET").stdout.strip()):
        assert time.monotonic() < deadline, (machine.folder / "flanneld.log").read_text()
        time.sleep(0.1)
    return found


def test_leases_as_coupler_knows_them(site: Site) -> None:
    one, two = site.machines.values()
    start(one, 1)
    time.sleep(1.5)
    assert one.run("test", "-e", "/run/flannel/subnet.env").returncode, "before there is a configuration"
    assert until(one, "flannel", "bad") == "bad it has no subnet yet"
    one.do(f"{CTL} put /coreos.com/network/config '{CONFIG}'")
    start(two, 2)
    first = subnet(one)
    for machine in (one, two):
        own = subnet(machine)
        assert own.startswith("10.244.")
        assert until(machine, "flannel", f"ok {own}; over it 1 of 1") == f"ok {own}; over it 1 of 1 nodes answer"
        lines = machine.do("cat /run/flannel/subnet.env").splitlines()
        assert lines[::2] == ["FLANNEL_NETWORK=10.244.0.0/16", "FLANNEL_MTU=1450"]
        assert lines[3] == "FLANNEL_IPMASQ=true"
        assert "-s 10.244.0.0/16 ! -d 224.0.0.0/4" in machine.do("iptables -t nat -S POSTROUTING")

    one.stop("flanneld")
    one.do("rm /run/flannel/subnet.env")
    start(one, 1)
    assert subnet(one) == first, "by its address"

    one.stop("flanneld")
    one.do(f"{CTL} del --prefix {LEASES}/{first.removesuffix('.1/24')}.")
    start(one, 1)
    until(one, "flannel", "ok")
    assert subnet(one) == first, "by its file"
    key = f"{LEASES}/{first.removesuffix('.1/24')}.0-24"
    assert '{"PublicIP":"10.77.0.1","PublicIPv6":null,"BackendType":"vxlan"' in one.do(f"{CTL} get {key}")
    assert one.started["flanneld"].poll() is None
    one.do(f"{CTL} del {key}")
    one.started["flanneld"].wait(timeout=10)


def test_what_the_real_one_does_not_take_ends_it(site: Site) -> None:
    machine = site.machines["node-2"]
    machine.start("flanneld", "flanneld", "--no-such-flag")
    machine.started["flanneld"].wait(timeout=10)
    assert "flag provided but not defined: -no-such-flag" in (machine.folder / "flanneld.log").read_text()
    machine.start("flanneld", "flanneld", *(flag.replace("client.", "nobody.") for flag in FLAGS))
    assert machine.started["flanneld"].wait(timeout=10) == 1
