"""Containers of two machines reach each other: real containerd, runc and CNI plugins, and the routes that nodes set."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Site

pytestmark = pytest.mark.lab

PORT = 8080
"""The user of the lab's image may not listen on a port below 1024."""
SERVER = f"""
socket(S, PF_INET, SOCK_STREAM, 6) && bind(S, sockaddr_in({PORT}, INADDR_ANY)) && listen(S, 9) or die $!;
while ($p = accept(C, S)) {{
    sysread(C, $_, 4096);
    syswrite(C, "HTTP/1.0 200 OK\\r\\n\\r\\n" . inet_ntoa((sockaddr_in($p))[1]));
    close C
}}"""
"""A web server that answers with the address of who asks; the image has no program, so it has the machine's /usr."""
RUN = f"""
image=$(ctr -n k8s.io images ls -q | grep -m1 pause)
ctr -n k8s.io run --cni --detach --mount type=bind,src=/usr,dst=/usr,options=rbind:ro \\
    --mount type=bind,src=/usr/lib64,dst=/lib64,options=rbind:ro \\
    --mount type=bind,src=/usr/lib,dst=/lib,options=rbind:ro \\
    "$image" NAME /usr/bin/perl -MSocket -e '{SERVER}'
grep -l k8s.io-NAME /var/lib/cni/networks/coupler/10.* | xargs basename
"""
ROUTES = "ip -4 route show proto 67 | cut -d' ' -f1-3 | sort"


@pytest.fixture(scope="module")
def site(make_site: Callable[[int], Site]) -> Site:
    site = make_site(2)
    text = site.file.read_text()
    head, _, tail = text.partition("\nnetwork:\n") if "\nnetwork:\n" in text else (text, "", "")
    rest = tail.partition("\n\n")[2]
    site.file.write_text(f"{head}\n{rest}\nnetwork:\n  flannel: {{enabled: false}}\n")
    answer = site.cluster("init")
    assert answer.exit_code == 0, answer.stderr
    return site


def run(site: Site, machine: str, name: str) -> str:
    """Run the server in a container of that name; return its address."""
    return site.inside(machine, RUN.replace("NAME", name))


def ask(site: Site, machine: str, name: str, address: str) -> str:
    """Return what the server at the address answers to the container."""
    curl = f"/usr/bin/curl --silent --show-error --max-time 5 --retry 5 --retry-connrefused http://{address}:{PORT}/"
    return site.inside(machine, f"ctr -n k8s.io task exec --exec-id ask-{time.monotonic_ns()} {name} {curl}")


def last(site: Site, machine: str) -> int:
    return int(site.inside(machine, ". /run/coupler/identity.env; echo ${COUPLER_ADDRESS##*.}"))


def until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.3)


def test_containers_of_two_machines_reach_each_other_with_addresses_of_their_own(site: Site) -> None:
    one, other = run(site, "node-1", "web"), run(site, "node-2", "web")
    assert one.startswith(f"10.244.{last(site, 'node-1')}."), "of the subnet that the document gives it"
    assert other.startswith(f"10.244.{last(site, 'node-2')}.")
    assert ask(site, "node-1", "web", other) == one, "nothing masquerades between pods"
    assert ask(site, "node-2", "web", one) == other
    assert ask(site, "node-1", "web", one) == one


def test_a_route_that_is_lost_comes_back_and_a_strange_one_goes(site: Site) -> None:
    before = site.inside("node-1", ROUTES)
    assert before.startswith(f"10.244.{last(site, 'node-2')}.0/24 via ")
    site.inside(
        "node-1", "ip -4 route flush proto 67; ip route add 10.244.99.0/24 via 10.244.0.0 onlink dev host0 proto 67"
    )
    site.inside("node-1", "systemctl start coupler-routes")
    assert site.inside("node-1", ROUTES) == before
    site.inside("node-1", "ip route add 10.99.0.0/24 dev host0 && systemctl start coupler-routes")
    assert site.inside("node-1", "ip route show 10.99.0.0/24"), "other people's routes stay"


def test_a_machine_that_reboots_is_reached_again(site: Site) -> None:
    routes = site.inside("node-2", ROUTES)
    site.lab.reboot("node-2")
    until(lambda: site.inside("node-2", f"{ROUTES}; true") == routes, "the routes do not come back")
    until(lambda: site.lab.exec("node-2", ["ctr", "version"]).returncode == 0, "containerd does not come back")
    one, other = run(site, "node-1", "again"), run(site, "node-2", "again")
    assert ask(site, "node-1", "again", other) == one
    assert ask(site, "node-2", "again", one) == other
