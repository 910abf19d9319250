"""The load balancer on lab machines: deployed by `cluster init`, seen by `cluster lb`, in good days and bad."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.archives import docker_files, tar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Answer, Site

pytestmark = pytest.mark.lab

DEADLINE = 20.0
REGISTRATOR, HAPROXY, NGINX = "coupler-registrator", "coupler-haproxy", "coupler-nginx"
ADDRESS = "coupler-address"
STATE_OF_NODE = """
find /etc /opt /var/lib/coupler /var/lib/coupler-lb -xdev -path '*/repository.git' -prune \\
    -o -printf '%p %m %s %C@\\n' | sort
systemctl show -p Id,InvocationID,NRestarts,MainPID coupler-registrator coupler-haproxy etcd
journalctl --quiet --output=cat _PID=1 | grep -c Reloading
true
"""
"""What a run could change, and the registrator does not: files, with the time of the inode's last change, and units."""

BACKEND = """
cat > /run/NAME.conf <<'EOF'
daemon off;
pid /run/NAME.pid;
error_log stderr;
events {}
http { access_log off; server { listen PORT; location / { return 200 "NAME\\n"; } } }
EOF
systemd-run --quiet --unit=NAME nginx -c /run/NAME.conf
"""


@dataclass(frozen=True)
class Balanced:
    """A site of two machines that balance, of which the first is also etcd and has the backends."""

    site: Site
    first_run: Answer
    virtual: str

    def holders(self) -> list[str]:
        """Return the nodes that have the virtual address."""
        found = self.site.everywhere(f"ip -o -4 address show to {self.virtual}/32")
        return [node for node, said in found.items() if said.strip()]

    def address(self, node: str) -> str:
        [found] = [e.machine.address for e in self.site.lab.status().machines if e.machine.name == node]
        return str(found)

    def etcdctl(self, *words: str) -> str:
        quoted = " ".join(f"'{word}'" for word in words)
        return self.site.inside("node-1", f". /etc/profile.d/coupler.sh; etcdctl {quoted}")

    def get(self, node: str, host: str = "shop.test") -> tuple[int, str]:
        """Return status and body of one request through the balancer of a node."""
        return self.get_at(self.address(node), host)

    def get_at(self, address: str, host: str = "shop.test") -> tuple[int, str]:
        """Return status and body of one request to an address."""
        connection = HTTPConnection(address, 80, timeout=5)
        try:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()
        finally:
            connection.close()

    def show(self, node: str, unit: str, what: str = "InvocationID") -> str:
        return self.site.inside(node, f"systemctl show -P {what} {unit}")

    def eventually(self, node: str, expected: tuple[int, str], host: str = "shop.test") -> None:
        eventually(lambda: self.get(node, host) == expected, f"{node}: not {expected}")

    def status_of(self, node: str, host: str = "shop.test") -> int:
        return self.get(node, host)[0]


def domain(balanced: Balanced) -> str:
    [found] = re.findall(r"^  domain: (\S+)$", balanced.site.file.read_text(), re.MULTILINE)
    return str(found)


def eventually(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            if condition():
                return
        except (OSError, HTTPException):
            pass
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)


@dataclass
class Requests(threading.Thread):
    """One request after another through a balancer, each on a connection of its own, and what became of them."""

    balanced: Balanced
    node: str
    wrong: list[str] = field(default_factory=list)
    served: int = 0
    enough: threading.Event = field(default_factory=threading.Event)
    __hash__ = threading.Thread.__hash__

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        while not self.enough.wait(0.005):
            try:
                status, body = self.balanced.get(self.node)
            except (OSError, HTTPException) as error:
                self.wrong.append(repr(error))
            else:
                if status != 200:
                    self.wrong.append(f"{status} {body}")
                self.served += 1


@contextmanager
def unharmed(balanced: Balanced, node: str) -> Iterator[Requests]:
    """Every request through a node's balancer is served meanwhile."""
    requests = Requests(balanced, node)
    requests.start()
    try:
        yield requests
    finally:
        requests.enough.set()
        requests.join(10)
    assert requests.served > 10
    assert requests.wrong == []


