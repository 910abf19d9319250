from __future__ import annotations

import re
from pathlib import Path

import pytest

from coupler.errors import UsageError
from coupler.model import Cluster, load_cluster
from coupler.model.scaffold import scaffold

KEY = (Path(__file__).parents[2] / "fixtures" / "cluster" / "files" / "ops.pub").read_text().split()[:2]


def load(tmp_path: Path, text: str) -> tuple[Cluster, list[str]]:
    (tmp_path / "cluster.yaml").write_text(text)
    loaded = load_cluster(tmp_path / "cluster.yaml")
    return loaded.cluster, [warning.code for warning in loaded.warnings]


def test_a_new_cluster_loads(tmp_path: Path) -> None:
    cluster, warnings = load(tmp_path, scaffold("demo"))
    assert cluster.name == "demo"
    assert [node.name for node in cluster.etcd_members] == ["node-1", "node-2", "node-3"]
    assert warnings == ["unsigned-git", "missing-checksum"]


def test_every_commented_key_is_a_key_and_shows_its_default(tmp_path: Path) -> None:
    text = scaffold("demo")
    defaults, _ = load(tmp_path, text)
    uncommented = re.sub(r"^( *)#(?=[\w-]|  )", r"\1", text, flags=re.MULTILINE)
    filled = uncommented.replace("ssh-ed25519 AAAA…", " ".join(KEY)).replace("{sha256: …}", f"{{sha256: {'a' * 64}}}")
    for line in ("extra: extra.yaml", "ca_certificates: [certs/company.pem]"):
        assert line in filled
        filled = filled.replace(line, "")
    full, _ = load(tmp_path, filled)
    assert full.etcd.model_dump(exclude={"extra_args"}) == defaults.etcd.model_dump(exclude={"extra_args"})
    assert full.kubernetes.version == defaults.kubernetes.version
    assert full.kubernetes.proxy == defaults.kubernetes.proxy
    assert full.network.flannel.model_dump(exclude={"mtu"}) == defaults.network.flannel.model_dump(exclude={"mtu"})
    assert full.fleet.model_dump(exclude={"metadata"}) == defaults.fleet.model_dump(exclude={"metadata"})
    assert full.git.interval == defaults.git.interval
    assert full.os.reboot.max_nodes == defaults.os.reboot.max_nodes
    assert full.os.channel == defaults.os.channel
    sections = [section for section in Cluster.model_fields if section not in {"extra", "ca_certificates"}]
    assert [name for name in sections if name not in full.model_fields_set] == []


def test_a_bad_name_is_refused_with_a_better_one() -> None:
    with pytest.raises(UsageError) as caught:
        scaffold("My Cluster")
    assert caught.value.next_step == "did you mean `my-cluster`?"
