"""What nodes with the role lb get: held to the programs that read it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.model import Cluster, load_cluster
from coupler.registrator.address.settings import load as load_address
from coupler.registrator.settings import Settings, parse
from coupler.render.balancer import balancer_files
from coupler.workflows.certificates import certificates_of
from coupler.workflows.steps.balance import files_of

if TYPE_CHECKING:
    from collections.abc import Mapping

VALID = Path(__file__).parents[2] / "fixtures" / "cluster" / "valid"
CREDENTIALS = Path("/run/credentials/coupler-registrator.service")


def loaded(tmp_path: Path, more: str, base: str = "one-node") -> Cluster:
    (tmp_path / "cluster.yaml").write_text((VALID / f"{base}.yaml").read_text() + more)
    return load_cluster(tmp_path / "cluster.yaml").cluster


def files(cluster: Cluster) -> Mapping[str, str]:
    assert cluster.load_balancer
    return balancer_files(cluster, cluster.load_balancer)


def settings(cluster: Cluster) -> Settings:
    """Return what the registrator makes of the file that it gets; it refuses every key that it does not know."""
    return parse(files(cluster)["etc/coupler-lb/registrator.yaml"], "registrator.yaml")


def test_every_option_reaches_the_registrator() -> None:
    found = settings(load_cluster(VALID / "every-option.yaml").cluster)
    assert found.precedence == ("kubernetes", "announcements")
    assert found.balancers.haproxy
    assert found.balancers.haproxy.http == ("*:80", "10.0.0.21:8080")
    assert found.balancers.haproxy.https == ("[::]:443",)
    assert found.sources.announcements
    assert found.sources.announcements.domain == "apps.example.org"
    assert found.sources.kubernetes
    assert found.sources.kubernetes.kubeconfig == CREDENTIALS / "kubeconfig"
    assert found.sources.kubernetes.published == ("10.0.0.100",)


def test_the_address_that_moves_has_a_unit_and_a_file_of_its_own(tmp_path: Path) -> None:
    found = files(load_cluster(VALID / "every-option.yaml").cluster)
    (tmp_path / "address.yaml").write_text(found["etc/coupler-lb/address.yaml"])
    address = load_address(tmp_path / "address.yaml")
    assert (address.address, address.key) == ("10.0.0.100", "coupler/address/10.0.0.100")
    assert address.accepts == ("127.0.0.1:80", "10.0.0.21:8080", "[::1]:443")
    assert address.ready == "http://127.0.0.1:9102/readyz"
    assert address.etcd.key == Path("/run/credentials/coupler-address.service/registrator.key")
    units = "etc/systemd/system/coupler-address.service"
    assert "registrator.key:/etc/coupler/pki/etcd/registrator.key" in found[f"{units}.d/10-credentials.conf"]
    assert "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW\n" in found[units]
    assert not [path for path in files(loaded(tmp_path, "load_balancer: {}\n")) if "address" in path]


@pytest.mark.parametrize(
    ("more", "url", "api", "key"),
    [
        ("", "https://127.0.0.1:2379", 3, CREDENTIALS / "registrator.key"),
        ("etcd: {tls: false}\n", "http://127.0.0.1:2379", 3, None),
        (
            "os: {distribution: container-linux}\nkubernetes: {enabled: false}\n",
            "https://127.0.0.1:2379",
            2,
            CREDENTIALS / "registrator.key",
        ),
    ],
    ids=["tls", "plain", "container-linux"],
)
def test_etcd_is_asked_as_the_cluster_has_it(tmp_path: Path, more: str, url: str, api: int, key: Path | None) -> None:
    found = settings(loaded(tmp_path, f"load_balancer: {{}}\n{more}")).sources
    assert found.kubernetes is None
    assert found.announcements
    assert (found.announcements.etcd.endpoints, found.announcements.etcd.api) == ((url,), api)
    assert found.announcements.etcd.key == key


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("haproxy", {"etc/coupler-lb/haproxy.cfg", "etc/systemd/system/coupler-haproxy.service"}),
        ("nginx", {"etc/coupler-lb/nginx.conf", "etc/systemd/system/coupler-nginx.service"}),
        ("vulcand", set()),
    ],
)
def test_a_kind_brings_its_own_unit_and_the_registrator_moves_that_one(
    tmp_path: Path, kind: str, own: set[str]
) -> None:
    cluster = loaded(tmp_path, f"load_balancer: {{kind: {kind}}}\n")
    assert {path for path in files(cluster) if "registrator" not in path} == {
        "etc/coupler-lb/programs",
        "etc/sysusers.d/coupler-lb.conf",
        *own,
    }
    balancers = settings(cluster).balancers
    assert [name for name in ("haproxy", "nginx", "vulcand") if getattr(balancers, name)] == [kind]


def test_credentials_are_those_that_the_settings_name(tmp_path: Path) -> None:
    drop_in = "etc/systemd/system/coupler-registrator.service.d/10-credentials.conf"
    text = files(load_cluster(VALID / "every-option.yaml").cluster)[drop_in]
    given = {line.removeprefix("LoadCredential=").partition(":")[0] for line in text.splitlines()[1:]}
    assert given == {"ca.crt", "registrator.crt", "registrator.key", "kubeconfig"}
    assert files(loaded(tmp_path, "load_balancer: {}\netcd: {tls: false}\n"))[drop_in] == "[Service]\n"


def test_the_own_kubernetes_is_followed_with_a_key_of_its_own(tmp_path: Path) -> None:
    text = (VALID / "one-node.yaml").read_text().replace("[control, worker]", "[control, worker, lb]")
    (tmp_path / "cluster.yaml").write_text(f"{text}load_balancer: {{kubernetes: true}}\n")
    cluster = load_cluster(tmp_path / "cluster.yaml").cluster
    every, found = files(cluster), settings(cluster).sources.kubernetes
    assert found
    assert found.kubeconfig == Path("/etc/coupler-lb/kubernetes.kubeconfig")
    written = json.loads(every["etc/coupler-lb/kubernetes.kubeconfig"])
    named = {written["clusters"][0]["cluster"]["certificate-authority"], *written["users"][0]["user"].values()}
    drop_in = every["etc/systemd/system/coupler-registrator.service.d/10-credentials.conf"]
    given = dict(line.removeprefix("LoadCredential=").split(":") for line in drop_in.splitlines()[1:])
    assert {path.removeprefix(f"{CREDENTIALS}/") for path in named} <= given.keys()
    made = {f"/etc/coupler/pki/{each.name}" for each in certificates_of(cluster) if each.node == "node-1"}
    pairs = {path.rpartition(".")[0] for path in given.values() if not path.endswith("ca.crt")}
    assert pairs <= made


def test_a_kubeconfig_is_for_root_alone() -> None:
    cluster = load_cluster(VALID / "every-option.yaml").cluster
    assert cluster.load_balancer
    private = {
        path: content for path, (content, mode) in files_of(cluster, cluster.load_balancer).items() if mode == 0o600
    }
    given = (VALID.parent / "files" / "registrator.kubeconfig").read_bytes()
    assert private == {"etc/coupler/pki/kubernetes/registrator.kubeconfig": given}


def test_vulcands_key_is_for_root_alone_and_handed_over(tmp_path: Path) -> None:
    key = tmp_path / "seal-key"
    key.write_text("1b" * 32)
    cluster = loaded(tmp_path, "load_balancer: {kind: vulcand, seal_key: seal-key}\n")
    assert cluster.load_balancer
    every = files_of(cluster, cluster.load_balancer)
    assert every["etc/coupler/pki/vulcand/seal-key"] == (b"1b" * 32, 0o600)
    drop_in, _ = every["etc/systemd/system/coupler-registrator.service.d/10-credentials.conf"]
    assert b"LoadCredential=seal-key:/etc/coupler/pki/vulcand/seal-key\n" in drop_in
    vulcand = settings(cluster).balancers.vulcand
    assert vulcand
    assert vulcand.seal_key_file == CREDENTIALS / "seal-key"


def test_programs_are_listed_for_the_script(tmp_path: Path) -> None:
    known = "artifacts: {registrator: {url: 'https://h/r.tgz', sha256: " + "6f" * 32 + "}}\n"
    head, line = files(loaded(tmp_path, f"load_balancer: {{}}\n{known}"))["etc/coupler-lb/programs"].splitlines()
    assert head == "# name version sha256 member target urls"
    assert line.split()[0] == "registrator"
    assert line.split()[2:] == ["6f" * 32, ".", "/opt/coupler/registrator", "https://h/r.tgz"]


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_systemd_accepts_the_units(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    every = files(loaded(tmp_path, f"load_balancer: {{kind: {kind}}}\n"))
    for path, text in every.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for program in ("opt/coupler/registrator/registrator", "usr/bin/env", "bin/kill"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True, ignore=_but_targets)
    for unit in ("coupler.target", "node-identity.service", "etcd-gateway.service"):  # stand for the document's
        command = "[Service]\nExecStart=/bin/kill\n" if unit.endswith(".service") else ""
        (root / "etc/systemd/system" / unit).write_text(f"[Unit]\nDescription={unit}\n{command}")
    units = [f"coupler-{kind}.service", "coupler-registrator.service"]
    command = ["systemd-analyze", "verify", "--man=no", f"--root={root}", *units]
    verdict = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (verdict.returncode, verdict.stderr) == (0, "")


def _but_targets(_: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith((".target", ".slice"))]


def test_haproxy_accepts_its_file(tmp_path: Path) -> None:
    text = files(loaded(tmp_path, "load_balancer: {}\n"))["etc/coupler-lb/haproxy.cfg"]
    file = tmp_path / "haproxy.cfg"
    file.write_text(f"{text}\nfrontend some\n  bind 127.0.0.1:1\n")
    done = subprocess.run(["haproxy", "-c", "-f", str(file)], check=False, capture_output=True, text=True)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
