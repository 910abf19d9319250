"""Every certificate of a cluster, held to openssl's verifier, and a kubeconfig's to a server that asks for it."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import yaml
from cryptography import x509

from coupler.model import load_cluster
from coupler.workflows.certificates import NODE_FOLDER, Store, authorities, certificates_of
from coupler.workflows.kubeconfig import kubeconfig
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from coupler.model import LoadedCluster
    from coupler.workflows.certificates import Certificate

CLUSTER = """\
version: 1
name: demo
git: {repository: "git://10.0.0.5/demo.git"}
kubernetes: {endpoint: "api.example.org:443", certificate_names: [api.example.net, 10.0.0.5]}
load_balancer: {}
nodes:
  - {name: "node-[1-3]", address: 10.0.0.11-10.0.0.13, roles: [control]}
  - {name: "node-4", address: 10.0.0.14, roles: [worker]}
  - {name: "node-5", address: 10.0.0.15, roles: [lb]}
"""
CONTROL = {
    *("apiserver", "apiserver-kubelet-client", "front-proxy-client", "controller-manager", "scheduler", "addons"),
    *("kubelet", "proxy"),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedCluster:
    file = tmp_path_factory.mktemp("site") / "cluster.yaml"
    file.write_text(CLUSTER)
    loaded = load_cluster(file)
    (file.parent / ".coupler").mkdir(mode=0o755)
    Workspace.beside(file).prepare()
    Store(pki_of(loaded), loaded.cluster).make(datetime.now(UTC))
    return loaded


def pki_of(loaded: LoadedCluster) -> Path:
    return loaded.path.parent / ".coupler" / "pki"


def verified(loaded: LoadedCluster, certificate: Certificate, authority: str, *options: str) -> bool:
    folder = pki_of(loaded)
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", f"{folder}/{authority}.crt", *options]
    done = subprocess.run([*argv, f"{folder}/{certificate.path}.crt"], check=False, capture_output=True, text=True)
    return done.returncode == 0


def test_openssl_takes_each_certificate_for_its_purpose_and_from_its_authority_alone(loaded: LoadedCluster) -> None:
    for certificate in certificates_of(loaded.cluster):
        profile = certificate.profile
        for authority in authorities(loaded.cluster):
            own = authority == certificate.authority
            assert verified(loaded, certificate, authority) is own, (certificate.path, authority)
        for purpose, meant in (("sslserver", profile.server), ("sslclient", profile.client)):
            assert verified(loaded, certificate, certificate.authority, "-purpose", purpose) is meant, certificate.path


def test_servers_are_known_by_each_of_their_names_and_by_no_other(loaded: LoadedCluster) -> None:
    for certificate in certificates_of(loaded.cluster):
        for name in certificate.profile.dns_names:
            assert verified(loaded, certificate, certificate.authority, "-verify_hostname", name), (certificate, name)
        for address in certificate.profile.addresses:
            assert verified(loaded, certificate, certificate.authority, "-verify_ip", str(address))
        if certificate.profile.server:
            assert not verified(loaded, certificate, certificate.authority, "-verify_hostname", "other.example.org")
            assert not verified(loaded, certificate, certificate.authority, "-verify_ip", "10.0.0.99")


def test_api_servers_have_the_names_that_clients_inside_and_outside_use(loaded: LoadedCluster) -> None:
    names = ["kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "kubernetes", "localhost"]
    servers = [c for c in certificates_of(loaded.cluster) if c.name == "kubernetes/apiserver"]
    assert [c.node for c in servers] == ["node-1", "node-2", "node-3"]
    for number, certificate in enumerate(servers, 1):
        for name in [*names, "api.example.org", "api.example.net", f"node-{number}"]:
            assert verified(loaded, certificate, "kubernetes/ca", "-verify_hostname", name), name
        for address in ["127.0.0.1", str(loaded.cluster.network.services[1]), "10.0.0.5", f"10.0.0.1{number}"]:
            assert verified(loaded, certificate, "kubernetes/ca", "-verify_ip", address), address


def test_users_and_groups_are_those_that_kubernetes_knows(loaded: LoadedCluster) -> None:
    """https://kubernetes.io/docs/setup/best-practices/certificates/, and 'Using Node Authorization'."""
    subjects = {
        certificate.path.removeprefix("nodes/"): x509.load_pem_x509_certificate(
            (pki_of(loaded) / f"{certificate.path}.crt").read_bytes()
        ).subject.rfc4514_string()
        for certificate in certificates_of(loaded.cluster)
    }
    assert {path: subject for path, subject in subjects.items() if "node-1/kubernetes" in path} == {
        "node-1/kubernetes/apiserver": "CN=kube-apiserver",
        "node-1/kubernetes/apiserver-kubelet-client": "CN=kube-apiserver-kubelet-client,O=system:masters",
        "node-1/kubernetes/front-proxy-client": "CN=front-proxy-client",
        "node-1/kubernetes/controller-manager": "CN=system:kube-controller-manager",
        "node-1/kubernetes/scheduler": "CN=system:kube-scheduler",
        "node-1/kubernetes/addons": "CN=coupler-addons,O=system:masters",
        "node-1/kubernetes/kubelet": "CN=system:node:node-1,O=system:nodes",
        "node-1/kubernetes/proxy": "CN=system:kube-proxy",
    }
    assert subjects["node-4/kubernetes/kubelet"] == "CN=system:node:node-4,O=system:nodes"
    assert subjects["kubernetes/admin"] == "CN=admin,O=system:masters"


