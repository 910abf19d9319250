"""What preflight makes of a machine's answers."""

import pytest

from coupler.model import load_cluster
from coupler.workflows.script import Answer
from coupler.workflows.steps.preflight import problems_of

GOOD = """\
os_id=flatcar
os_variant=
os_name=Flatcar Container Linux by Kinvolk 4593.2.5
root=0
addresses=10.0.0.11 192.168.5.7
macs=00:00:00:00:00:00 52:54:00:aa:bb:01
free=/etc 500000
free=/opt 9000000
free=/run 500000
free=/var/lib 9000000
listener=0.0.0.0:22 users:(("sshd",pid=1,fd=3))
"""


@pytest.fixture
def cluster(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        'version: 1\nname: demo\ngit: {repository: "git://10.0.0.5/demo.git"}\nnodes:\n'
        '  - {name: node-1, address: 10.0.0.11, roles: [control], mac: "52:54:00:aa:bb:01"}\n'
        '  - {name: node-2, address: 10.0.0.12, roles: [worker], mac: "52:54:00:aa:bb:02"}\n',
        encoding="utf-8",
    )
    return load_cluster(path).cluster


def problems(cluster, answer, skew=0.0, node=0):
    return [what for what, _ in problems_of(cluster, cluster.nodes[node], Answer(answer), skew)]


def test_good_machine_has_no_problem(cluster):
    assert problems(cluster, GOOD) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("os_id=flatcar", "os_id=ubuntu"), "it runs Flatcar Container Linux by Kinvolk 4593.2.5"),
        (("root=0", "root=500"), "we do not become root with sudo"),
        (("root=0", "root=0\nmissing=git\nmissing=curl"), "it has no git, curl"),
        (("free=/opt 9000000", "free=/opt 20480"), "/opt has 20 MiB free, of 256 MiB needed"),
        (("root=0", "root=0\nunwritable=/etc"), "/etc cannot be written"),
    ],
)
def test_each_problem_is_named(cluster, change, expected):
    assert problems(cluster, GOOD.replace(*change)) == [expected]


def test_lab_machine_is_accepted(cluster):
    assert problems(cluster, GOOD.replace("os_id=flatcar\nos_variant=", "os_id=debian\nos_variant=coupler-lab")) == []


def test_address_that_is_not_the_tables(cluster):
    answer = GOOD.replace("10.0.0.11", "10.0.0.99").replace("52:54:00:aa:bb:01", "52:54:00:aa:bb:99")
    assert problems(cluster, answer) == ["its addresses are 10.0.0.99 192.168.5.7, and cluster.yaml says 10.0.0.11"]


def test_mac_address_identifies_a_machine_whose_address_comes_later(cluster):
    assert problems(cluster, GOOD.replace("10.0.0.11", "10.0.0.99")) == []


def test_mac_address_of_another_node(cluster):
    answer = GOOD.replace("52:54:00:aa:bb:01", "52:54:00:aa:bb:02")
    assert problems(cluster, answer) == ["its MAC address is that of node-2 in cluster.yaml"]


@pytest.mark.parametrize(("skew", "word"), [(90.0, "90 s ahead of ours"), (-3600.0, "3600 s behind ours")])
def test_clock_that_is_off(cluster, skew, word):
    assert problems(cluster, GOOD, skew) == [f"its clock is {word}"]


def test_clock_within_a_minute_is_fine(cluster):
    assert problems(cluster, GOOD, 59.0) == []


def test_port_in_use_by_another_process(cluster):
    answer = GOOD + 'listener=*:2379 users:(("nginx",pid=7,fd=3))\n'
    assert problems(cluster, answer) == ["port 2379, which etcd needs, is in use by nginx"]


def test_port_in_use_by_etcd_itself_is_fine(cluster):
    assert problems(cluster, GOOD + 'listener=10.0.0.11:2379 users:(("etcd",pid=7,fd=3))\n') == []


def test_worker_needs_no_port_of_etcd(cluster):
    answer = GOOD.replace("10.0.0.11", "10.0.0.12").replace("bb:01", "bb:02")
    assert problems(cluster, answer + 'listener=*:2380 users:(("nginx",pid=7,fd=3))\n', node=1) == []


BALANCING = GOOD + "balancer=haproxy HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/\n"
KNOWN = "{url: 'https://h/r.tgz', sha256: " + "6f" * 32 + "}"


