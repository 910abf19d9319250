"""What the machines' disks start from: a Debian root and, above it, the cloud-config applier. Built once, cached.

Both are keyed by a hash of all that goes into them. A change of `coupler.cloudinit` therefore makes the small upper
layer anew (some ten seconds) and leaves the root (some forty) as it is.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import CouplerError
from coupler.lab.building import Tell, build, building, contents, freeze, hash_of, run, versions

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).resolve().parent
_PACKAGES = (
    *("usr-is-merged", "systemd-sysv", "dbus", "libpam-systemd", "libnss-myhostname", "openssh-server", "sudo"),
    *("iproute2", "iputils-ping", "curl", "ca-certificates", "git", "gzip", "tar", "util-linux", "procps"),
    *("haproxy", "nginx", "libnginx-mod-stream"),
    *("containerd", "runc", "iptables", "nftables", "conntrack", "ethtool", "kmod"),
)
_RELEASES = (((2, 36), "bookworm"), ((2, 41), "trixie"))
"""Debian's releases with the version of their C library, oldest first."""

_KEPT_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Image:
    """A built image: the read-only layers, and programs/NAME/VERSION/FILE of the same Debian release for the mirror."""

    root: Path
    applier: Path
    programs: Path

    def version(self, program: str) -> str:
        """Return the version of one of the programs, such as `etcd` or `cni-plugins`."""
        (folder,) = (self.programs / program).iterdir()
        return folder.name


def debian_release() -> str:
    """Return the code name of the Debian release to build the root from.

    The applier is built by this host's Python and linked to this host's C library, so the root needs the same version
    or a newer one. On Debian that is this host's own release.
    """
    library, number = platform.libc_ver()
    here = tuple(int(part) for part in number.split(".")[:2]) if library == "glibc" else (0, 0)
    return next((name for provided, name in _RELEASES if provided >= here), "sid")


def ensure_image(cache: Path, tell: Tell) -> Image:
    """Return the image, built into the folder `cache` where it is not there yet.

    Raises:
        CouplerError: the build failed; it names the log.
    """
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / f"root-{hash_of(_root_recipe())}"
    applier = cache / f"applier-{hash_of(_applier_recipe())}"
    if not (root.is_dir() and applier.is_dir()):
        with building(cache):
            if not root.is_dir():
                tell(f"building the machines' root from Debian {debian_release()}: once, about a minute")
                build(root, _build_root)
            if not applier.is_dir():
                tell("building the machines' /usr/bin/coreos-cloudinit: once for each version of it, some ten seconds")
                build(applier, _build_applier)
    return Image(root / "root.squashfs", applier, root / "programs")


def keep_image(cache: Path, image: Image) -> None:
    """Mark `image` as used now, and delete the layers in `cache` that nobody has used for a week."""
    for layer in (image.root.parent, image.applier):
        os.utime(layer)
    for layer in (path for kind in ("root", "applier", "registrator") for path in cache.glob(f"{kind}-*")):
        if layer.is_dir() and time.time() - layer.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(layer)


def mount_root(image: Image, point: Path) -> None:
    """Mount the root of `image` at `point`, where nothing is mounted there yet.

    Raises:
        CouplerError: the kernel refuses.
    """
    if not point.is_mount():
        argv = ["mount", "-t", "squashfs", "-o", "ro,loop", str(image.root), str(point)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CouplerError(
                "the machines' root cannot be mounted",
                why=done.stderr.strip(),
                next_step="cluster doctor shows whether this host has squashfs; modprobe loop gives it loop devices",
            )


def unmount_root(point: Path) -> None:
    """Undo `mount_root`, however often it was done."""
    while point.is_mount():
        subprocess.run(["umount", str(point)], check=True, capture_output=True)


def _root_recipe() -> Iterator[bytes]:
    yield debian_release().encode()
    yield " ".join(_PACKAGES).encode()
    yield (_HERE / "scripts" / "build-root.sh").read_bytes()
    yield from contents(_HERE / "root", "*")


def _applier_recipe() -> Iterator[bytes]:
    package = _HERE.parent
    yield from versions("PyInstaller", "PyYAML")
    yield (_HERE / "building.py").read_bytes()
    yield _ENTRY.encode()
    yield (package / "errors.py").read_bytes()
    yield from contents(package / "cloudinit", "*.py")


def _build_root(draft: Path, log: Path) -> None:
    script = _HERE / "scripts" / "build-root.sh"
    run(["sh", str(script), debian_release(), ",".join(_PACKAGES), str(_HERE / "root"), str(draft)], log)


_ENTRY = "import sys\nfrom coupler.cloudinit.__main__ import main\nsys.exit(main())\n"


def _build_applier(draft: Path, log: Path) -> None:
    # A folder, not one file: a single file unpacks itself at each start, which takes several times as long.
    library = draft / "usr" / "lib"
    library.mkdir(parents=True)
    (draft / "usr" / "bin").mkdir()
    freeze("coreos-cloudinit", _ENTRY, library, log)
    (draft / "usr" / "bin" / "coreos-cloudinit").symlink_to("../lib/coreos-cloudinit/coreos-cloudinit")
