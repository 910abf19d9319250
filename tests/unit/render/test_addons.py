"""What control nodes apply to Kubernetes: which addons, with which objects and images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from coupler.model import Cluster, load_cluster
from coupler.model.manifests import objects_of
from coupler.render.addons import FOLDER, OBJECTS, addon_files

BASE = """\
version: 1
name: demo
git: {repository: 'git://10.0.0.5/demo.git'}
nodes: [{name: node-1, address: 10.0.0.11, roles: [control, worker]}]
"""
DOCS = Path(__file__).parents[3] / "docs"


def cluster(folder: Path, more: str = "") -> Cluster:
    (folder / "cluster.yaml").write_text(BASE + more)
    return load_cluster(folder / "cluster.yaml").cluster


def coredns(folder: Path, more: str = "") -> dict[str, dict[str, object]]:
    text = addon_files(cluster(folder, more))[f"{FOLDER}/coredns.yaml"]
    return {found["kind"]: found for found in yaml.safe_load_all(text)}


def test_the_list_has_every_object_of_every_file(tmp_path: Path) -> None:
    manifests = "kubernetes: {addons: {manifests: {mine: [{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}]}}}\n"
    files = addon_files(cluster(tmp_path, manifests + "load_balancer: {kind: haproxy}\n"))
    rows = [line.split() for line in files.pop(OBJECTS).splitlines() if not line.startswith("#")]
    assert list(dict.fromkeys(row[0] for row in rows)) == ["kubelet-access", "coredns", "registrator", "mine"]
    for path, text in files.items():
        assert [row[1:] for row in rows if f"{FOLDER}/{row[0]}.yaml" == path] == [list(o) for o in objects_of(text)]


def test_without_kubernetes_nothing_is_applied(tmp_path: Path) -> None:
    assert not cluster(tmp_path, "kubernetes: {enabled: false}\n").runs_coredns


@pytest.mark.parametrize(
    ("version", "image", "disruption"),
    [
        ("1.21.14", "v1.8.0", "policy/v1beta1"),
        ("1.24.17", "v1.8.6", "policy/v1"),
        ("1.31.4", "v1.11.3", "policy/v1"),
        ("1.36.4", "v1.13.1", "policy/v1"),
    ],
)
def test_coredns_fits_the_version(tmp_path: Path, version: str, image: str, disruption: str) -> None:
    found = coredns(tmp_path, f"kubernetes: {{version: {version}}}\n")
    container = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]  # type: ignore[index]
    assert container["image"] == f"registry.k8s.io/coredns/coredns:{image}"
    assert found["PodDisruptionBudget"]["apiVersion"] == disruption
    assert found["Service"]["spec"]["clusterIP"] == "10.96.0.10"  # type: ignore[index]


@pytest.mark.parametrize(
    ("upstreams", "asked"),
    [("", "/etc/resolv.conf"), ("upstreams: [10.0.0.53, 10.0.0.54]", "10.0.0.53 10.0.0.54"), ("upstreams: []", None)],
)
def test_other_names_are_asked_of_the_upstreams(tmp_path: Path, upstreams: str, asked: str | None) -> None:
    found = coredns(tmp_path, f"kubernetes: {{addons: {{coredns: {{{upstreams}}}}}}}\n")
    corefile = found["ConfigMap"]["data"]["Corefile"]  # type: ignore[index]
    assert re.findall(r"forward \. (.*) {", corefile) == ([asked] if asked else [])
    assert ("loop" in corefile) is bool(asked)
    assert corefile.count("{") == corefile.count("}")


def mirror(folder: Path, *images: str) -> str:
    (folder / "mirror/images").mkdir(parents=True)
    lines = [f"{'a' * 64} {number}.tar amd64 {image}\n" for number, image in enumerate(images)]
    (folder / "mirror/images/INDEX").write_text("".join(lines))
    return "mirror: {url: 'http://10.0.0.5', folder: mirror, only: true}\n"


def test_the_mirrors_image_is_taken(tmp_path: Path) -> None:
    found = cluster(tmp_path, mirror(tmp_path, "registry.k8s.io/pause:3.9", "registry.k8s.io/coredns/coredns:v1.9.3"))
    assert (found.coredns_image, found.runs_coredns) == ("registry.k8s.io/coredns/coredns:v1.9.3", True)


def test_an_air_gapped_mirror_without_the_image_leaves_coredns_out_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(BASE + mirror(tmp_path, "registry.k8s.io/pause:3.9"))
    loaded = load_cluster(tmp_path / "cluster.yaml")
    assert f"{FOLDER}/coredns.yaml" not in addon_files(loaded.cluster)
    assert "coredns-without-image" in [warning.code for warning in loaded.warnings]
    (tmp_path / "cluster.yaml").write_text(loaded.text + "kubernetes: {addons: {coredns: {enabled: true}}}\n")
    assert f"{FOLDER}/coredns.yaml" in addon_files(load_cluster(tmp_path / "cluster.yaml").cluster)


def test_the_registrator_may_do_what_its_page_says(tmp_path: Path) -> None:
    text = addon_files(cluster(tmp_path, "load_balancer: {kind: haproxy}\n"))[f"{FOLDER}/registrator.yaml"]
    granted = rules(found for found in yaml.safe_load_all(text) if found["kind"].endswith("Role"))
    page = (DOCS / "registrator-kubernetes.md").read_text()
    [example] = re.findall(r"^```yaml\n(apiVersion: rbac.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert granted == rules([yaml.safe_load(example)])


def rules(roles: object) -> list[tuple[object, ...]]:
    return [
        (rule["apiGroups"], rule["resources"], rule["verbs"])
        for role in roles  # type: ignore[attr-defined]
        for rule in role["rules"]
    ]
