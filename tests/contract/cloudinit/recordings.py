"""The recorded cases: reading them, building the node that they were recorded on, and saying what changed on it.

The format and the base state of the node are described in tests/fixtures/cloudinit/README.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coupler.cloudinit.grammar import Lineage

FOLDER = Path(__file__).parents[2] / "fixtures" / "cloudinit" / "recorded"
VARIABLES = tuple(f"COREOS_{kind}_IPV{version}" for kind in ("PUBLIC", "PRIVATE") for version in (4, 6))

_STAND_INS = "alpha beta docker etcd etcd2 fleet flanneld locksmithd ntpd update-engine systemd-networkd"
_STAND_IN = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecReload=/bin/true
[Install]
WantedBy=multi-user.target
"""
_FILES = {
    "etc/hostname": "node-a\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/environment": "",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\ncore:x:500:500::/home/core:/bin/bash\n",
    "etc/group": "root:x:0:\nsudo:x:27:\nshadow:x:42:\nusers:x:100:\nwheel:x:214:\ndocker:x:233:\ncore:x:500:\n",
    "etc/shadow": "root:*:1:0:99999:7:::\ncore:*:1:0:::::\n",
    "etc/gshadow": "root:*::\nsudo:!::\nshadow:*::\nwheel:!::\ndocker:!::\n",
    "etc/subuid": "",
    "etc/subgid": "",
    "usr/share/coreos/update.conf": "GROUP=stable\nSERVER=https://updates.example.net/v1/update/\n",
    **{f"usr/lib/systemd/system/{name}.service": _STAND_IN for name in _STAND_INS.split()},
}
_FOLDERS = (
    "etc/systemd/network",
    "etc/systemd/system/multi-user.target.wants",
    "home/core",
    "opt",
    "run/systemd/system",
    "usr/local/bin",
    "var/lib",
)
_USER_DATA_BASES = frozenset(f"/etc/{name}" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"))
_LARGE = 65_536
_RANDOM = re.compile(r"(cloudinit-temp|coreos-cloudinit-|scripts/)\d{6,}")


@dataclass(frozen=True, eq=False)
class Case:
    """One recorded document and what a lineage made of it."""

    name: str
    lineage: Lineage
    record: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}-{self.lineage}"

    @property
    def path(self) -> Path:
        return FOLDER / self.name / "user-data"

    @property
    def validate_lines(self) -> set[str]:
        """The validator's own lines; a problem with fetching the document is not one of them."""
        lines = self.record[self.lineage]["validate_lines"]
        return {line for line in lines if not line.startswith("Failed decompressing")}

    @property
    def environment(self) -> dict[str, str]:
        return dict((self.record["setup"] or {}).get("env", {}))

    @property
    def run(self) -> dict[str, Any]:
        return dict(self.record["apply"][self.lineage])

    def outcome(self, kind: str) -> Any:
        """Return the recorded `tree` or `units` of this lineage."""
        same = self.record[f"{kind}_identical"]
        return self.record[kind] if same else self.record[f"{kind}_{self.lineage}"]


@cache
def cases() -> tuple[Case, ...]:
    """Return every recorded case in both lineages."""
    names = sorted(path.name for path in FOLDER.iterdir())
    records = {name: json.loads((FOLDER / name / "expected.json").read_text()) for name in names}
    return tuple(Case(name, lineage, records[name]) for name in names for lineage in Lineage)


def build_node(root: Path, setup: dict[str, Any] | None) -> None:
    """Fill an empty folder with the base state of the recordings and what a case adds to it."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "lib").symlink_to("usr/lib")
    for name, text in _FILES.items():
        _write(root / name, text)
    for name in ("shadow", "gshadow"):
        (root / "etc" / name).chmod(0o640)
        os.chown(root / "etc" / name, 0, 42)
    for path, file in (setup or {}).get("files", {}).items():
        _write(root / path[1:], file["content"])
        (root / path[1:]).chmod(int(file.get("mode", "0644"), 8))
        os.chown(root / path[1:], *map(int, file.get("owner", "0:0").split(":")))
    for path in (setup or {}).get("dirs", ()):
        (root / path[1:]).mkdir(parents=True)
    for path, target in (setup or {}).get("links", {}).items():
        (root / path[1:]).symlink_to(target)
    for path in (setup or {}).get("hide", ()):
        shutil.rmtree(root / path[1:])
        (root / path[1:]).mkdir()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def snapshot(root: Path) -> dict[str, dict[str, Any]]:
    """Return what is in a root, /usr left aside, by path."""
    users, groups = (_names(root / "etc" / name) for name in ("passwd", "group"))
    entries = {}
    for place in root.rglob("*"):
        path = f"/{place.relative_to(root)}"
        if path == "/usr" or path.startswith("/usr/"):
            continue
        status = place.lstat()
        entry: dict[str, Any] = {"owner": f"{users.get(status.st_uid)}:{groups.get(status.st_gid)}"}
        if place.is_symlink():
            entry |= {"type": "link", "target": str(place.readlink())}
        else:
            entry |= {"type": "dir" if place.is_dir() else "file", "mode": f"{stat.S_IMODE(status.st_mode):04o}"}
        if entry["type"] == "file":
            entry["data"] = place.read_bytes()
        entries[path] = entry
    return entries


def _names(path: Path) -> dict[int, str]:
    return {int(line.split(":")[2]): line.split(":")[0] for line in path.read_text().splitlines()}


def difference(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what changed between two snapshots in the words of the recordings."""
    changes: dict[str, dict[str, Any]] = {path: {"type": "removed"} for path in before.keys() - after.keys()}
    for path, entry in after.items():
        if entry != before.get(path):
            changes[path] = _change(path, before.get(path, {}), entry)
    return normalized(changes)


def _change(path: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    change = {key: value for key, value in new.items() if key != "data"}
    data = new.get("data")
    if data is not None and path in _USER_DATA_BASES:
        was, now = (_lines(path, content) for content in (old.get("data", b""), data))
        change |= {
            "lines_added": sorted(line for line in now if line not in was),
            "lines_removed": sorted(line for line in was if line not in now),
        }
    elif data is not None and len(data) > _LARGE:
        change |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    elif data is not None:
        text = data.decode(errors="replace")
        binary = "\0" in text or text.encode() != data
        change |= {"content_b64": base64.b64encode(data).decode()} if binary else {"content": text}
    return change | ({"replaced": "link"} if old.get("type") == "link" and data is not None else {})


def _lines(path: str, data: bytes) -> list[str]:
    lines = data.decode().splitlines()
    if path != "/etc/shadow":
        return lines
    today = str(int(time.time()) // 86_400)
    return [re.sub(rf"^([^:]*:[^:]*):(1|{today}):", r"\1:<days>:", line) for line in lines]


def normalized(value: Any) -> Any:
    """Return a value with `<random>` for the random numbers in its texts."""
    if isinstance(value, str):
        return _RANDOM.sub(r"\1<random>", value)
    if isinstance(value, list):
        return [normalized(item) for item in value]
    if isinstance(value, dict):
        return {normalized(key): normalized(item) for key, item in value.items()}
    return value
