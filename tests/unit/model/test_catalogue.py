from __future__ import annotations

import re
from pathlib import Path

import pytest

from coupler import __version__
from coupler.model import Artifact, catalogue, load_cluster
from coupler.model.catalogue import PROGRAMS, component_of, programs_of, source_of

CLUSTERS = Path(__file__).parents[2] / "fixtures" / "cluster"
CONTROL_PLANE = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
KUBERNETES = [*CONTROL_PLANE, "kube-proxy", "kubelet", "kubectl", "cni-plugins"]


def artifacts(tmp_path: Path, more: str) -> dict[str, Artifact]:
    text = (CLUSTERS / "valid" / "one-node.yaml").read_text()
    (tmp_path / "cluster.yaml").write_text(text + more)
    return {artifact.name: artifact for artifact in load_cluster(tmp_path / "cluster.yaml").cluster.artifacts_needed}


def mirror(tmp_path: Path, *lines: str) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "SHA256SUMS").write_text("".join(line + "\n" for line in lines))


@pytest.mark.parametrize(
    ("switches", "needed"),
    [
        ("", ["etcd", "etcdctl", "flanneld", "fleetd", "fleetctl", *KUBERNETES]),
        ("kubernetes: {enabled: false}", ["etcd", "etcdctl", "flanneld", "fleetd", "fleetctl"]),
        ("fleet: {enabled: false}\nnetwork: {flannel: {enabled: false}}", ["etcd", "etcdctl", *KUBERNETES]),
        ("os: {distribution: container-linux}\nkubernetes: {enabled: false}", []),
    ],
    ids=["all", "no-kubernetes", "no-fleet-no-flannel", "shipped"],
)
def test_switches_and_image_decide_what_is_needed(tmp_path: Path, switches: str, needed: list[str]) -> None:
    assert list(artifacts(tmp_path, switches)) == needed


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_default_versions_have_checksums_but_for_fleet(tmp_path: Path, arch: str) -> None:
    for artifact in artifacts(tmp_path, f"os: {{arch: {arch}}}").values():
        known = re.fullmatch("[0-9a-f]{64}", artifact.sha256 or "")
        assert bool(known) == (artifact.name not in {"fleetd", "fleetctl"})
        assert len(artifact.urls) == 1
        assert arch in artifact.urls[0]
        assert artifact.version in artifact.urls[0]


def test_programs_of_one_archive_share_it() -> None:
    found = {a.name: a for a in load_cluster(CLUSTERS / "valid" / "one-node.yaml").cluster.artifacts_needed}
    assert found["etcd"].urls == found["etcdctl"].urls
    assert found["etcd"].sha256 == found["etcdctl"].sha256
    assert found["etcdctl"].member == "etcd-v3.5.25-linux-amd64/etcdctl"
    assert (found["cni-plugins"].member, found["cni-plugins"].target) == (".", "/opt/cni/bin")
    assert found["kubelet"].member is None


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_kubernetes_is_known_whole_from_1_24_to_the_newest(arch: str) -> None:
    for minor in range(24, 37):
        known = [source_of(name, f"1.{minor}.0", arch) for name in programs_of("kubernetes")]
        assert [source.name for source in known if not source.sha256] == []
    for name in programs_of("kubernetes"):
        known_before = source_of(name, "1.21.0", arch).sha256
        assert bool(known_before) == (name in {"kubelet", "kubectl"})  # no record has the others


def test_no_file_is_recorded_twice_and_every_sum_belongs_to_a_program() -> None:
    lines = (Path(catalogue.__file__).with_name("checksums.txt")).read_text().splitlines()
    entries = [line for line in lines if not line.startswith("#")]
    places = [line[66:] for line in entries]
    assert len(places) == len(set(places))
    assert all(re.fullmatch(r"[0-9a-f]{64}  [a-z0-9-]+/\d+\.\d+\.\d+/(amd64|arm64)", line) for line in entries)
    assert {place.split("/")[0] for place in places} <= {*PROGRAMS, *(component_of(name) for name in PROGRAMS)}