def test_authorities_sign_no_authorities_and_last_longer_than_what_they_sign(loaded: LoadedCluster) -> None:
    for name in authorities(loaded.cluster):
        found = x509.load_pem_x509_certificate((pki_of(loaded) / f"{name}.crt").read_bytes())
        basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
        assert (usage.critical, usage.value.key_cert_sign) == (True, True)
        assert (found.not_valid_after_utc - datetime.now(UTC)).days > 3600


def test_a_node_gets_the_keys_of_its_roles_and_no_other(loaded: LoadedCluster) -> None:
    store = Store(pki_of(loaded), loaded.cluster)
    keys = {
        node.name: {
            path.removeprefix(f"{NODE_FOLDER}/").removesuffix(".key")
            for path, (_, mode) in store.files_for(node).items()
            if mode != 0o644
        }
        for node in loaded.cluster.nodes
    }
    every = {"etcd/client", "kubernetes/kubelet", "kubernetes/proxy"}
    assert keys["node-4"] == every
    assert keys["node-5"] == {*every, "etcd/registrator"}
    control = {f"kubernetes/{name}" for name in (*CONTROL, "service-account", "encryption.yaml")}
    for node in ("node-1", "node-2", "node-3"):
        assert keys[node] == {"etcd/client", "etcd/server", "etcd/peer", *control}


def test_folder_of_the_operator_is_private(loaded: LoadedCluster) -> None:
    folder = pki_of(loaded).parent
    for path in (folder, *folder.rglob("*")):
        secret = path.is_dir() or path.suffix == ".key" or path.name == "encryption.yaml"
        assert not secret or path.stat().st_mode & 0o077 == 0, path


def test_an_api_server_takes_the_kubeconfig_and_nobody_without(loaded: LoadedCluster, tmp_path: Path) -> None:
    folder = pki_of(loaded)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = folder / "nodes" / "node-1" / "kubernetes"
    server.load_cert_chain(own / "apiserver.crt", own / "apiserver.key")
    server.load_verify_locations(folder / "kubernetes" / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    kubeconfig(loaded, output_file=tmp_path / "config")
    config = yaml.safe_load((tmp_path / "config").read_text())
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://api.example.org:443"
    (tmp_path / "user.crt").write_bytes(base64.b64decode(user["client-certificate-data"]))
    (tmp_path / "user.key").write_bytes(base64.b64decode(user["client-key-data"]))
    client = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with pytest.raises(ssl.SSLError):
        said(server, client)
    client.load_cert_chain(tmp_path / "user.crt", tmp_path / "user.key")
    assert said(server, client) == "admin"


def said(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Return as whom the server sees the client, over one connection."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as connection:
                certificate = connection.getpeercert() or {}
                subject = dict(pair for part in certificate.get("subject", ()) for pair in part)
                connection.sendall(str(subject.get("commonName")).encode())
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname="api.example.org") as connection:
            return connection.recv(100).decode()
    finally:
        thread.join()
