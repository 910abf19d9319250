"""The folder of certificates: who gets what, and that nothing is half-written."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from coupler.model import load_cluster
from coupler.workflows.certificates import Store, certificates_of

NOW = datetime(2026, 8, 1, tzinfo=UTC)


@pytest.fixture
def cluster(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        'version: 1\nname: demo\ngit: {repository: "git://10.0.0.5/demo.git"}\nnodes:\n'
        "  - {name: node-1, address: 10.0.0.11, roles: [control]}\n"
        "  - {name: node-2, address: 10.0.0.12, roles: [worker]}\n",
        encoding="utf-8",
    )
    return load_cluster(path).cluster


@pytest.fixture
def store(tmp_path, cluster):
    return Store(tmp_path / "pki", cluster)


def test_second_call_makes_nothing(store):
    assert store.make(NOW)
    assert store.make(NOW) == []
    assert list(store.missing(NOW)) == []


def test_keys_of_authorities_stay_at_home(store, cluster):
    store.make(NOW)
    for node in cluster.nodes:
        assert not [name for name in store.files_for(node) if name.endswith("ca.key")]


def test_worker_gets_no_key_of_the_control_plane(store, cluster):
    store.make(NOW)
    names = {
        name.removeprefix("etc/coupler/pki/") for name in store.files_for(cluster.nodes[1]) if name.endswith(".key")
    }
    assert names == {"etcd/client.key", "kubernetes/kubelet.key", "kubernetes/proxy.key"}


def test_keys_are_private_and_certificates_are_not(store, cluster, tmp_path):
    store.make(NOW)
    modes = {name.rpartition(".")[2]: mode for name, (_, mode) in store.files_for(cluster.nodes[0]).items()}
    assert modes == {"key": 0o600, "crt": 0o644, "pub": 0o644, "yaml": 0o600}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "pki").rglob("*.key"))


def test_certificate_without_its_key_is_made_again(store, tmp_path):
    store.make(NOW)
    (tmp_path / "pki/nodes/node-1/etcd/server.key").unlink()
    assert [missing.reason for missing in store.missing(NOW)] == ["its key is missing"]
    assert store.make(NOW) == ["nodes/node-1/etcd/server"]


def test_new_authority_makes_everything_it_signs_anew(store, cluster, tmp_path):
    store.make(NOW)
    (tmp_path / "pki/etcd/ca.key").unlink()
    made = store.make(NOW)
    assert set(made) == {"etcd/ca"} | {c.path for c in certificates_of(cluster) if c.authority == "etcd/ca"}


def test_what_expires_soon_is_made_again(store, cluster):
    store.make(NOW)
    assert len(store.make(NOW + timedelta(days=350))) == len(list(certificates_of(cluster)))


def test_only_a_balancing_node_gets_the_registrators_key(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        'version: 1\nname: demo\ngit: {repository: "git://10.0.0.5/demo.git"}\nload_balancer: {}\nnodes:\n'
        "  - {name: node-1, address: 10.0.0.11, roles: [control]}\n"
        "  - {name: node-2, address: 10.0.0.12, roles: [lb]}\n",
        encoding="utf-8",
    )
    cluster = load_cluster(path).cluster
    store = Store(tmp_path / "pki", cluster)
    store.make(NOW)
    having = [node.name for node in cluster.nodes if "etcd/registrator.key" in str(list(store.files_for(node)))]
    assert having == ["node-2"]


def test_secrets_are_encrypted_at_rest_by_a_key_that_stays(store, cluster):
    control, worker = cluster.nodes
    path = "etc/coupler/pki/kubernetes/encryption.yaml"
    store.make(NOW)
    text, mode = store.files_for(control)[path]
    assert mode == 0o600
    first, last = json.loads(text)["resources"][0]["providers"]
    assert len(base64.b64decode(first["secretbox"]["keys"][0]["secret"])) == 32
    assert last == {"identity": {}}
    assert path not in store.files_for(worker)
    store.make(NOW + timedelta(days=300))
    assert store.files_for(control)[path] == (text, mode)


def test_public_half_that_was_lost_is_that_of_the_key_that_stays(store, tmp_path):
    store.make(NOW)
    public, key = (tmp_path / f"pki/kubernetes/service-account.{kind}" for kind in ("pub", "key"))
    before = public.read_bytes(), key.read_bytes()
    public.unlink()
    assert store.make(NOW) == ["kubernetes/service-account.pub"]
    assert (public.read_bytes(), key.read_bytes()) == before
