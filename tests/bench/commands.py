"""What a command costs that touches no machine, beside starting Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.bench.measure import COUPLER, Row, Times, timed

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS = 5

_CLUSTER = """\
version: 1
name: bench
ssh:
  authorized_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGDA5mNRWSyrUC6rnQtmcZOeCmkw3ld2HnIRjhUbIxfC bench"]
git:
  repository: git://10.0.255.1/bench.git
network:
  pods: 10.128.0.0/12
nodes:
  - name: node-[1-3]
    address: 10.0.0.11-10.0.0.13
    roles: [control, worker]
"""
_WORKERS = """\
  - name: worker-[001-997]
    address: 10.0.1.1-10.0.4.229
    roles: [worker]
"""


def measure(folder: Path) -> list[Row]:
    """Return the rows of `--help`, `check` and `render`."""
    files = {3: folder / "cluster-3.yaml", 1000: folder / "cluster-1000.yaml"}
    files[3].write_text(_CLUSTER)
    files[1000].write_text(_CLUSTER + _WORKERS)
    python = "python -c pass"
    programs = {
        python: (sys.executable, "-c", "pass"),
        "cluster --help": (*COUPLER, "--help"),
        **{
            f"cluster {verb}, {count:,} nodes": (*COUPLER, verb, "--file", str(file))
            for verb in ("check", "render")
            for count, file in files.items()
        },
    }
    times = Times()
    for _ in range(_ROUNDS):
        for name, argv in programs.items():
            times.add(name, timed(argv, folder))
    both = sum(times[f"cluster {verb}, 1,000 nodes"] for verb in ("check", "render"))
    return [
        *(Row(name, times[name], python, times[python]) for name in programs if name != python),
        Row("cluster check and render, 1,000 nodes", both, "a second", 1),
    ]
