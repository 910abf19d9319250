"""Every unit of the document, judged by systemd itself, in the root that our applier leaves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import coupler.lab
from coupler.model import load_cluster
from coupler.render import render_document

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cluster" / "valid"
SHIPPED = [
    "bin/sh",
    "bin/ln",
    "bin/mkdir",
    "usr/bin/env",
    "sbin/modprobe",
    "sbin/fstrim",
    "usr/sbin/update-ca-certificates",
]
"""Programs that Flatcar's image ships and our units run."""

ROLE_UNITS = Path(__file__).parents[2] / "roles/lb/files"
IMAGE_UNITS = Path(coupler.lab.__file__).parent / "root/usr/lib/systemd/system"
"""Units of the image: the stand-ins for them that lab machines have."""


def applied(cluster, root):
    """Apply the cluster's document to a root that has the image's programs and the artifacts; return the record."""
    update = root / "usr/share/coreos/update.conf"
    update.parent.mkdir(parents=True)
    update.write_text("GROUP=stable\n")
    for program in [*SHIPPED, *(a.target.lstrip("/") for a in cluster.artifacts_needed if a.member != ".")]:
        path = root / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    hosts = Path("/usr/lib/systemd/system")
    for unit in [*hosts.glob("*.target"), *hosts.glob("fstrim.*"), *IMAGE_UNITS.glob("*.service")]:
        (units / unit.name).write_bytes(unit.read_bytes())
    document, record = root.parent / "cloud-config.yaml", root.parent / "operations.json"
    document.write_text(render_document(cluster), encoding="utf-8")
    command = ["--as", "flatcar", "--from-file", str(document), "--root", str(root), "--operations", str(record)]
    subprocess.run([sys.executable, "-m", "coupler.cloudinit", *command], check=True, capture_output=True)
    return json.loads(record.read_text())


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *(("one-node", ""), ("three-plus-five", ""), ("every-option", "")),
        *(("one-node", "kubernetes: {version: 1.21.14}\n"), ("one-node", "kubernetes: {version: 1.36.4}\n")),
    ],
    ids=["one-node", "three-plus-five", "every-option", "kubernetes-1.21", "kubernetes-1.36"],
)
def test_systemd_accepts_every_unit(name, more, tmp_path):
    root, file = tmp_path / "root", tmp_path / "valid" / "cluster.yaml"
    file.parent.mkdir()
    (tmp_path / "files").symlink_to(FIXTURES.parent / "files")
    file.write_text((FIXTURES / f"{name}.yaml").read_text() + more)
    record = applied(load_cluster(file).cluster, root)
    assert record["exit"] == 0
    units = sorted(path.name for path in (root / "etc/systemd/system").iterdir() if path.is_file())
    assert "etcd.service" in units
    command = ["systemd-analyze", "verify", "--man=no", f"--root={root}", *units]
    verdict = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (verdict.returncode, verdict.stderr) == (0, "")


def test_units_start_in_the_order_of_their_needs(tmp_path):
    """Who am I, then the programs, then everything else: each command waits for the one before it."""
    record = applied(load_cluster(FIXTURES / "three-nodes.yaml").cluster, tmp_path / "root")
    commands = [unit.split()[1] for unit in record["units"] if "->" in unit]
    order = ["node-identity.service", "coupler-artifacts.service", "coupler.target"]
    assert [unit for unit in commands if unit in order] == order


@pytest.mark.parametrize("unit", sorted(ROLE_UNITS.glob("*.service")), ids=lambda path: path.stem)
def test_systemd_accepts_the_units_of_the_balancing_nodes(unit, tmp_path):
    text = unit.read_text()
    # Verification looks for the program, which only a node has.
    (tmp_path / unit.name).write_text(text.replace("/opt/coupler/registrator/registrator", "/bin/true"))
    verdict = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name], check=False, capture_output=True, text=True
    )
    assert verdict.returncode == 0
    assert unit.name not in verdict.stderr