@pytest.fixture(scope="module")
def balanced(make_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Balanced:
    site = make_site(2, "--mirror", str(tmp_path_factory.mktemp("mirror")))
    site.edit("roles: [control, worker, lb]", "roles: [worker, lb]")
    site.edit("roles: [control, worker]", "roles: [control, worker, lb]")
    virtual = str(max(entry.machine.address for entry in site.lab.status().machines) + 100)
    site.edit("  kind: haproxy", f"  kind: haproxy\n  virtual_address: {virtual}")
    first_run = site.json("init")
    assert first_run.exit_code == 0, first_run.stdout
    balanced = Balanced(site, first_run, virtual)
    for name, port in (("one", "8001"), ("two", "8002")):
        site.inside("node-1", BACKEND.replace("NAME", name).replace("PORT", port))
    balanced.etcdctl("put", "/services/shop/.service", '{"host": "shop.test"}')
    balanced.etcdctl("put", "/services/shop/one", f"{balanced.address('node-1')}:8001")
    for node in site.machines:
        balanced.eventually(node, (200, "one"))
    return balanced


def test_the_last_step_brings_up_every_balancer(balanced: Balanced) -> None:
    assert balanced.first_run.states("balance") == {"node-1": "done", "node-2": "done"}
    assert [step["title"] for step in balanced.first_run.data["steps"]][-2:] == ["health", "balance"]
    assert balanced.first_run.data["failed"] == []


def test_a_second_run_changes_nothing(balanced: Balanced) -> None:
    before = balanced.site.everywhere(STATE_OF_NODE)
    plan = balanced.site.json("init", "--dry-run")
    assert (plan.exit_code, plan.data["changed"]) == (0, False)
    assert set(plan.states("balance").values()) == {"unchanged"}
    again = balanced.site.json("init")
    assert (again.exit_code, again.data["changed"]) == (0, False)
    assert set(again.states("balance").values()) == {"unchanged"}
    after = balanced.site.everywhere(STATE_OF_NODE)
    assert {node: sorted(set(before[node].splitlines()) ^ set(after[node].splitlines())) for node in before} == {
        node: [] for node in before
    }


def test_both_run_as_a_user_that_can_do_little(balanced: Balanced) -> None:
    for unit in (REGISTRATOR, HAPROXY):
        pid = balanced.show("node-2", unit, "MainPID")
        status = balanced.site.inside("node-2", f"stat -c %U /proc/{pid}; cat /proc/{pid}/status")
        assert status.startswith("coupler-lb\n")
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\t0000000000000400$", status, re.MULTILINE), "only CAP_NET_BIND_SERVICE"
    key = "/etc/coupler/pki/etcd/registrator.key"
    tried = balanced.site.lab.exec("node-2", ["setpriv", "--reuid=coupler-lb", "--clear-groups", "cat", key])
    assert tried.returncode != 0
    given = balanced.site.inside("node-2", "ls /run/credentials/coupler-registrator.service")
    assert given.split() == ["ca.crt", "registrator.crt", "registrator.key"]


def test_lb_lists_explains_and_says_that_all_is_well(balanced: Balanced) -> None:
    status = balanced.site.json("lb", "status")
    assert status.exit_code == 0
    assert {node: state["ready"] for node, state in status.data["nodes"].items()} == {"node-1": True, "node-2": True}
    listed = balanced.site.json("lb", "list")
    assert listed.data["agreed"] is True
    [route] = listed.data["routes"]
    assert (route["host"], route["match"], route["nodes"]) == ("shop.test", "/*", ["node-1", "node-2"])
    assert route["endpoints"] == [f"{balanced.address('node-1')}:8001 ready"]
    assert "shop.test" in balanced.site.cluster("lb", "list").stdout
    assert balanced.site.cluster("lb", "explain", "shop.test", "/a").exit_code == 0
    nobody = balanced.site.cluster("lb", "explain", "nobody.test")
    assert (nobody.exit_code, "no route takes it" in nobody.stdout) == (1, True)


def test_an_endpoint_is_drained_and_serves_again(balanced: Balanced) -> None:
    endpoint = f"{balanced.address('node-1')}:8001"
    one = balanced.site.json("lb", "drain", endpoint, "--limit", "node-2")
    assert one.data["draining"] == {"node-2": [endpoint]}
    eventually(lambda: balanced.status_of("node-2") == 503, "it is not drained")
    assert balanced.get("node-1") == (200, "one")
    assert balanced.site.json("lb", "list").data["agreed"] is False
    assert "disagree" in balanced.site.cluster("lb", "list").stdout
    assert balanced.site.cluster("lb", "undrain", endpoint).exit_code == 0
    balanced.eventually("node-2", (200, "one"))
    unknown = balanced.site.cluster("lb", "drain", "10.0.0.1:1")
    assert unknown.exit_code == 2
    assert endpoint in unknown.stderr


def test_a_killed_registrator_comes_back_and_every_route_stays(balanced: Balanced) -> None:
    haproxy, restarts = balanced.show("node-2", HAPROXY, "MainPID"), balanced.show("node-2", REGISTRATOR, "NRestarts")
    with unharmed(balanced, "node-2"):
        balanced.site.inside("node-2", f"systemctl kill -s KILL {REGISTRATOR}")
        eventually(
            lambda: (
                balanced.show("node-2", REGISTRATOR, "NRestarts") == str(int(restarts) + 1)
                and balanced.site.json("lb", "status").exit_code == 0
            ),
            "it does not come back",
        )
    assert balanced.show("node-2", HAPROXY, "MainPID") == haproxy
    balanced.etcdctl("put", "/services/shop/two", f"{balanced.address('node-1')}:8002")
    eventually(lambda: balanced.get("node-2")[1] == "two", "it does not work any more")
    balanced.etcdctl("del", "/services/shop/two")


def test_the_virtual_address_moves_and_is_served_again(balanced: Balanced) -> None:
    def served_by(node: str) -> None:
        eventually(lambda: balanced.holders() == [node], f"it does not move to {node}")
        eventually(lambda: balanced.get_at(balanced.virtual) == (200, "one"), f"{node} does not serve it")

    eventually(lambda: len(balanced.holders()) == 1, "nobody has it")
    [first] = balanced.holders()
    [second] = {"node-1", "node-2"} - {first}
    served_by(first)
    status = balanced.site.json("lb", "status")
    assert (status.exit_code, status.data["virtual_address"]["holders"]) == (0, [first])
    assert f"{balanced.virtual} is at {first}" in balanced.site.cluster("lb", "status").stdout
    pid = balanced.show(first, ADDRESS, "MainPID")
    rights = balanced.site.inside(first, f"cat /proc/{pid}/status")
    assert re.search(r"^CapBnd:\t0000000000003000$", rights, re.MULTILINE), "only CAP_NET_ADMIN and CAP_NET_RAW"
    balanced.site.inside(first, f"systemctl stop {ADDRESS}")
    served_by(second)
    balanced.site.inside(first, f"systemctl start {ADDRESS}")
    eventually(lambda: balanced.site.json("lb", "status").exit_code == 0, "it does not stand again")
    assert balanced.holders() == [second]
    balanced.site.inside(second, f"systemctl stop {HAPROXY}")
    served_by(first)
    balanced.site.inside(second, f"systemctl start {HAPROXY}")
    balanced.site.inside(first, f"systemctl kill -s KILL {ADDRESS}")
    eventually(lambda: balanced.show(first, ADDRESS, "MainPID") not in ("0", pid), "it does not come back")
    eventually(lambda: len(balanced.holders()) == 1, "nobody has it")
    balanced.site.inside("node-1", f"systemctl stop {ADDRESS}")
    served_by("node-2")
    balanced.site.inside("node-1", f"systemctl start {ADDRESS}")
    balanced.site.lab.kill("node-2")
    eventually(lambda: balanced.get_at(balanced.virtual) == (200, "one"), "node-1 does not follow a dead machine")
    balanced.site.lab.start("node-2")
    balanced.eventually("node-2", (200, "one"))
    assert balanced.holders() == ["node-1"]


def test_another_configuration_restarts_the_registrator_alone(balanced: Balanced) -> None:
    before = balanced.site.everywhere(f"systemctl show -P InvocationID {REGISTRATOR} {HAPROXY}")
    balanced.site.edit(f"  domain: {domain(balanced)}", f"  domain: new.{domain(balanced)}")
    with unharmed(balanced, "node-1"):
        changed = balanced.site.json("init")
    assert (changed.exit_code, changed.states("balance")) == (0, {"node-1": "done", "node-2": "done"})
    after = balanced.site.everywhere(f"systemctl show -P InvocationID {REGISTRATOR} {HAPROXY}")
    for node in before:
        same = [old == new for old, new in zip(before[node].split(), after[node].split(), strict=True)]
        assert same == [False, True], node


def test_a_changed_file_is_mended_and_haproxy_reads_it_without_losing_a_request(balanced: Balanced) -> None:
    master = balanced.show("node-1", HAPROXY, "MainPID")
    balanced.site.inside("node-1", "sed -i 's/retries 3/retries 2/' /etc/coupler-lb/haproxy.cfg")
    with unharmed(balanced, "node-1"):
        assert balanced.site.json("init").states("balance") == {"node-1": "done", "node-2": "unchanged"}
    assert balanced.site.inside("node-1", "grep -c 'retries 3' /etc/coupler-lb/haproxy.cfg") == "1"
    assert balanced.show("node-1", HAPROXY, "MainPID") == master


def test_a_program_with_another_checksum_is_not_run_and_the_old_one_stays(balanced: Balanced) -> None:
    text = balanced.site.file.read_text()
    runs = f"systemctl show -P InvocationID {REGISTRATOR} {HAPROXY}; readlink -f /opt/coupler/registrator"
    before = balanced.site.everywhere(runs)
    url = f"{balanced.site.lab.mirror_url}/SHA256SUMS"
    balanced.site.file.write_text(f"{text}\nartifacts: {{registrator: {{url: '{url}', sha256: {'0' * 64}}}}}\n")
    try:
        answer = balanced.site.json("init")
    finally:
        balanced.site.file.write_text(text)
    assert answer.exit_code == 5
    assert set(answer.states("balance").values()) == {"failed"}
    assert "has another checksum than 0000" in answer.failed["node-1"]
    assert balanced.site.everywhere(runs) == before
    assert balanced.site.json("init").exit_code == 0


def test_a_port_that_somebody_else_has_is_found_before_anything_changes(balanced: Balanced) -> None:
    balanced.site.inside("node-2", f"systemctl stop {HAPROXY}")
    balanced.site.inside("node-2", BACKEND.replace("NAME", "squatter").replace("PORT", "80"))
    try:
        answer = balanced.site.json("init")
    finally:
        balanced.site.inside("node-2", f"systemctl stop squatter; systemctl start {HAPROXY}")
    assert answer.exit_code == 5
    assert answer.states("preflight") == {"node-1": "ok", "node-2": "failed"}
    assert "port 80, which the load balancer needs, is in use by nginx" in answer.failed["node-2"]
    assert "squatter.service" in answer.data["failed"][0]["next_step"]
    assert answer.states("balance") == {"node-1": "unchanged"}
    balanced.eventually("node-2", (200, "one"))


def test_a_machine_that_is_off_harms_itself_alone_and_balances_again_after_its_boot(balanced: Balanced) -> None:
    balanced.site.lab.kill("node-2")
    with unharmed(balanced, "node-1"):
        answer = balanced.site.json("init")
    assert answer.exit_code == 5
    assert answer.states("balance") == {"node-1": "unchanged"}
    assert list(answer.failed) == ["node-2"]
    status = balanced.site.json("lb", "status")
    assert (status.exit_code, list(status.data["nodes"])) == (5, ["node-1"])
    balanced.site.lab.start("node-2")
    balanced.eventually("node-2", (200, "one"))
    eventually(lambda: balanced.site.json("lb", "status").exit_code == 0, "it is not well")


def test_limit_leaves_the_other_balancer_as_it_is(balanced: Balanced) -> None:
    balanced.site.edit(f"  domain: {domain(balanced)}", f"  domain: newer.{domain(balanced)}")
    answer = balanced.site.json("init", "--limit", "node-1")
    assert answer.states("balance") == {"node-1": "done"}
    assert "newer." not in balanced.site.inside("node-2", "cat /etc/coupler-lb/registrator.yaml")
    assert balanced.site.json("init").states("balance") == {"node-1": "unchanged", "node-2": "done"}


def test_without_a_virtual_address_its_unit_goes_and_the_address_too(balanced: Balanced) -> None:
    balanced.site.edit(f"\n  virtual_address: {balanced.virtual}", "")
    assert set(balanced.site.json("init").states("balance").values()) == {"done"}
    assert balanced.holders() == []
    for node in balanced.site.machines:
        assert balanced.show(node, ADDRESS, "LoadState") == "not-found"
    assert balanced.site.json("lb", "status").data["virtual_address"] is None
    assert set(balanced.site.json("init").states("balance").values()) == {"unchanged"}


def image_of_haproxy(reference: str) -> bytes:
    """Return an image as `docker save` writes it: this machine's HAProxy in one layer, its libraries in another."""
    program = Path(shutil.which("haproxy") or "")
    said = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]
    lower = {str(path.parent.resolve() / path.name)[1:]: path.read_bytes() for path in libraries}
    upper = {f"usr/local/sbin/{program.name}": program.read_bytes()}
    layers = {"1/layer.tar": tar(lower, 0o755), "2/layer.tar": tar(upper, 0o755)}
    return tar(docker_files([reference], {"architecture": "amd64", "os": "linux"}, layers))


