"""A node and its mirror: images reach a real containerd, and what is broken there harms nobody."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.archives import docker_files, tar

from coupler.lab import Lab, pause
from coupler.lab.clusterfile import lab_cluster_yaml
from coupler.model import load_cluster
from coupler.render.context import context
from coupler.render.emit import emit
from coupler.render.fragments import fragment
from coupler.render.merge import merge
from coupler.workflows.mirror import mirror_add_image, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.conftest import Site

pytestmark = pytest.mark.lab

APP = "docker.io/library/app:1"


def docker_archive(tag: str, program: bytes) -> bytes:
    """Return an image of one program, as `docker save` writes it."""
    layer = tar({"app": program}, 0o755)
    configuration = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/app"]}}
    configuration["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    return tar(docker_files([tag], configuration, {"l/layer.tar": layer}))


class Node:
    """A lab machine that has, of the cluster's document, what fetches programs and images."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        (machine,) = lab.up(lab.plan(1))
        self.name = machine.name
        (folder / "cluster.yaml").write_text(lab_cluster_yaml(lab.name, [machine], lab))

    def run(self, script: str) -> str:
        """Run a script as root; return what it printed."""
        done = self.lab.exec(self.name, ["sh", "-c", script])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def apply(self) -> None:
        """Apply the document's fragments about programs and images, as they are for cluster.yaml now."""
        cluster = load_cluster(self.folder / "cluster.yaml").cluster
        parts = merge([fragment(name, context(cluster)) for name in ("common/artifacts", "common/images")])
        document = base64.b64encode(f"#cloud-config\n{emit(parts)}".encode()).decode()
        self.run(f"echo {document} | base64 -d > /tmp/d && coreos-cloudinit --from-file=/tmp/d && sleep 0.1")

    def report(self, what: str) -> list[str]:
        """Return the lines of the report that name something."""
        return [line for line in self.run("cat /run/coupler/artifacts").splitlines() if f" {what} " in line]

    def images(self) -> set[str]:
        """Return the names of containerd's images."""
        return set(self.run("ctr -n k8s.io images list -q").splitlines())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert condition(), self.run("cat /run/coupler/artifacts; journalctl -b --no-pager | tail -60")


