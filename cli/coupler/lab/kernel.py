"""Settings of this host's kernel that many machines need raised; the last lab to go down puts them back."""

from __future__ import annotations

import json
from pathlib import Path

from coupler.files import write_whole

_SAVED = Path("/run/coupler-lab-kernel-settings.json")
"""What the settings were; like the settings themselves it does not outlive a boot of the host."""

_WANTED = {"fs/inotify/max_user_instances": 8192}
"""Each systemd takes some five inotify instances: the kernel's default of 128 ends at 22 machines."""

_SYSCTL = Path("/proc/sys")


def raise_limits(saved: Path = _SAVED, sysctl: Path = _SYSCTL) -> None:
    """Raise what is too low; what it was before is written to `saved` first."""
    low = {name: now for name, wanted in _WANTED.items() if (now := _read(sysctl / name)) < wanted}
    if low:
        before = json.loads(saved.read_text()) if saved.exists() else {}
        write_whole(saved, json.dumps(low | before))
        for name in low:
            (sysctl / name).write_text(str(_WANTED[name]))


def restore_limits(saved: Path = _SAVED, sysctl: Path = _SYSCTL) -> None:
    """Put back what `raise_limits` changed, unless somebody has set it to something else meanwhile."""
    if not saved.exists():
        return
    for name, before in json.loads(saved.read_text()).items():
        if _read(sysctl / name) == _WANTED.get(name):
            (sysctl / name).write_text(str(before))
    saved.unlink()


def _read(path: Path) -> int:
    return int(path.read_text())
