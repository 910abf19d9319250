"""coupler-health and the pods' network: real vxlan between machines, as flannel sets it up, leases in real etcd."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.contract.health.machines import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.health.machines import Site

MORE = """\
etcd: {{version: "3.4.27"}}
fleet: {{enabled: false}}
kubernetes: {{enabled: false}}
network: {{flannel: {{version: "{version}"}}}}"""
PKI = "/etc/coupler/pki/etcd"
V3 = (
    f"ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert={PKI}/ca.crt --cert={PKI}/client.crt"
    f" --key={PKI}/client.key put"
)
V2 = (
    f"ETCDCTL_API=2 etcdctl --endpoints=https://127.0.0.1:2379 --ca-file={PKI}/ca.crt --cert-file={PKI}/client.crt"
    f" --key-file={PKI}/client.key set"
)


def flannel(site: Site, put: str) -> None:
    """Do on every machine what flannel's vxlan backend does, and write what it writes into etcd."""
    site.install(["etcd", "etcdctl", "flanneld"])
    site.start_etcd("node-1")
    site.start_gateways()
    until(site.machines["node-1"], "etcd-gateway", "ok")
    macs = {}
    for number, (name, machine) in enumerate(site.machines.items(), 1):
        macs[number] = f"02:42:00:00:00:{number:02}"
        machine.do(
            f"ip link add flannel.1 address {macs[number]} type vxlan id 1 local 10.77.0.{number} dev eth0"
            " dstport 8472 nolearning"
            f" && ip address add 10.244.{number}.0/32 dev flannel.1 && ip link set flannel.1 up"
            f" && mkdir /run/flannel && echo FLANNEL_SUBNET=10.244.{number}.1/24 > /run/flannel/subnet.env"
        )
        lease = {"PublicIP": f"10.77.0.{number}", "BackendType": "vxlan", "BackendData": {"VtepMAC": macs[number]}}
        machine.do(
            f"{put} /coreos.com/network/subnets/10.244.{number}.0-24 '{json.dumps(lease, separators=(',', ':'))}'"
        )
        assert name == f"node-{number}"
    for number, machine in enumerate(site.machines.values(), 1):
        for other in macs.keys() - {number}:
            machine.do(
                f"ip neigh add 10.244.{other}.0 lladdr {macs[other]} dev flannel.1"
                f" && bridge fdb append {macs[other]} dev flannel.1 dst 10.77.0.{other}"
                f" && ip route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink"
            )


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Site]) -> Site:
    site = make_site(4, MORE.format(version="0.27.4"))
    flannel(site, V3)
    return site


def test_nodes_answer_over_the_network_of_pods(site: Site) -> None:
    said = site.machines["node-1"].health("flannel")
    assert said == {"flannel": "ok 10.244.1.1/24; over it 3 of 3 nodes answer"}


def test_a_node_that_is_silent_there_is_at_fault_itself(site: Site) -> None:
    """It is up: the others hear it on their own network. Most of them hear each other, and it hears none."""
    site.machines["node-2"].do("ip link set flannel.1 down")
    said = site.machines["node-2"].health("flannel")
    assert said == {"flannel": "bad it has the subnet 10.244.2.1/24, and no interface flannel.1 that is up"}
    assert site.machines["node-1"].health("flannel") == {
        "flannel": "ok 10.244.1.1/24; over it 2 of 3 nodes answer, not node-2"
    }
    site.machines["node-2"].do("ip link set flannel.1 up && bridge fdb show dev flannel.1 > /run/fdb")
    site.machines["node-2"].do(
        "while read -r mac _ address _; do bridge fdb del $mac dev flannel.1 dst $address; done < /run/fdb"
    )
    said = site.machines["node-2"].health("flannel")
    assert said["flannel"].startswith("bad no answer over the pods' network from node-")
    gate = site.machines["node-2"].health("--gate")
    assert gate == {"etcd-gateway.service": "ok etcd-gateway:", "flanneld.service": "ok flannel:"}


def test_a_node_that_is_down_is_no_fault_of_others(site: Site) -> None:
    site.machines["node-3"].do("ip link set eth0 down")
    said = site.machines["node-4"].health("flannel")["flannel"]
    assert said.startswith("ok 10.244.4.1/24; over it 1 of ")
    assert "node-3" not in said
    site.machines["node-3"].do("ip link set eth0 up")


def test_before_it_has_a_subnet(site: Site) -> None:
    site.machines["node-4"].do("mv /run/flannel/subnet.env /run/flannel/kept")
    assert site.machines["node-4"].health("flannel") == {"flannel": "bad it has no subnet yet"}
    site.machines["node-4"].do("mv /run/flannel/kept /run/flannel/subnet.env")


def test_leases_of_a_flannel_that_keeps_them_in_the_old_api(make_site: Callable[..., Site]) -> None:
    site = make_site(2, MORE.format(version="0.5.5"))
    flannel(site, V2)
    said = site.machines["node-2"].health("flannel")
    assert said == {"flannel": "ok 10.244.2.1/24; over it 1 of 1 nodes answer"}
