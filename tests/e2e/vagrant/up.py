"""`vagrant up` for real: virtual machines under software emulation, from a box made here, ending in `cluster init`.

Run it as root: `python tests/e2e/vagrant/up.py [NODES]`. Needs the packages of docs/vagrant.md. Everything but the box
lives in namespaces of its own and in a temporary folder, so that nothing of it stays, however it ends.
"""

# ruff: noqa: T201 - a program with its own output
from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from platformdirs import user_cache_path

from coupler.lab.image import Image, debian_release, ensure_image

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
CACHE = user_cache_path("coupler")
SUBNET = "192.168.56"

CLUSTER = """\
version: 1
name: vagrant
os: {{reboot: {{strategy: "off"}}}}
ssh:
  private_key: key
  authorized_keys: [{key}]
git: {{repository: "git://{subnet}.1/vagrant.git", push: vagrant.git}}
mirror: {{url: "http://{subnet}.1:8080", folder: mirror, only: true}}
etcd: {{version: "{etcd}", heartbeat_interval: 500, election_timeout: 5000}}
nodes:
{nodes}
"""

QEMU = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
remember_owner = 0
namespaces = []
"""


def main() -> None:
    """Build the box, then go on in namespaces of our own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleared away then, too
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    image = ensure_image(CACHE / "lab", lambda text: print(text, flush=True))
    with tempfile.TemporaryDirectory(prefix="coupler-vagrant-") as folder:
        work = Path(folder)
        prepare(work, nodes, image)
        box = ensure_box(image, public_key_of_vagrant(work))
        isolated = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        # The shell is process 1 there and reaps machines that have ended: libvirt waits until they are gone.
        reaper = ["sh", "-c", '"$@" & wait $!', "sh"]
        program = [sys.executable, __file__, "--inside", str(work), str(box)]
        subprocess.run([*isolated, *reaper, *program], check=True)


def ensure_box(image: Image, key: str) -> Path:
    """Return the box, built where there is none of this script and these layers."""
    script = HERE / "build-box.sh"
    parts = (script.read_text(), str(image.root), str(image.applier), key)
    box = CACHE / "vagrant" / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.box"
    if not box.exists():
        print("building the box: once, a few minutes", flush=True)
        shutil.rmtree(box.parent, ignore_errors=True)
        box.parent.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=box.parent) as draft:
            public = Path(draft, "key.pub")
            public.write_text(key)
            arguments = (debian_release(), str(image.root), str(image.applier), str(public), draft)
            subprocess.run(["unshare", "--mount", "sh", str(script), *arguments], check=True)
            Path(draft, "coupler.box").rename(box)
    return box


def prepare(work: Path, nodes: int, image: Image) -> None:
    """Lay out the folder of the cluster: keys, mirror, cluster.yaml, and the command `cluster`."""
    cluster = work / "cluster"
    mirror = cluster / "mirror"
    sums = []
    for program in ("etcd", "etcdctl"):
        target = Path(program, image.version("etcd"), "amd64", program)
        (mirror / target).parent.mkdir(parents=True)
        shutil.copy2(image.programs / program / image.version("etcd") / program, mirror / target)
        sums.append(f"{hashlib.sha256((mirror / target).read_bytes()).hexdigest()}  {target}\n")
    (mirror / "SHA256SUMS").write_text("".join(sums))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "up", "-f", str(cluster / "key")], check=True)
    rows = [
        f'  - {{name: node-{n}, address: {SUBNET}.{10 + n}, mac: "52:54:00:c0:de:{n:02x}", roles: [control, worker]}}'
        for n in range(1, nodes + 1)
    ]
    key = (cluster / "key.pub").read_text().strip()
    text = CLUSTER.format(key=key, subnet=SUBNET, etcd=image.version("etcd"), nodes="\n".join(rows))
    (cluster / "cluster.yaml").write_text(text)
    command = work / "bin" / "cluster"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m coupler "$@"\n')
    command.chmod(0o755)


def environment(work: Path) -> dict[str, str]:
    """Return the environment in which the user works: their home for Vagrant, the box, `cluster` on the PATH."""
    return {
        **os.environ,
        "PATH": f"{work / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT / "cli"),
        "VAGRANT_HOME": str(work / "vagrant"),
        "VAGRANT_VAGRANTFILE": str(CHECKOUT / "Vagrantfile"),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "COUPLER_VAGRANT_BOX": "coupler-test",
        "COUPLER_VAGRANT_MEMORY": "768",
        "COUPLER_VAGRANT_CPUS": "1",
    }


def public_key_of_vagrant(work: Path) -> str:
    """Return the public half of the key that every Vagrant knows; any command of it lays down the private half."""
    subprocess.run(["vagrant", "box", "list"], cwd=work, env=environment(work), check=True, stdout=subprocess.DEVNULL)
    private = str(work / "vagrant" / "insecure_private_key")
    return subprocess.run(["ssh-keygen", "-y", "-f", private], check=True, capture_output=True, text=True).stdout


def inside(work: Path, box: Path) -> None:
    """Start libvirt, then do what docs/vagrant.md tells a user to do."""
    start_libvirt(work)
    cluster = work / "cluster"

    def run(*command: str) -> None:
        print(f"$ {' '.join(command)}", flush=True)
        subprocess.run(command, cwd=cluster, env=environment(work), check=True)

    def ask(*command: str) -> str:
        return subprocess.run(
            command, cwd=cluster, env=environment(work), check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    run("vagrant", "box", "add", "--name", "coupler-test", str(box))
    began = time.monotonic()
    run("vagrant", "up", "--no-tty")
    print(f"vagrant up: {time.monotonic() - began:.0f} s", flush=True)

    run("cluster", "status")
    second = json.loads(ask("cluster", "init", "--output", "json"))["data"]
    assert not second["changed"], second
    sent = ask("vagrant", "ssh", "node-1", "--command", "cat /var/lib/flatcar-vagrant/vagrantfile-user-data")
    stub = ask("cluster", "render", "--boot-stub")
    assert sent.replace("\r\n", "\n").rstrip() == stub.rstrip(), f"the machine has another user-data:\n{sent}"

    records = cluster / ".coupler" / "vagrant"
    assert sorted(path.name for path in records.glob("*.pid")) == ["git.pid", "mirror.pid"]
    run("vagrant", "destroy", "--force")
    assert not list(records.glob("*.pid")), "the servers still run"
    print("vagrant up, cluster status, a second cluster init without a change, vagrant destroy: all as they should be")


def start_libvirt(work: Path) -> None:
    """Start virtlogd and libvirtd with folders of their own; they end with our process namespace."""
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)  # of our network namespace
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    for name in ("etc", "var/lib", "var/cache", "var/log"):
        folder = work / "libvirt" / name
        folder.mkdir(parents=True)
        place = Path("/") / name / "libvirt"
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", str(folder), str(place)], check=True)
    Path("/etc/libvirt/qemu.conf").write_text(QEMU)
    Path("/etc/libvirt/libvirtd.conf").write_text('auth_unix_rw = "none"\nauth_unix_ro = "none"\n')
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for daemon in ("virtlogd", "libvirtd"):
        subprocess.run([daemon, "--daemon"], check=True)
    subprocess.run(["virsh", "--connect", "qemu:///system", "version"], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
