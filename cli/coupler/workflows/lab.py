"""`cluster lab up`, and the beginning of `cluster init --lab`: the nodes of a cluster.yaml as machines of the lab."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import ConfigurationError, ExitCode, UsageError
from coupler.lab import Lab, lab_cluster_yaml
from coupler.model import find_cluster_file, load_cluster
from coupler.model.load import FILE_NAME
from coupler.result import Json, count

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.lab import Machine

DEFAULT_NODES = 3


@dataclass(frozen=True)
class LabUp:
    """A lab that is up: its cluster.yaml, its machines, and those of them that had to be booted."""

    file: Path
    lab: Lab
    machines: tuple[Machine, ...]
    booted: tuple[Machine, ...]
    exit_code: ExitCode = ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "name": self.lab.name,
            "file": str(self.file),
            "subnet": str(self.lab.subnet),
            "booted": [machine.name for machine in self.booted],
            "machines": [machine_data(machine) for machine in self.machines],
        }

    def text(self) -> str:
        """Return the answer for a person."""
        news = f"booted {len(self.booted)} of" if self.booted else "unchanged:"
        machines = count(len(self.machines), "machine")
        return f"lab {self.lab.name}: {news} {machines} in {self.lab.subnet}\nnext: cluster init"


def lab_up(file: Path | None, nodes: int | None, mirror: Path | None, tell: Callable[[str], None]) -> LabUp:
    """Boot the nodes of cluster.yaml; where there is no cluster.yaml, write one for `nodes` machines.

    Raises:
        UsageError: `nodes` or `mirror` is given and cluster.yaml says otherwise; or its addresses are not the lab's.
        ConfigurationError: cluster.yaml is wrong, or of a lab whose key pair is gone.
        CouplerError: this host lacks what the lab needs.
    """
    path = find(file)
    if path is None:
        return _new_lab(Path(FILE_NAME).absolute(), nodes or DEFAULT_NODES, mirror, tell)
    lab, machines = lab_of(path)
    others = {"--nodes": nodes not in {None, len(machines)}, "--mirror": mirror and not _same(mirror, lab)}
    for option in (name for name, differs in others.items() if differs):
        raise UsageError(f"{option} is for a new lab, and {path} describes this one", next_step=f"change {path}")
    _demand_keys(path, lab)
    lab.claim(path.absolute().parent)
    return LabUp(path, lab, machines, lab.up(machines, tell))


def _same(mirror: Path, lab: Lab) -> bool:
    return mirror.resolve() == lab.mirror_folder.resolve()


def _demand_keys(path: Path, lab: Lab) -> None:
    """Raise ConfigurationError where the cluster signs with the lab's key and trusts another one: it was made anew."""
    git = load_cluster(path).cluster.git
    key = " ".join(lab.public_key.split()[:2])
    if git.signing_key == lab.private_key and not any(key in signer for signer in git.allowed_signers):
        raise ConfigurationError(
            f"{path} is of a lab that was forgotten",
            "the key that it trusts was deleted by `cluster lab down --forget`",
            f"remove {path} and {path.parent / '.coupler'}, and run this again",
        )


def lab_of(path: Path) -> tuple[Lab, tuple[Machine, ...]]:
    """Return the lab of a cluster.yaml, and its nodes as machines of it."""
    cluster = load_cluster(path).cluster
    folder = cluster.mirror.folder if cluster.mirror else None
    lab = Lab(cluster.name, folder.path if folder else None)
    return lab, tuple(lab.machine(node.name, node.address, node.mac) for node in cluster.nodes)


def open_lab(file: Path | None) -> Lab:
    """Return the lab of the cluster.yaml that the user named, or of the one found upwards from here."""
    path = find(file)
    if path is None:
        raise UsageError("there is no cluster.yaml here, and so no lab", next_step="cluster lab up --nodes 3")
    return lab_of(path)[0]


def machine_data(machine: Machine) -> Json:
    """Return a machine as JSON-serialisable data."""
    return {"name": machine.name, "address": str(machine.address), "mac": machine.mac}


def find(file: Path | None) -> Path | None:
    """Return the cluster.yaml that the user named, or the one found upwards from here; None where there is none."""
    try:
        return file or find_cluster_file(Path.cwd())
    except ConfigurationError:
        return None


def _new_lab(path: Path, nodes: int, mirror: Path | None, tell: Callable[[str], None]) -> LabUp:
    name = re.sub("[^a-z0-9]+", "-", path.parent.name.lower()).strip("-")[:40]
    lab = Lab(name or "lab", mirror.absolute() if mirror else None)
    lab.claim(path.parent)
    machines = lab.plan(nodes)
    booted = lab.up(machines, tell)
    path.write_text(lab_cluster_yaml(lab.name, machines, lab), encoding="utf-8")
    tell(f"wrote {path.name}")
    return LabUp(path, lab, machines, booted)
