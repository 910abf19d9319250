"""coupler-health and routes to other nodes' pods, as coupler-routes sets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.health.machines import Site

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
