"""What a lab keeps on disk, and the locks that keep two commands from disturbing each other."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupler.files import write_whole
from coupler.lab.image import Image
from coupler.lab.machine import Machine
from coupler.lab.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class LabState:
    """The facts of one lab. Network and `home`, the folder of its cluster.yaml, stay; the rest goes with `down`."""

    network: Network | None = None
    image: Image | None = None
    machines: tuple[Machine, ...] = ()
    home: Path | None = None

    @classmethod
    def load(cls, path: Path) -> LabState:
        """Return the state that was saved to `path`, an empty one where there is none."""
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        return cls(
            network=None if data["network"] is None else Network(data["network"]),
            image=None if data["image"] is None else _image(data["image"]),
            home=Path(data["home"]) if data["home"] else None,
            machines=tuple(Machine(m["name"], IPv4Address(m["address"]), m["mac"]) for m in data["machines"]),
        )

    def save(self, path: Path) -> None:
        """Write the state to `path`, whole or not at all."""
        image = self.image
        data = {
            "network": self.network.number if self.network else None,
            "image": image
            and {
                "root": str(image.root),
                "applier": str(image.applier),
                "programs": str(image.programs),
            },
            "home": str(self.home) if self.home else None,
            "machines": [{"name": m.name, "address": str(m.address), "mac": m.mac} for m in self.machines],
        }
        write_whole(path, json.dumps(data, indent=2))


def _image(data: dict[str, Any]) -> Image:
    return Image(Path(data["root"]), Path(data["applier"]), Path(data["programs"]))


def all_labs(labs: Path) -> dict[str, LabState]:
    """Return the state of every lab of this user by name; `labs` is the folder that holds them."""
    return {path.parent.name: LabState.load(path) for path in sorted(labs.glob("*/lab.json"))}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; it is given back by the kernel when this process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
