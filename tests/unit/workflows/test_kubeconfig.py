"""The administrator's kubeconfig: what is in it, and that merging it loses nothing of anybody's."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography import x509

from coupler.__main__ import run
from coupler.adapters import pki
from coupler.model import load_cluster
from coupler.workflows.certificates import Store

if TYPE_CHECKING:
    from pathlib import Path

OTHER = """\
# my other cluster
apiVersion: v1
kind: Config
clusters:
- {name: work, cluster: {server: "https://10.9.9.9:6443", insecure-skip-tls-verify: true}}
users:
- {name: me, user: {token: abc}}
contexts:
- name: work
  context:
    cluster: work
    user: me
    extensions: [{name: seen, extension: {at: 2026-01-02T03:04:05Z}}]
current-context: work
preferences: {colors: true}
"""


class Home:
    """An operator's home with a cluster.yaml, and kubectl's file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kube = folder / ".kube" / "config"
        self.write("demo")

    def write(self, name: str, kubernetes: str = "") -> None:
        (self.folder / "cluster.yaml").write_text(
            f"version: 1\nname: {name}\ngit: {{repository: 'git://10.0.0.5/demo.git'}}\n{kubernetes}nodes:\n"
            "  - {name: 'node-[1-2]', address: 10.0.0.11-10.0.0.12, roles: [control]}\n"
        )

    def certify(self, now: datetime | None = None) -> None:
        cluster = load_cluster(self.folder / "cluster.yaml").cluster
        Store(self.folder / ".coupler" / "pki", cluster).make(now or datetime.now(UTC))

    def merged(self) -> dict[str, Any]:
        assert run(["kubeconfig", "--merge"]) == 0
        value: dict[str, Any] = yaml.safe_load(self.kube.read_text())
        return value


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path)
    home.certify()
    return home


def names(config: dict[str, Any], kind: str) -> list[str]:
    return [entry["name"] for entry in config[kind]]