def balancer_problems(tmp_path, answer, balancer="{}", artifacts="registrator: " + KNOWN):
    path = tmp_path / "cluster.yaml"
    path.write_text(
        'version: 1\nname: demo\ngit: {repository: "git://10.0.0.5/demo.git"}\nnodes:\n'
        "  - {name: node-1, address: 10.0.0.11, roles: [control, lb]}\n"
        f"load_balancer: {balancer}\nartifacts: {{{artifacts}}}\n",
        encoding="utf-8",
    )
    cluster = load_cluster(path).cluster
    return list(problems_of(cluster, cluster.nodes[0], Answer(answer), 0.0))


def test_a_machine_with_a_balancer_and_a_free_port_may_balance(tmp_path):
    assert balancer_problems(tmp_path, BALANCING) == []


@pytest.mark.parametrize("unit", ["coupler-haproxy.service", "coupler-nginx.service"])
def test_our_own_balancer_may_have_the_port(tmp_path, unit):
    taken = f'listener=0.0.0.0:80 users:(("haproxy",pid=7,fd=5)) {unit}\n'
    assert balancer_problems(tmp_path, BALANCING + taken) == []


@pytest.mark.parametrize(
    ("listener", "binds", "clash"),
    [
        ("0.0.0.0:80", '["*:80"]', True),
        ("*:80", '["10.0.0.11:80"]', True),
        ("127.0.0.1:80", '["*:80"]', True),
        ("10.0.0.12:80", '["10.0.0.11:80"]', False),
        ("0.0.0.0:8080", '["*:80"]', False),
    ],
)
def test_a_port_that_somebody_else_has(tmp_path, listener, binds, clash):
    taken = f'listener={listener} users:(("haproxy",pid=7,fd=5)) haproxy.service\n'
    found = balancer_problems(tmp_path, BALANCING + taken, f"{{http: {binds}}}")
    expected = (
        "port 80, which the load balancer needs, is in use by haproxy",
        "on the node: systemctl disable --now haproxy.service; or change load_balancer",
    )
    assert found == ([expected] if clash else [])


@pytest.mark.parametrize(
    ("answer", "balancer", "artifacts", "expected"),
    [
        (GOOD, "{}", f"registrator: {KNOWN}", "it has no haproxy"),
        (GOOD, "{kind: nginx}", f"registrator: {KNOWN}", "it has no nginx"),
        (GOOD, "{kind: nginx}", f"registrator: {KNOWN}, nginx: {KNOWN}", None),
        (GOOD, "{kind: vulcand}", f"registrator: {KNOWN}", None),
        (BALANCING, "{}", "", "registrator cannot be fetched: no server is known to have it"),
        (
            BALANCING,
            "{}",
            "registrator: {url: 'https://h/r.tgz'}",
            "registrator cannot be fetched: no checksum is known",
        ),
    ],
)
def test_a_program_that_cannot_be_had(tmp_path, answer, balancer, artifacts, expected):
    found = [what for what, _ in balancer_problems(tmp_path, answer, balancer, artifacts)]
    assert found == ([expected] if expected else [])


def test_an_old_haproxy(tmp_path):
    [(what, mend)] = balancer_problems(tmp_path, BALANCING.replace("version 2.6.12", "version 2.4.30"))
    assert what.startswith("its HAProxy is older than 2.6: HAProxy version 2.4.30")
    assert "artifacts.haproxy" in mend


def test_an_old_systemd(tmp_path):
    assert balancer_problems(tmp_path, BALANCING + "systemd=252\n") == []
    [(what, _)] = balancer_problems(tmp_path, BALANCING + "systemd=229\n")
    assert what == "its systemd 229 cannot hand credentials to a service"


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ("10.0.0.11/24 192.168.5.7/24", []),
        ("10.0.0.11/24 10.0.0.100/32", []),
        ("10.0.0.11/26 10.0.0.100/32", ["10.0.0.100 is in none of its networks: 10.0.0.11/26"]),
        ("", ["10.0.0.100 is in none of its networks: none"]),
    ],
    ids=["in-one", "held", "outside", "none"],
)
def test_the_virtual_address_belongs_into_a_network_of_the_node(tmp_path, networks, expected):
    answer = GOOD + f"networks={networks}\nbalancer=haproxy HAProxy version 2.6.12\n"
    assert [what for what, _ in balancer_problems(tmp_path, answer, "{virtual_address: 10.0.0.100}")] == expected