@pytest.mark.parametrize(
    ("version", "file", "member"),
    [
        ("0.5.5", "v0.5.5/flannel-0.5.5-linux-amd64.tar.gz", "flannel-0.5.5/flanneld"),
        ("0.6.0", "v0.6.0/flanneld-amd64", None),
        ("0.14.0", "v0.14.0/flanneld-amd64", None),
        ("0.27.4", "v0.27.4/flanneld-amd64", None),
    ],
)
def test_flannel_was_an_archive_at_first(tmp_path: Path, version: str, file: str, member: str | None) -> None:
    flanneld = artifacts(tmp_path, f"network: {{flannel: {{version: {version}}}}}")["flanneld"]
    assert flanneld.urls == (f"https://github.com/flannel-io/flannel/releases/download/{file}",)
    assert (flanneld.member, flanneld.target) == (member, "/opt/bin/flanneld")


def test_what_the_system_may_lack_is_fetched_only_where_it_is_named(tmp_path: Path) -> None:
    optional = {"containerd", "containerd-shim-runc-v2", "ctr", "runc", "crictl", "locksmithctl"}
    assert not optional & set(artifacts(tmp_path, ""))
    found = artifacts(tmp_path, "artifacts: {containerd: {version: 1.6.20}, runc: {}, crictl: {}}")
    assert optional & set(found) == optional - {"locksmithctl"}
    assert {found[name].version for name in ("containerd", "containerd-shim-runc-v2", "ctr")} == {"1.6.20"}
    assert len({(found[name].urls, found[name].sha256) for name in ("containerd", "ctr")}) == 1
    assert (found["ctr"].member, found["ctr"].target) == ("bin/ctr", "/opt/bin/ctr")
    assert all(found[name].sha256 for name in optional - {"locksmithctl"})


def test_of_a_program_that_upstream_does_not_build_the_mirrors_newest_is_taken(tmp_path: Path) -> None:
    nowhere = artifacts(tmp_path, "artifacts: {locksmithctl: {}}")["locksmithctl"]
    assert (nowhere.version, nowhere.urls) == ("", ())
    mirror(tmp_path, *(f"{'4' * 64}  locksmithctl/{version}/amd64/locksmithctl" for version in ("0.6.2", "0.10.0")))
    found = artifacts(tmp_path, "artifacts: {locksmithctl: {}}\nmirror: {url: 'http://m', folder: mirror}")
    assert found["locksmithctl"].urls == ("http://m/locksmithctl/0.10.0/amd64/locksmithctl",)


def test_a_version_that_is_not_in_the_catalogue_has_no_checksum(tmp_path: Path) -> None:
    assert artifacts(tmp_path, "etcd: {version: 3.5.999}")["etcd"].sha256 is None


def test_an_override_is_taken_as_it_stands(tmp_path: Path) -> None:
    found = artifacts(tmp_path, f"artifacts: {{kubelet: {{sha256: {'a' * 64}}}, etcd: {{url: 'https://h/etcd'}}}}\n")
    assert found["kubelet"].sha256 == "a" * 64
    assert found["kubelet"].urls[0].startswith("https://dl.k8s.io/")
    assert found["etcd"] == Artifact("etcd", "3.5.25", "/opt/bin/etcd", ("https://h/etcd",), None, None)


def test_a_mirror_comes_before_upstream(tmp_path: Path) -> None:
    kubelet = artifacts(tmp_path, "mirror: {url: 'http://m/'}")["kubelet"]
    assert kubelet.urls[0] == "http://m/kubernetes/1.35.1/amd64/kubelet"
    assert kubelet.urls[1].startswith("https://dl.k8s.io/")