def test_standard_output_is_a_kubeconfig_for_each_control_node(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kubeconfig"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    servers = {entry["name"]: entry["cluster"]["server"] for entry in config["clusters"]}
    assert servers == {
        "demo": "https://10.0.0.11:6443",
        "demo-node-1": "https://10.0.0.11:6443",
        "demo-node-2": "https://10.0.0.12:6443",
    }
    assert config["current-context"] == "demo"
    [user] = config["users"]
    pem = base64.b64decode(user["user"]["client-certificate-data"])
    assert x509.load_pem_x509_certificate(pem).subject.rfc4514_string() == "CN=admin,O=system:masters"


def test_the_endpoint_is_the_server(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.write("demo", "kubernetes: {endpoint: api.example.org}\n")
    assert run(["kubeconfig"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["clusters"][0]["cluster"]["server"] == "https://api.example.org:6443"


def test_a_file_of_its_own_is_private_and_the_second_time_unchanged(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home.folder / "admin.yaml"
    file.write_text("")
    file.chmod(0o644)
    assert run(["kubeconfig", "--output-file", "admin.yaml"]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().out.endswith("next: kubectl --kubeconfig admin.yaml get nodes\n")
    assert run(["kubeconfig", "--output-file", "admin.yaml"]) == 0
    assert "admin.yaml is unchanged:" in capsys.readouterr().out


def test_json_has_no_key(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kubeconfig", "--output", "json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data.keys() == {"context", "server", "expires", "path", "state", "backup"}


def test_merging_keeps_everything_of_others_and_a_copy(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.kube.parent.mkdir()
    home.kube.write_text(OTHER)
    config = home.merged()
    before = yaml.safe_load(OTHER)
    for kind in ("clusters", "users"):
        assert config[kind][0] == before[kind][0]
    assert "at: '2026-01-02T03:04:05Z'" in home.kube.read_text()
    assert config["preferences"] == {"colors": True}
    assert config["current-context"] == "demo"
    [backup] = home.kube.parent.glob("*.bak")
    assert backup.read_text() == OTHER
    assert (home.kube.stat().st_mode | backup.stat().st_mode) & 0o777 == 0o600
    assert capsys.readouterr().out.endswith("next: kubectl get nodes\n")
    assert sorted(path.name for path in home.kube.parent.iterdir()) == sorted(["config", backup.name])


def test_merging_twice_is_unchanged(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    first = home.merged()
    capsys.readouterr()
    assert home.merged() == first
    assert f"{home.kube} is unchanged:" in capsys.readouterr().out
    assert not list(home.kube.parent.glob("*.bak"))


def test_a_new_authority_and_a_new_name_take_the_place_of_the_old_entries(home: Home) -> None:
    old = home.merged()
    for file in ("ca.crt", "ca.key"):
        (home.folder / ".coupler" / "pki" / "kubernetes" / file).unlink()
    home.certify()
    new = home.merged()
    assert names(new, "contexts") == names(old, "contexts")
    assert new["clusters"] != old["clusters"]
    home.write("renamed")
    assert names(home.merged(), "contexts") == ["renamed", "renamed-node-1", "renamed-node-2"]


def test_an_entry_of_the_same_name_that_is_not_ours_is_never_replaced(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.kube.parent.mkdir()
    home.kube.write_text(OTHER.replace("work", "demo"))
    assert run(["kubeconfig", "--merge"]) == 1
    assert "has another cluster called demo" in capsys.readouterr().err
    assert home.kube.read_text() == OTHER.replace("work", "demo")
    assert run(["kubeconfig", "--merge", "--context", "lab"]) == 0
    config = yaml.safe_load(home.kube.read_text())
    assert names(config, "clusters") == ["demo", "lab", "lab-node-1", "lab-node-2"]
    assert names(config, "users") == ["me", "lab-admin"]


@pytest.mark.parametrize(
    ("there", "expected"), [([], "two"), (["two"], "two"), (["one", "two"], "one")], ids=["none", "last", "both"]
)
def test_of_several_files_the_one_that_kubectl_would_write_is_written(
    home: Home, monkeypatch: pytest.MonkeyPatch, there: list[str], expected: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{home.folder}/one:{home.folder}/two")
    for name in there:
        (home.folder / name).write_text(OTHER)
    assert run(["kubeconfig", "--merge"]) == 0
    having = [
        name
        for name in ("one", "two")
        if "demo-admin" in ((home.folder / name).read_text() if (home.folder / name).exists() else "")
    ]
    assert having == [expected]


def test_a_link_stays_a_link(home: Home) -> None:
    real = home.folder / "real"
    real.write_text(OTHER)
    home.kube.parent.mkdir()
    home.kube.symlink_to(real)
    home.merged()
    assert home.kube.is_symlink()
    assert "demo-admin" in real.read_text()


@pytest.mark.parametrize("text", ["]", "- a\n", "clusters: 3\n", "users: [1]\n"])
def test_what_is_no_kubeconfig_is_left_alone(home: Home, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    home.kube.parent.mkdir()
    home.kube.write_text(text)
    assert run(["kubeconfig", "--merge"]) == 1
    assert str(home.kube) in capsys.readouterr().err
    assert home.kube.read_text() == text


def test_the_lock_of_kubectl_is_respected(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.kube.parent.mkdir()
    (home.kube.parent / "config.lock").touch()
    assert run(["kubeconfig", "--merge"]) == 1
    assert "config.lock is there" in capsys.readouterr().err
    assert not home.kube.exists()


def test_before_init_and_after_expiry_the_next_command_is_named(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    key = home.folder / ".coupler" / "pki" / "kubernetes" / "admin.key"
    key.unlink()
    assert run(["kubeconfig"]) == 1
    assert "next: cluster init" in capsys.readouterr().err
    home.certify(datetime.now(UTC) - pki.LIFETIME - timedelta(days=1))
    assert run(["kubeconfig"]) == 1
    assert "next: cluster certs renew" in capsys.readouterr().err
