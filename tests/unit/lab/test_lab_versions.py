"""Which versions the lab's cluster.yaml takes from a mirror."""

from __future__ import annotations

import pytest

from coupler.lab.versions import choose
from coupler.model.catalogue import programs_of

KUBERNETES = programs_of("kubernetes")


def kubernetes(version: str, *, without: str = "", arch: str = "amd64") -> list[str]:
    return [f"{name}/{version}/{arch}/{name}" for name in KUBERNETES if name != without]


def etcd(*versions: str) -> list[str]:
    return [f"{name}/{version}/amd64/{name}" for name in ("etcd", "etcdctl") for version in versions]


def test_a_mirror_without_kubernetes_offers_none() -> None:
    found = choose(etcd("3.4.23"), "amd64")
    assert found.etcd.version == "3.4.23"
    assert (found.kubernetes.version, found.kubernetes.why) == (None, "The mirror has no Kubernetes.")
    assert (found.flannel.version, found.fleet.version, found.extras) == (None, None, {})


def test_the_newest_whole_kubernetes_is_taken() -> None:
    places = kubernetes("1.21.14") + kubernetes("1.9.11") + kubernetes("1.36.4", without="kubelet")
    found = choose(places + kubernetes("1.37.0", arch="arm64"), "amd64").kubernetes
    assert found.version == "1.21.14"
    assert found.why.endswith("all programs are there; of 1.36.4 it lacks kubelet.")
    assert choose([*places, *kubernetes("1.36.4")], "amd64").kubernetes.version == "1.36.4"


def test_a_candidate_is_older_than_its_release() -> None:
    places = kubernetes("1.36.0-rc.1") + kubernetes("1.36.0")
    assert choose(places, "amd64").kubernetes.version == "1.36.0"
    assert choose(kubernetes("1.36.0-rc.1") + kubernetes("1.35.9"), "amd64").kubernetes.version == "1.36.0-rc.1"


def test_kubectl_may_be_of_a_neighbouring_version() -> None:
    places = [*kubernetes("1.36.4", without="kubectl"), "kubectl/1.35.1/amd64/kubectl", "kubectl/1.21.0/amd64/kubectl"]
    found = choose(places, "amd64")
    assert found.kubernetes.version == "1.36.4"
    assert found.extras["kubectl"].version == "1.35.1"
    assert found.applies
    without = choose([place for place in places if "1.35.1" not in place], "amd64")
    assert "kubectl" not in without.extras
    assert not without.applies
    assert choose(kubernetes("1.36.4"), "amd64").applies
    assert not choose([], "amd64").applies


def test_a_kubernetes_that_lacks_more_is_none() -> None:
    found = choose(kubernetes("1.36.4", without="kube-proxy"), "amd64").kubernetes
    assert found.version is None
    assert found.why == "The mirror has no Kubernetes as a whole: of 1.36.4 it lacks kube-proxy."


@pytest.mark.parametrize(
    ("versions", "taken"),
    [
        (["2.3.8", "3.4.23"], "3.4.23"),
        (["2.3.8", "3.4.23", "3.5.30", "3.6.14"], "3.5.30"),
        (["3.6.14"], "3.6.14"),
    ],
)
def test_etcd_has_a_v2_api(versions: list[str], taken: str) -> None:
    assert choose(etcd(*versions), "amd64").etcd.version == taken


def test_etcd_comes_with_etcdctl_of_the_same_version_or_in_its_archive() -> None:
    places = [*etcd("3.4.23"), "etcd/3.5.25/amd64/etcd", "etcdctl/3.5.24/amd64/etcdctl"]
    assert choose(places, "amd64").etcd.version == "3.4.23"
    archive = "etcd/3.5.25/amd64/etcd-v3.5.25-linux-amd64.tar.gz"
    assert choose([*places, archive], "amd64").etcd.version == "3.5.25"


def test_old_flannel_fleet_and_what_the_system_lacks() -> None:
    places = ["flanneld/0.5.5/amd64/flanneld", "fleet/1.0.0/amd64/fleet-v1.0.0-linux-amd64.tar.gz"]
    found = choose([*places, "locksmithctl/0.6.2/amd64/locksmithctl", "nonsense/x/amd64/y"], "amd64")
    assert found.flannel.version == "0.5.5"
    assert "v2 API" in found.flannel.why
    assert found.fleet.version == "1.0.0"
    assert found.extras["locksmithctl"].version == "0.6.2"
