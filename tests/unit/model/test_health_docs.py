"""docs/health.md: its table is that of the components."""

import re
from pathlib import Path

from coupler.model import load_cluster
from coupler.model.health import components

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/health.md").read_text(encoding="utf-8")
VALID = ROOT / "tests/fixtures/cluster/valid"


def every_component():
    """Return those of a cluster with flannel and fleet, and after flannel what another has in its place."""
    whole = components(load_cluster(VALID / "one-node.yaml").cluster)
    [routes] = [
        part for part in components(load_cluster(VALID / "static-routes.yaml").cluster) if part.name == "routes"
    ]
    place = [part.name for part in whole].index("flannel") + 1
    return (*whole[:place], routes, *whole[place:])


def test_the_table_names_every_component_with_nodes_unit_and_patience():
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| `([\w.-]+)` \| .+ \| (\d+) s \|$", PAGE, re.MULTILINE)
    assert rows == [(part.name, str(part.role or "all"), part.unit, str(part.patience)) for part in every_component()]


def test_the_gate_has_a_row_for_every_component():
    table = PAGE.partition("| | counts | does not count |")[2].partition("\n\n")[0]
    named = re.findall(r"`([a-z-]+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    assert sorted(named) == sorted(part.name for part in every_component())
