"""Sites of machines for coupler-health, gone after the test."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.contract.health.machines import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLUSTER = """\
version: 1
name: probed
git:
  repository: git://10.77.0.9/probed.git
{more}
nodes:
"""


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip where this host cannot give a test machines of its own, and say what it lacks."""
    lacks = [program for program in ("unshare", "nsenter", "ip", "ping", "etcd", "curl") if not shutil.which(program)]
    if os.geteuid() != 0:
        pytest.skip("coupler-health is tried in namespaces, which takes root")
    if lacks:
        pytest.skip(f"coupler-health is tried with {', '.join(lacks)}, which this host lacks")


@pytest.fixture(scope="module")
def make_site(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Make sites of machines, 10.77.0.1 and on, the first of them control nodes; `more` are keys of cluster.yaml."""
    sites: list[Site] = []

    def make(machines: int, more: str, *, control: int = 1) -> Site:
        roles = ["control, worker"] * control + ["worker"] * (machines - control)
        rows = [f"  - {{name: node-{n}, address: 10.77.0.{n}, roles: [{role}]}}\n" for n, role in enumerate(roles, 1)]
        sites.append(Site(tmp_path_factory.mktemp("site"), CLUSTER.format(more=more) + "".join(rows)))
        return sites[-1]

    yield make
    for site in sites:
        site.close()
