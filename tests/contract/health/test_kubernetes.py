"""coupler-health and Kubernetes: a stand-in API server over TLS, which knows its users by their certificates."""

from __future__ import annotations

import re
import shutil
import socketserver
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.certificates import certificate
from tests.contract.health.machines import SCRIPT, until
from tests.contract.health.processes import Process
from tests.fakes.kube_thread import KubeThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.health.machines import Machine, Site

PROGRAMS = ("kubectl", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
KUBERNETES = """\
fleet: {enabled: false}
network: {flannel: {enabled: false}, static_routes: false}"""
RIGHTS = {
    "system:node:node-1": ("/readyz", "/livez", "/healthz", "/api/v1/nodes/node-1", "/api/v1/.*services"),
    "system:kube-controller-manager": (
        *("/readyz", "/livez", "/healthz"),
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager",
    ),
    "system:kube-scheduler": (
        *("/readyz", "/livez", "/healthz"),
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler",
    ),
    "system:kube-proxy": (
        *("/readyz", "/livez", "/healthz"),
        "/api/v1/nodes/.*",
        "/(api/v1|apis/discovery.k8s.io/v1)/.*(services|endpoints|endpointslices)",
    ),
}
"""What each user of a node may read, of what there is to ask, by the node authorizer and the roles that an API server
makes for itself: pkg/.../rbac/bootstrappolicy/policy.go and the docs, 'Using RBAC Authorization'."""


def may(user: str, request: str) -> bool:
    return any(re.fullmatch(f"GET {path}", request) for path in RIGHTS.get(user, ()))


@dataclass
class Kubernetes:
    """A control node with everything on it, and the switches of the programs that are stand-ins."""

    site: Site
    machine: Machine
    api: KubeThread
    controllers: Process
    scheduler: Process
    kubelet: Process
    proxy: Process

    def lease(self, name: str, holder: str, age: float = 0) -> None:
        renewed = (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": f"{holder}_4b1f", "leaseDurationSeconds": 15, "renewTime": renewed}
        self.put("coordination.k8s.io/v1", "Lease", name, spec=spec)

    def node(self, ready: str, message: str, **spec: Any) -> None:
        conditions = [
            {
                "type": "DiskPressure",
                "status": "False",
                "reason": "KubeletHasNoDiskPressure",
                "message": "it has {none}",
            },
            {"type": "Ready", "status": ready, "reason": "KubeletX", "message": message},
        ]
        status = {"conditions": conditions, "addresses": [{"type": "InternalIP", "address": "10.77.0.1"}]}
        self.put("v1", "Node", "node-1", spec=spec, status=status)

    def put(self, version: str, kind: str, name: str, **more: Any) -> None:
        space = {} if kind == "Node" else {"namespace": "kube-system"}
        labels = more.pop("labels", {})
        self.api.put(
            {"kind": kind, "apiVersion": version, "metadata": {"name": name, "labels": labels, **space}} | more
        )


@pytest.fixture(scope="module")
def kubernetes(make_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    site = make_site(1, KUBERNETES)
    site.install(PROGRAMS)
    machine = site.machines["node-1"]
    (machine.folder / "cni").mkdir()
    site.start_etcd("node-1")
    site.start_gateways()
    endpoint = ("--listen-addr=127.0.0.1:6443", "--endpoints=10.77.0.1:6443")
    machine.start("api-gateway", "/usr/bin/etcd", "gateway", "start", *endpoint)
    keys = machine.folder / "etc/pki/kubernetes"
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(keys / "ca.crt"))
    tls.load_cert_chain(keys / "apiserver.crt", keys / "apiserver.key")
    tls.verify_mode = ssl.CERT_OPTIONAL
    api = KubeThread(prepare=machine.join_network, host="10.77.0.1", port=6443, tls=tls, rights=may)
    own = own_certificate(tmp_path_factory.mktemp("own"))
    kubernetes = Kubernetes(
        *(site, machine, api, Process(machine, 10257, own), Process(machine, 10259, own)),
        *(Process(machine, 10248), Process(machine, 10256)),
    )
    metrics = Process(machine, 10249, proxyMode="iptables")
    yield kubernetes
    for process in (kubernetes.controllers, kubernetes.scheduler, kubernetes.kubelet, kubernetes.proxy, metrics):
        process.stop()
    api.close()


def own_certificate(folder: Path) -> ssl.SSLContext:
    """Return what a program serves with that was given no certificate: one of its own making."""
    made = certificate("localhost")
    (folder / "both.pem").write_text(made.chain + made.key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "both.pem")
    return tls


@pytest.fixture(autouse=True)
def well(kubernetes: Kubernetes) -> None:
    """Every test begins with what is well."""
    kubernetes.api.do(kubernetes.api.api.failing.clear)
    for process in (kubernetes.controllers, kubernetes.scheduler, kubernetes.kubelet, kubernetes.proxy):
        process.failing.clear()
    kubernetes.lease("kube-controller-manager", "node-1")
    kubernetes.lease("kube-scheduler", "node-1")
    kubernetes.node("True", "kubelet is posting ready status")
    program(kubernetes, "ctr", "printf 'Client:\\n  Version:  1.6.20\\n\\nServer:\\n  Version:  1.6.24\\n'")
    rule = "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y"
    program(kubernetes, "iptables-save", f"printf '*nat\\n:KUBE-SERVICES - [0:0]\\n{rule}\\nCOMMIT\\n'")
    report(kubernetes, "applied coredns\napplied kubelet-access\napplied node-labels\n")
    until(kubernetes.machine, "etcd", "ok")
    until(kubernetes.machine, "api-gateway", "ok")


def report(kubernetes: Kubernetes, text: str) -> None:
    """Write what coupler-addons writes after an attempt."""
    (kubernetes.machine.folder / "run/addons").write_text(text)


def program(kubernetes: Kubernetes, name: str, script: str) -> None:
    """Put a program into the machine's PATH: what containerd and iptables would print there."""
    path = kubernetes.machine.folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_everything_is_well(kubernetes: Kubernetes) -> None:
    assert kubernetes.machine.health() == {
        "etcd": "ok leader",
        "etcd-gateway": "ok",
        "api": "ok",
        "api-gateway": "ok",
        "controllers": "ok node-1 leads",
        "scheduler": "ok node-1 leads",
        "containerd": "ok 1.6.24",
        "kubelet": "ok",
        "kube-proxy": "ok iptables",
        "addons": "ok coredns, kubelet-access",
        "dns": "waiting there is no service kube-dns in the namespace kube-system",
    }


def test_probes_run_side_by_side(kubernetes: Kubernetes) -> None:
    """Each of two waits until the other has begun."""
    kubernetes.machine.do("rm -f /run/one /run/two")
    rule = "-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X"
    program(kubernetes, "ctr", "touch /run/one; until [ -e /run/two ]; do sleep 0.1; done")
    program(kubernetes, "iptables-save", f"touch /run/two; until [ -e /run/one ]; do sleep 0.1; done; echo '{rule}'")
    assert kubernetes.machine.health("containerd", "kube-proxy") == {"containerd": "ok", "kube-proxy": "ok iptables"}


def test_a_program_that_hangs_is_not_waited_for(kubernetes: Kubernetes) -> None:
    program(kubernetes, "ctr", "sleep 1000")
    assert kubernetes.machine.health("containerd") == {"containerd": "bad it does not answer within 3 s"}


def test_a_lease_that_nobody_renews(kubernetes: Kubernetes) -> None:
    kubernetes.lease("kube-scheduler", "node-1", age=3600)
    said = kubernetes.machine.health("scheduler")["scheduler"]
    assert re.fullmatch(r"bad the lease of node-1 has not been renewed for 36\d\d s", said)


def test_failed_checks_of_the_api_are_the_reason(kubernetes: Kubernetes) -> None:
    kubernetes.api.do(lambda: kubernetes.api.api.failing.update({"etcd", "poststarthook/rbac/bootstrap-roles"}))
    assert kubernetes.machine.health("api") == {"api": "bad not ready: etcd, poststarthook/rbac/bootstrap-roles"}
    gate = kubernetes.machine.health("--gate", "api", "kubelet")
    assert gate["kube-apiserver.service"].startswith("bad"), "etcd is healthy: it is the server's own"


def test_the_gate_waits_for_etcd(kubernetes: Kubernetes) -> None:
    kubernetes.machine.stop("etcd")
    kubernetes.api.do(lambda: kubernetes.api.api.failing.add("etcd"))
    kubernetes.kubelet.failing.add("syncloop")
    try:
        gate = kubernetes.machine.health("--gate")
        assert gate["etcd.service"].startswith("bad"), "a single member has nobody else to wait for"
        assert gate["kube-apiserver.service"] == "waiting api: no member of etcd is healthy"
        assert gate["kube-apiserver-gateway.service"] == "waiting api-gateway: no API server is ready"
        assert gate["kubelet.service"] == "waiting kubelet: no API server is ready"
        assert gate["containerd.service"] == "ok containerd: 1.6.24"
    finally:
        kubernetes.site.start_etcd("node-1")


def test_a_lease_is_judged_by_its_renewal_where_clocks_differ(kubernetes: Kubernetes) -> None:
    """The holder's clock is an hour behind: its lease looks old, and changes every two seconds."""
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(1):
            kubernetes.lease("kube-scheduler", "node-2", age=3600)

    thread = threading.Thread(target=renew)
    kubernetes.lease("kube-scheduler", "node-2", age=3600)
    thread.start()
    try:
        assert kubernetes.machine.health("scheduler") == {"scheduler": "ok node-2 leads"}
    finally:
        stop.set()
        thread.join()


def test_before_anybody_leads(kubernetes: Kubernetes) -> None:
    kubernetes.api.do(lambda: kubernetes.api.api.delete("leases", "kube-controller-manager", "kube-system"))
    assert kubernetes.machine.health("controllers") == {"controllers": "bad nobody leads yet"}
    assert kubernetes.machine.health("--gate", "controllers") == {"kube-controller-manager.service": "ok controllers:"}


def test_a_program_that_is_not_healthy(kubernetes: Kubernetes) -> None:
    kubernetes.controllers.failing.add("leaderElection")
    assert kubernetes.machine.health("controllers") == {"controllers": "bad not healthy: leaderElection"}


def test_a_node_is_ready_when_the_api_says_so(kubernetes: Kubernetes) -> None:
    kubernetes.node("False", 'container runtime network not ready: message:"cni plugin not initialized"')
    assert kubernetes.machine.health("kubelet") == {
        "kubelet": "bad not Ready: container runtime network not ready: message:cni plugin not initialized"
    }
    assert kubernetes.machine.health("--gate", "kubelet") == {"kubelet.service": "ok kubelet:"}, "CNI comes later"
    kubernetes.node("True", "kubelet is posting ready status", unschedulable=True)
    assert kubernetes.machine.health("kubelet") == {"kubelet": "ok cordoned"}
    kubernetes.api.do(lambda: kubernetes.api.api.delete("nodes", "node-1"))
    assert kubernetes.machine.health("kubelet") == {"kubelet": "bad it has not registered"}


def test_a_proxy_without_the_rule_of_the_api_has_written_none(kubernetes: Kubernetes) -> None:
    program(kubernetes, "iptables-save", "printf '*nat\\n:KUBE-SERVICES - [0:0]\\nCOMMIT\\n'")
    said = kubernetes.machine.health("kube-proxy")["kube-proxy"]
    assert said == "bad no iptables rule for 10.96.0.1, the service of the API:"


@pytest.mark.skipif(not shutil.which("iptables"), reason="this host lacks iptables")
def test_real_rules_are_found(kubernetes: Kubernetes) -> None:
    (kubernetes.machine.folder / "bin/iptables-save").unlink()
    assert kubernetes.machine.health("kube-proxy")["kube-proxy"].startswith("bad no iptables rule")
    kubernetes.machine.do(
        "iptables -t nat -N KUBE-SERVICES"
        " && iptables -t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp --dport 443 -j ACCEPT"
    )
    assert kubernetes.machine.health("kube-proxy") == {"kube-proxy": "ok iptables"}


def test_addons_are_as_the_last_attempt_left_them(kubernetes: Kubernetes) -> None:
    labels = "waiting node-labels node-2 has not joined\n"
    report(kubernetes, f'waiting coredns namespaces "nowhere" not found\napplied kubelet-access\n{labels}')
    assert kubernetes.machine.health("addons") == {"addons": 'bad coredns: namespaces "nowhere" not found'}
    assert kubernetes.machine.health("--gate", "addons") == {}, "what is applied is no matter of one node's document"
    report(kubernetes, "applied kubelet-access\nwaiting node-labels node-2, node-3 has not joined\n")
    assert kubernetes.machine.health("addons") == {"addons": "ok kubelet-access; node-2, node-3 has not joined"}
    (kubernetes.machine.folder / "run/addons").unlink()
    assert kubernetes.machine.health("addons") == {"addons": "bad nothing is applied yet"}


def test_an_addon_that_is_refused_holds_no_reboot_up(kubernetes: Kubernetes) -> None:
    report(kubernetes, "waiting coredns it is invalid\n")
    assert kubernetes.machine.health("addons") == {"addons": "bad coredns: it is invalid"}
    until(kubernetes.machine, "etcd-gateway", "ok")
    for name in ("kube-controller-manager", "kube-scheduler"):
        kubernetes.lease(name, "node-1")
    waited = kubernetes.machine.run("timeout", "20", "sh", str(SCRIPT), "--wait")
    assert waited.returncode == 0, waited.stdout
    assert waited.stdout.endswith("healthy\n")


def test_addons_wait_for_an_api_server(kubernetes: Kubernetes) -> None:
    report(kubernetes, "waiting kubelet-access the API does not answer: connection refused\n")
    assert kubernetes.machine.health("addons")["addons"].startswith("bad kubelet-access: the API does not answer")
    kubernetes.api.do(lambda: kubernetes.api.api.failing.add("etcd"))
    assert kubernetes.machine.health("addons") == {"addons": "waiting no API server is ready"}


def test_a_refusal_is_named(kubernetes: Kubernetes) -> None:
    own, refused = "system:node:node-1", kubernetes.api.api.refused_tokens
    kubernetes.api.do(lambda: refused.add(own))
    try:
        said = kubernetes.machine.health("api")["api"]
    finally:
        kubernetes.api.do(lambda: refused.discard(own))
    assert said.startswith("bad it refuses this node's certificate (HTTP 401); this node's clock says 2")
    rights = RIGHTS.pop(own)
    try:
        assert kubernetes.machine.health("api") == {"api": "bad it gives this node no right to ask (HTTP 403)"}
    finally:
        RIGHTS[own] = rights


class _Answers(socketserver.BaseRequestHandler):
    """A name server that knows one name (RFC 1035)."""

    def handle(self) -> None:
        query, socket = self.request
        name_end = query.index(b"\0", 12) + 1
        known = query[12:name_end] == b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0"
        header = (
            query[:2] + (b"\x85\x80" if known else b"\x85\x83") + b"\0\1" + (b"\0\1" if known else b"\0\0") + bytes(4)
        )
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4" + bytes([10, 96, 0, 1]) if known else b""
        socket.sendto(header + query[12 : name_end + 4] + answer, self.client_address)


def test_dns_is_asked_for_the_api_where_its_service_is(kubernetes: Kubernetes) -> None:
    listed = kubernetes.machine.folder / "etc/addons/objects"
    listed.parent.mkdir()
    listed.write_text("# addon version kind namespace name\ncoredns v1 Service kube-system kube-dns\n")
    assert kubernetes.machine.health("dns") == {"dns": "bad the service kube-dns is not applied yet"}
    kubernetes.put("v1", "Service", "kube-dns", spec={"clusterIP": "10.77.0.53", "clusterIPs": ["10.77.0.53"]})
    labels = {"kubernetes.io/service-name": "kube-dns"}
    down = [{"addresses": ["10.244.0.9"], "conditions": {"ready": False}}]
    kubernetes.put("discovery.k8s.io/v1", "EndpointSlice", "kube-dns-x", labels=labels, endpoints=down)
    assert kubernetes.machine.health("dns") == {"dns": "bad no pod of it is ready"}
    up = [{"addresses": ["10.244.0.9"], "conditions": {"ready": True}}]
    kubernetes.put("discovery.k8s.io/v1", "EndpointSlice", "kube-dns-x", labels=labels, endpoints=up)
    said = kubernetes.machine.health("dns")["dns"]
    assert said == "bad 10.77.0.53 says of kubernetes.default.svc.cluster.local: nothing"
    kubernetes.machine.do("ip address add 10.77.0.53/32 dev lo")
    servers: list[socketserver.UDPServer] = []
    up_event = threading.Event()

    def serve() -> None:
        kubernetes.machine.join_network()
        servers.append(socketserver.UDPServer(("10.77.0.53", 53), _Answers))
        up_event.set()
        servers[0].serve_forever(0.01)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert up_event.wait(10)
    try:
        assert kubernetes.machine.health("dns") == {"dns": "ok 10.77.0.53"}
        assert not (kubernetes.machine.folder / "upper/resolv.conf").exists(), "nothing is changed"
    finally:
        servers[0].shutdown()
        servers[0].server_close()
        thread.join()
