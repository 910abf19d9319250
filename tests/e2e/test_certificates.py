"""Certificates on lab machines: renewed one node after another, expired and mended, gone with the role."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from coupler.adapters import pki
from coupler.model import load_cluster
from coupler.workflows.certificates import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Site

pytestmark = pytest.mark.lab

AWAY = "systemctl show -P ActiveExitTimestampMonotonic etcd; systemctl show -P ActiveEnterTimestampMonotonic etcd"
SERVED = (
    ". /run/coupler/identity.env; cd /etc/coupler/pki/etcd; curl -sv --cacert ca.crt --cert client.crt --key client.key"
    " https://$COUPLER_ADDRESS:2379/health 2>&1 | grep 'expire date'"
)


@pytest.fixture(scope="module")
def site(make_site: Callable[[int], Site]) -> Site:
    site = make_site(3)
    assert site.cluster("init").exit_code == 0
    return site


def test_renewal_of_all_restarts_members_one_after_another(site: Site) -> None:
    before, serving = site.everywhere("systemctl show -P InvocationID etcd"), site.everywhere(SERVED)
    answer = site.json("certs", "renew", "--all")
    assert answer.exit_code == 0, answer.stderr
    assert set(answer.states("restart").values()) == {"done"}
    after = site.everywhere("systemctl show -P InvocationID etcd")
    assert all(after[node] != before[node] for node in before)
    assert all(now != serving[node] for node, now in site.everywhere(SERVED).items())
    away = sorted(tuple(map(int, times.split())) for times in site.everywhere(AWAY).values())
    assert all(earlier[1] < later[0] for earlier, later in pairwise(away)), away
    live = site.json("certs", "status", "--live")
    assert live.exit_code == 0
    assert {entry["on_node"] for entry in live.data["certificates"] if entry["node"]} == {"same"}


def test_with_nothing_due_nothing_changes(site: Site) -> None:
    before = site.everywhere("systemctl show -P InvocationID etcd")
    assert site.cluster("certs", "renew").stdout.startswith(f"cluster {site.lab.name}: unchanged\n")
    assert site.json("init").data["changed"] is False
    assert site.everywhere("systemctl show -P InvocationID etcd") == before


def test_dry_run_names_what_would_be_made_and_makes_nothing(site: Site) -> None:
    before = site.cluster("certs", "status").stdout
    plan = site.json("certs", "renew", "--name", "etcd/peer", "--dry-run")
    assert plan.data["certificates"] == [f"nodes/{node}/etcd/peer" for node in site.machines]
    assert site.cluster("certs", "status").stdout == before


def test_a_run_that_was_cut_off_before_the_restart_is_completed_by_the_next(site: Site) -> None:
    cluster = load_cluster(site.file).cluster
    store = Store(site.folder / ".coupler" / "pki", cluster)
    store.make(datetime.now(UTC), lambda certificate: certificate.path == "nodes/node-2/etcd/server")
    before = site.everywhere("systemctl show -P InvocationID etcd")
    # As if it had ended after the step bootstrap: the file is there, and the note of what to restart.
    answer = site.json("init")
    assert answer.states("bootstrap") == {"node-1": "unchanged", "node-2": "done", "node-3": "unchanged"}
    assert answer.states("restart") == {"node-1": "unchanged", "node-2": "done", "node-3": "unchanged"}
    after = site.everywhere("systemctl show -P InvocationID etcd")
    assert {node for node in before if before[node] != after[node]} == {"node-2"}


def test_expired_certificates_are_shown_and_mended(site: Site) -> None:
    """Every certificate of etcd has expired, and etcd has been started since: nothing is well any more."""
    cluster = load_cluster(site.file).cluster
    folder = site.folder / ".coupler" / "pki"
    long_ago = datetime.now(UTC) - pki.LIFETIME - timedelta(days=1)
    store = Store(folder, cluster)
    store.make(long_ago, lambda certificate: certificate.name.startswith("etcd/"))
    for node in cluster.nodes:
        for path, (content, _) in store.files_for(node).items():
            site.inside(node.name, f"cat > /{path} <<'EOF'\n{content.decode()}EOF")
    site.everywhere("systemctl restart --no-block etcd; sleep 3")

    here = site.cluster("certs", "status")
    assert here.exit_code == 1
    assert re.search(r"^etcd/server +node-1 +etcd/ca .* expired$", here.stdout, re.MULTILINE)
    assert here.stdout.endswith("next: cluster certs renew\n")
    status = site.cluster("status")
    assert status.exit_code == 5
    for node in site.machines:
        assert re.search(rf"^{node}: .*expired: .*/etcd/server\.crt", status.stdout, re.MULTILINE), status.stdout

    mended = site.json("certs", "renew")
    assert mended.exit_code == 0, mended.stderr + mended.stdout
    expected = {f"nodes/{node}/etcd/{kind}" for node in site.machines for kind in ("client", "peer", "server")}
    assert set(mended.data["certificates"]) == {*expected, "nodes/node-3/etcd/registrator"}
    assert site.cluster("status").exit_code == 0
    assert site.cluster("certs", "status", "--live").exit_code == 0


def test_a_node_that_loses_its_role_loses_the_keys_of_it(site: Site) -> None:
    keys = "ls /etc/coupler/pki/kubernetes"
    assert "apiserver.key" in site.inside("node-3", keys)
    site.inside("node-3", "echo mine > /etc/coupler/pki/kubernetes/mine.pem")
    site.edit("roles: [control, worker, lb]", "roles: [worker, lb]")
    assert site.json("init", "--limit", "node-3").states("bootstrap") == {"node-3": "done"}
    assert set(site.inside("node-3", keys).split()) == {
        *("ca.crt", "front-proxy-ca.crt", "kubelet.crt", "kubelet.key", "proxy.crt", "proxy.key", "mine.pem")
    }
    assert "server.key" not in site.inside("node-3", "ls /etc/coupler/pki/etcd")
