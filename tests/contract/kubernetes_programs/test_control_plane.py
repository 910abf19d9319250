"""The control plane of real programs: it starts with what Coupler gives it, and keeps what Coupler promises."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from tests.contract.kubernetes_programs.programs import Release, releases
from tests.contract.kubernetes_programs.site import Site
from tests.contract.traffic import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.etcd import Etcd

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"word": "swordfish"}}


@pytest.fixture
def site(tmp_path: Path, etcd: Etcd, release: Release) -> Iterator[Site]:
    site = Site(tmp_path, release, etcd)
    try:
        yield site
    finally:
        site.stop()


@pytest.mark.parametrize("release", releases(*CONTROL_PLANE))
def test_control_plane(site: Site, etcd: Etcd) -> None:
    for program in CONTROL_PLANE:
        site.start(program)

    assert site.ask("kube-apiserver", "/readyz", None)[0] == 401
    eventually(lambda: site.ask("kube-apiserver", "/readyz", "kubelet")[0] == 200, "not ready", within=60)
    assert site.ask("kube-apiserver", "/api/v1/secrets", "kubelet")[0] == 403

    for lease in ("kube-controller-manager", "kube-scheduler"):
        path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}"
        eventually(
            lambda path=path: site.ask("kube-apiserver", path, "admin")[0] == 200, f"no lease {lease}", within=60
        )
    eventually(
        lambda: site.ask("kube-apiserver", "/api/v1/namespaces/default/serviceaccounts/default", "admin")[0] == 200,
        "the controller manager makes no service accounts",
        within=60,
    )

    status, answer = site.ask("kube-apiserver", "/api/v1/namespaces/default/secrets", "admin", SECRET)
    assert status == 201, answer
    stored = json.loads(etcd.ctl("get", "/registry/secrets/default/s", "--write-out=json").stdout)
    value = base64.b64decode(stored["kvs"][0]["value"])
    assert value.startswith(b"k8s:enc:")
    assert b"swordfish" not in value

    events = [json.loads(line) for line in site.audit_log().splitlines()]
    assert any(event["verb"] == "create" and event["objectRef"]["resource"] == "secrets" for event in events)
    assert not any("requestObject" in event or "/readyz" in event["requestURI"] for event in events)

    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}}
    status, answer = site.ask("kube-apiserver", "/api/v1/nodes", "kubelet", node)
    assert (status, "is not allowed" in answer) == (403, True)