@pytest.fixture(scope="module")
def node(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("site")
    lab = Lab(f"test-mirror-{os.getpid()}", folder / "mirror")
    try:
        yield Node(lab, folder)
    finally:
        lab.down(forget=True)


def test_images_reach_containerd_and_come_back_when_it_lost_them(node: Node) -> None:
    (node.folder / "app.tar").write_bytes(docker_archive("app:1", pause.program()))
    subprocess.run(["gzip", str(node.folder / "app.tar")], check=True)
    where = opened(None, node.folder / "cluster.yaml", node.folder)
    mirror_add_image(where, node.folder / "app.tar.gz", None)
    node.apply()
    cluster = load_cluster(node.folder / "cluster.yaml").cluster
    assert cluster.pause_image == pause.REFERENCE
    assert node.report("coupler.local/pause") == ["waiting coupler.local/pause 1 containerd does not run"]

    node.run("systemctl start containerd")
    node.until(lambda: {APP, pause.REFERENCE} <= node.images())
    node.until(lambda: node.report("docker.io/library/app") == ["installed docker.io/library/app 1"])
    labels = node.run(f"ctr -n k8s.io images list name=={APP}")
    assert "io.cri-containerd.pinned=pinned" in labels

    requests = node.lab.folder / "log" / "mirror.log"
    before = requests.read_text().count("GET /images/")
    node.run("/opt/bin/coupler-fetch")
    assert requests.read_text().count("GET /images/") == before, "what containerd has is not asked for again"

    node.run(f"ctr -n k8s.io images rm --sync {APP}")
    node.run("systemctl restart containerd")
    node.until(lambda: APP in node.images())
    node.run("systemctl stop containerd && rm -rf /var/lib/containerd/* && systemctl start containerd")
    node.until(lambda: {APP, pause.REFERENCE} <= node.images())


@pytest.mark.parametrize("image", [APP, pause.REFERENCE])
def test_what_was_imported_runs(node: Node, image: str) -> None:
    node.run("systemctl start containerd")
    node.until(lambda: image in node.images())
    # A runtime unpacks an image when it first uses it; ctr does so when it imports one.
    node.run(f"ctr -n k8s.io images export /tmp/x.tar {image} && ctr -n k8s.io images import /tmp/x.tar")
    node.run(f"ctr -n k8s.io run --detach {image} it")
    tasks = node.run("ctr -n k8s.io tasks list")
    node.run("ctr -n k8s.io tasks kill --signal KILL it; sleep 1; ctr -n k8s.io tasks rm it")
    node.run("ctr -n k8s.io containers rm it")
    assert re.search(r"^it +\d+ +RUNNING", tasks, re.MULTILINE)


def test_a_new_image_of_the_same_name_takes_its_place(node: Node) -> None:
    node.run("systemctl start containerd")
    node.apply()
    node.until(lambda: APP in node.images())
    digest = node.run(f"ctr -n k8s.io images list name=={APP} | tail -n 1 | awk '{{print $3}}'")
    (node.folder / "new.tar").write_bytes(docker_archive("app:1", pause.program() + b"newer"))
    mirror_add_image(opened(None, node.folder / "cluster.yaml", node.folder), node.folder / "new.tar", None)
    node.apply()
    node.until(
        lambda: node.run(f"ctr -n k8s.io images list name=={APP} | tail -n 1 | awk '{{print $3}}'") not in {digest, ""}
    )


def test_a_corrupt_image_never_reaches_containerd(node: Node) -> None:
    node.run("systemctl start containerd")
    where = opened(None, node.folder / "cluster.yaml", node.folder)
    (node.folder / "bad.tar").write_bytes(docker_archive("bad:1", pause.program()))
    mirror_add_image(where, node.folder / "bad.tar", None)
    stored = where.folder.path / next(i.place for i in where.folder.images() if "bad" in i.file)
    whole = stored.read_bytes()
    stored.write_bytes(whole[: len(whole) // 2])
    node.apply()
    assert "docker.io/library/bad:1" not in node.images()
    (line,) = node.report("docker.io/library/bad")
    assert line.startswith("waiting docker.io/library/bad 1 no server has it: ")
    assert " has the SHA-256 " in line
    stored.write_bytes(whole)
    node.run("systemctl start coupler-images.service")
    assert "docker.io/library/bad:1" in node.images()


def test_a_program_that_was_put_there_by_hand_runs_whatever_its_mode(node: Node) -> None:
    place = node.folder / "mirror/locksmithctl/0.6.2/amd64/locksmithctl"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"#!/bin/sh\necho I run\n")
    place.chmod(0o644)
    half = place.parents[2] / "0.7.0/amd64/locksmithctl"
    half.parent.mkdir(parents=True)
    half.write_bytes(pause.program()[:-1])
    with (node.folder / "cluster.yaml").open("a") as file:
        file.write("artifacts: {locksmithctl: {}}\n")
    node.lab.up([status.machine for status in node.lab.status().machines])  # lists what is whole
    node.apply()
    assert node.report("locksmithctl") == ["installed locksmithctl 0.6.2"]
    assert node.run("/opt/bin/locksmithctl") == "I run"


def test_a_read_only_folder_is_served_by_links(lab_host: None, tmp_path: Path) -> None:
    given = tmp_path / "given"
    place = given / "kubelet/1.35.1/amd64/kubelet"
    place.parent.mkdir(parents=True)
    place.write_bytes(pause.program())
    subprocess.run(["mount", "--bind", str(given), str(given)], check=True)
    lab = Lab(f"test-ro-{os.getpid()}", given)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(given)], check=True)
        (machine,) = lab.up(lab.plan(1))
        assert lab.mirror_folder == lab.folder / "mirror"
        fetched = f"curl -sf {lab.mirror_url}/kubelet/1.35.1/amd64/kubelet | sha256sum"
        done = lab.exec(machine.name, ["sh", "-c", fetched])
        listed = (lab.mirror_folder / "SHA256SUMS").read_text()
        assert f"{done.stdout.split()[0]}  kubelet/1.35.1/amd64/kubelet" in listed
        again = Lab(lab.name, lab.mirror_folder)
        again.up([machine])
        assert again.mirror_folder == lab.mirror_folder
    finally:
        lab.down(forget=True)
        subprocess.run(["umount", str(given)], check=True)
    assert [path.name for path in given.iterdir()] == ["kubelet"]


def test_a_corrupt_program_is_never_in_place_and_status_says_why(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(1, "--mirror", str(tmp_path / "mirror"))
    stand_in = b"#!/bin/sh\nexec sleep infinity\n"
    (site.folder / "fleetd").write_bytes(stand_in)
    added = site.json("mirror", "add", "fleetd", "fleetd", "--version", "1.0.0")
    assert added.exit_code == 0, added.stderr
    place = tmp_path / "mirror" / added.data["place"]
    place.write_bytes(stand_in + b"# and more\n")
    site.edit("kubernetes:\n", "kubernetes:\n  enabled: false\n")
    assert site.cluster("init").exit_code == 0
    (machine,) = site.machines
    assert site.inside(machine, "ls /opt/bin /var/lib/coupler/artifacts").count("fleetd") == 0
    said = f"no server has it: {site.lab.mirror_url}/fleetd/1.0.0/amd64/fleetd has the SHA-256 "
    status = site.cluster("status").stdout
    assert re.search(rf"waiting for their programs: fleet\n  on {machine}: {re.escape(said)}", status), status
    checked = site.cluster("mirror", "verify")
    assert checked.exit_code == 1
    assert f"corrupt: {added.data['place']}" in checked.stdout