def test_a_bare_program_in_the_mirror_is_no_archive(tmp_path: Path) -> None:
    mirror(tmp_path, f"{'1' * 64}  etcd/3.5.25/amd64/etcd")
    etcd = artifacts(tmp_path, "mirror: {url: 'http://m', folder: mirror}")["etcd"]
    assert etcd == Artifact("etcd", "3.5.25", "/opt/bin/etcd", ("http://m/etcd/3.5.25/amd64/etcd",), "1" * 64, None)


def test_the_archive_in_the_mirror_wins_over_the_catalogue(tmp_path: Path) -> None:
    archive = "etcd/3.5.25/amd64/etcd-v3.5.25-linux-amd64.tar.gz"
    mirror(tmp_path, f"{'2' * 64}  ./{archive}")
    found = artifacts(tmp_path, "mirror: {url: 'http://m', folder: mirror}")
    for name in ("etcd", "etcdctl"):
        assert found[name].urls == (f"http://m/{archive}",)
        assert found[name].sha256 == "2" * 64
        assert found[name].member == f"etcd-v3.5.25-linux-amd64/{name}"


def test_upstream_stays_second_where_it_holds_the_same_bytes(tmp_path: Path) -> None:
    known = artifacts(tmp_path, "")["kubelet"].sha256
    mirror(tmp_path, f"{known}  kubelet/1.35.1/amd64/kubelet")
    kubelet = artifacts(tmp_path, "mirror: {url: 'http://m', folder: mirror}")["kubelet"]
    assert kubelet.urls[0] == "http://m/kubelet/1.35.1/amd64/kubelet"
    assert len(kubelet.urls) == 2


def test_with_a_mirror_alone_what_it_lacks_has_no_url(tmp_path: Path) -> None:
    known = artifacts(tmp_path, "")["kubelet"].sha256
    mirror(tmp_path, f"{known}  kubelet/1.35.1/amd64/kubelet")
    found = artifacts(tmp_path, "mirror: {url: 'http://m', folder: mirror, only: true}")
    assert found["kubelet"].urls == ("http://m/kubelet/1.35.1/amd64/kubelet",)
    assert found["etcd"].urls == ()


def balancing(tmp_path: Path, more: str) -> dict[str, Artifact]:
    text = (CLUSTERS / "valid" / "one-node.yaml").read_text().replace("[control", "[lb, control")
    (tmp_path / "cluster.yaml").write_text(text + more)
    cluster = load_cluster(tmp_path / "cluster.yaml").cluster
    assert not {"registrator", "haproxy", "nginx"} & {artifact.name for artifact in cluster.artifacts_needed}
    return {artifact.name: artifact for artifact in cluster.balancing_artifacts}


def test_without_a_load_balancer_no_node_needs_the_registrator(tmp_path: Path) -> None:
    assert balancing(tmp_path, "") == {}


def test_the_registrator_has_this_version_and_comes_from_the_mirror_alone(tmp_path: Path) -> None:
    place = f"registrator/{__version__}/amd64/registrator.tar.gz"
    mirror(tmp_path, f"{'3' * 64}  {place}")
    found = balancing(tmp_path, "load_balancer: {}\nmirror: {url: 'http://m', folder: mirror}")
    target = "/opt/coupler/registrator"
    assert found == {"registrator": Artifact("registrator", __version__, target, (f"http://m/{place}",), "3" * 64, ".")}
    assert balancing(tmp_path, "load_balancer: {}")["registrator"].urls == ()


def test_another_registrator_is_unpacked_whole_and_a_balancer_is_fetched_only_where_named(tmp_path: Path) -> None:
    more = (
        "load_balancer: {kind: nginx}\nartifacts: {registrator: {url: 'https://h/r.tgz'}, nginx: {url: 'https://h/n'}}"
    )
    found = balancing(tmp_path, more)
    assert (found["registrator"].urls, found["registrator"].member) == (("https://h/r.tgz",), ".")
    assert found["nginx"] == Artifact("nginx", "", "/opt/bin/nginx", ("https://h/n",), None, None)
