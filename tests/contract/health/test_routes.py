"""coupler-health and routes to other nodes' pods, as coupler-routes sets them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.health.machines import Site

SCRIPT = Path(__file__).parents[3] / "cloud-config/scripts/coupler-routes"
ROUTES = """\
fleet: {enabled: false}
kubernetes: {enabled: false}
network: {flannel: {enabled: false}, static_routes: true}"""


def test_a_route_to_every_other_node_is_wanted(make_site: Callable[..., Site]) -> None:
    site = make_site(2, ROUTES)
    machine = site.machines["node-1"]
    table = "# subnet address\n10.244.1.0/24 10.77.0.1\n10.244.2.0/24 10.77.0.2\n"
    (machine.folder / "etc/pod-subnets").write_text(table)
    assert machine.health("routes") == {"routes": "bad this node's pods have no subnet yet"}
    (machine.folder / "run/subnet.env").touch()
    assert machine.health("routes") == {"routes": "bad no route to the pods of 10.77.0.2"}
    machine.do("ip route add 10.244.2.0/24 via 10.77.0.2 dev eth0 proto 67")
    assert machine.health("routes") == {"routes": "ok 10.244.1.0/24"}


def test_why_there_is_no_route_is_the_reason(make_site: Callable[..., Site]) -> None:
    """What the kernel says to the script that sets them; and when the node's own row is missing."""
    machine = make_site(2, ROUTES).machines["node-1"]
    with (machine.folder / "run/identity.env").open("a") as file:
        file.write("COUPLER_INTERFACE=lo\n")
    table = machine.folder / "etc/pod-subnets"
    table.write_text("# subnet address\n10.244.1.0/24 10.77.0.1\n10.244.2.0/24 192.0.2.9\n")
    machine.do(f"sh {SCRIPT} 10.244.0.0/16 67")
    said = machine.health("routes")["routes"]
    assert said == "bad no route to the pods of 192.0.2.9: Error: Nexthop has invalid gateway."
    table.write_text("# subnet address\n10.244.1.0/24 10.77.0.1\n10.244.2.0/24 10.77.0.2\n")
    machine.do(f"sh {SCRIPT} 10.244.0.0/16 67")
    assert machine.health("routes") == {"routes": "ok 10.244.1.0/24"}
    table.write_text("# subnet address\n10.244.2.0/24 10.77.0.2\n")
    assert machine.run("sh", str(SCRIPT), "10.244.0.0/16", "67").returncode == 1
    assert machine.health("routes") == {"routes": "bad /etc/coupler/pod-subnets has no subnet for 10.77.0.1"}