def test_haproxy_out_of_an_image_is_a_service_like_any_other(balanced: Balanced, tmp_path: Path) -> None:
    site, reference, file = balanced.site, "registry.test/haproxy:1", tmp_path / "haproxy.tar"
    text = site.file.read_text()
    site.edit("  kind: haproxy", f"  kind: haproxy\n  image: {reference}")
    checked = site.cluster("check")
    assert (
        f"warning: the mirror has no image {reference} for amd64: nothing is balanced"
        in checked.stderr + checked.stdout
    )
    early = site.json("init")
    assert early.exit_code == 5
    assert set(early.failed.values()) == {"haproxy cannot be fetched: no server is known to have it"}
    file.write_bytes(image_of_haproxy(reference))
    added = site.cluster("mirror", "add-image", str(file))
    assert added.exit_code == 0, added.stderr
    before = balanced.show("node-2", HAPROXY)
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    assert answer.states("balance") == {"node-1": "done", "node-2": "done"}
    for node in site.machines:
        pid = balanced.show(node, HAPROXY, "MainPID")
        assert site.inside(node, f"readlink /proc/{pid}/exe").startswith("/opt/coupler/haproxy-")
        assert site.inside(node, f"stat -c %U /proc/{pid}").split() == ["coupler-lb"]
        balanced.eventually(node, (200, "one"))
    assert balanced.show("node-2", HAPROXY) != before
    with unharmed(balanced, "node-2"):
        site.inside("node-2", "systemctl reload coupler-haproxy && sleep 0.5 && systemctl reload coupler-haproxy")
    assert site.json("init").data["changed"] is False
    site.file.write_text(text)
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    assert site.everywhere(
        "ls /opt/bin/haproxy 2>/dev/null; ls -d /opt/coupler/haproxy-* 2>/dev/null; true"
    ) == dict.fromkeys(site.machines, "")
    balanced.eventually("node-2", (200, "one"))


def test_nginx_takes_haproxys_place(balanced: Balanced) -> None:
    balanced.site.edit("  kind: haproxy", "  kind: nginx")
    answer = balanced.site.json("init")
    assert (answer.exit_code, answer.failed) == (0, {})
    for node in balanced.site.machines:
        balanced.eventually(node, (200, "one"))
        assert balanced.show(node, HAPROXY, "LoadState") == "not-found"
        assert balanced.site.inside(node, f"stat -c %U /proc/{balanced.show(node, NGINX, 'MainPID')}") == "coupler-lb"
    again = balanced.site.json("init")
    assert (again.exit_code, again.data["changed"]) == (0, False)
    with unharmed(balanced, "node-1"):
        balanced.etcdctl("put", "/services/other/one", f"{balanced.address('node-1')}:8002")
        balanced.eventually("node-1", (200, "two"), f"other.{domain(balanced)}")
