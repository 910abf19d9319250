"""Whatever is edited in cluster.yaml, the entries of the document that change name that very key as their origin."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.errors import ConfigurationError
from coupler.model import load_cluster
from coupler.render import render_document
from coupler.render.provenance import provenance
from coupler.workflows.changes import changes
from coupler.workflows.origins import Origins

if TYPE_CHECKING:
    from coupler.workflows.changes import Change

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cluster"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEvsIVM/Vh5FbCRwC74iss5A05f8RR3bC4V+YKIoe4pP"
SUM = "6f" * 32
EVERY_OPTION = (FIXTURES / "valid" / "every-option.yaml").read_text()
CLASSIC = (
    EVERY_OPTION.replace("distribution: flatcar", "distribution: container-linux")
    .replace('  version: "4081.3.10"\n', "")
    .replace("channel: lts", "channel: stable")
    .replace("kubernetes:\n  enabled: true", "kubernetes:\n  enabled: false")
    .replace("artifacts:\n  kubectl:", "artifacts: {}\nunused:\n  kubectl:")
)
CLASSIC = re.sub(r"unused:\n(  .*\n)+", "", CLASSIC)

EDITS = {
    "name": "other",
    "os.channel": "stable",
    "os.version": "~",
    "os.arch": "arm64",
    "os.update_server": "https://elsewhere.example.org/",
    "os.reboot.strategy": "reboot",
    "os.reboot.window.start": "Fri 05:00",
    "os.reboot.window.length": "2h",
    "os.reboot.group": "rack-b",
    "os.reboot.max_nodes": "2",
    "ssh.user": "core",
    "ssh.authorized_keys[0]": f"{KEY} somebody",
    "git.repository": "https://git.example.org/other.git",
    "git.branch": "other",
    "git.allowed_signers[0]": f"you@example.org {KEY}",
    "git.interval": "30s",
    "git.health_timeout": "90s",
    "network.pods": "10.132.0.0/14",
    "network.services": "10.112.0.0/12",
    "network.domain": "other.example.org",
    "network.flannel.enabled": "false",
    "network.flannel.version": "0.14.0",
    "network.flannel.backend": "vxlan",
    "network.flannel.mtu": "1400",
    "etcd.version": '"3.5.24"',
    "etcd.v2_api": "false",
    "etcd.tls": "false",
    "etcd.heartbeat_interval": "60",
    "etcd.election_timeout": "600",
    "etcd.extra_args.quota-backend-bytes": "1",
    "etcd.extra_args.auto-compaction-retention": '"9"',
    "fleet.enabled": "false",
    "fleet.version": '"0.11.8"',
    "fleet.metadata.region": "us",
    "fleet.units.logger.service.content": "--follow → --lines=5",
    "fleet.units.logger.service.state": "inactive",
    "fleet.units.web@.service": "../files/watch.service",
    "fleet.units.web@1.service": "../files/watch.service",
    "fleet.units.web@2.service.state": "loaded",
    "fleet.units.watch.service.file": '"../files/web@.service"',
    "kubernetes.enabled": "false",
    "kubernetes.version": '"1.34.3"',
    "kubernetes.cni_plugins_version": "1.7.1",
    "kubernetes.feature_gates.StatefulSetAutoDeletePVC": "false",
    "kubernetes.feature_gates.GracefulNodeShutdown": "true",
    "kubernetes.api_server.extra_args.audit-log-maxage": "31",
    "kubernetes.api_server.extra_args.anonymous-auth": "true",
    "kubernetes.controller_manager.extra_args.node-monitor-grace-period": "40s",
    "kubernetes.scheduler.extra_args.v": "3",
    "kubernetes.audit": "false",
    "kubernetes.kubelet.version": "1.35.1",
    "kubernetes.kubelet.system_reserved.cpu": "201m",
    "kubernetes.kubelet.system_reserved.memory": "3Gi",
    "kubernetes.kubelet.system_reserved.ephemeral_storage": "3Gi",
    "kubernetes.kubelet.system_reserved.pid": "1001",
    "kubernetes.kubelet.kube_reserved.cpu": "151m",
    "kubernetes.kubelet.kube_reserved.memory": "257Mi",
    "kubernetes.kubelet.kube_reserved.ephemeral_storage": "3Gi",
    "kubernetes.kubelet.kube_reserved.pid": "501",
    "kubernetes.kubelet.eviction_hard.memory_available": "5%",
    "kubernetes.kubelet.eviction_hard.nodefs_available": "4Gi",
    "kubernetes.kubelet.eviction_hard.nodefs_inodes_free": "7%",
    "kubernetes.kubelet.eviction_hard.imagefs_available": "13%",
    "kubernetes.kubelet.shutdown_grace_period": "3m",
    "kubernetes.kubelet.shutdown_grace_period_critical_pods": "31s",
    "kubernetes.kubelet.configuration.serializeImagePulls": "true",
    "kubernetes.kubelet.extra_args.max-pods": "201",
    "kubernetes.proxy.version": "1.35.1",
    "kubernetes.proxy.mode": "iptables",
    "kubernetes.proxy.extra_args.conntrack-max-per-core": "1",
    "kubernetes.addons.coredns.enabled": "false",
    "kubernetes.addons.coredns.version": "1.11.3",
    "kubernetes.addons.coredns.image": "registry.example.org/coredns:1.13.1",
    "kubernetes.addons.coredns.replicas": "4",
    "kubernetes.addons.coredns.upstreams[0]": "10.0.0.54",
    "kubernetes.addons.manifests.web": "../files/web-other.yaml",
    "kubernetes.addons.manifests.motd.apiVersion": "v2",
    "kubernetes.addons.manifests.motd.kind": "Service",
    "kubernetes.addons.manifests.motd.metadata.name": "news",
    "docker.options.log-driver": "journald",
    "docker.options.log-opts.max-size": "51m",
    "docker.options.log-opts.max-file": '"4"',
    "docker.options.live-restore": "false",
    "docker.options.max-concurrent-downloads": "7",
    "proxy.http": "http://other.example.org:3128",
    "proxy.https": "http://other.example.org:3128",
    "proxy.no_proxy[0]": ".example.net",
    "proxy.no_proxy[1]": "10.0.0.0/9",
    "ca_certificates[0]": "../files/other.pem",
    "time_servers[0]": "ntp2.example.org",
    "time_servers[1]": "10.0.0.6",
    "extra": "../files/extra-other.yaml",
    "mirror.url": "http://10.0.0.6:8080/",
    "mirror.folder": "../files/empty-mirror",
    "mirror.only": "true",
    "artifacts.containerd.version": "2.1.4",
    "artifacts.runc.version": "1.3.3",
    "artifacts.kubectl.url": "https://downloads.example.org/kubectl.tgz",
    "artifacts.kubectl.version": "1.35.1",
    "artifacts.kubectl.sha256": SUM,
    "artifacts.kubectl.member": "kubectl",
    "nodes[0].name": "host-[1-3]",
    "nodes[0].address": "10.0.0.31-10.0.0.33",
    "nodes[0].roles[0]": "worker",
    "nodes[0].roles[1]": "worker",
    "nodes[0].labels.rack": "b",
    "nodes[0].labels.example.org/disk": "hdd",
    "nodes[1].name": "border",
    "nodes[1].address": "10.0.0.22",
    "nodes[1].mac": '"52:54:00:12:34:57"',
    "nodes[1].roles[0]": "control",
    "nodes[1].roles[1]": "etcd",
    "nodes[1].taints[0]": '"example.org/edge=:NoSchedule"',
    "nodes[1].taints[1]": '"dedicated:NoExecute"',
    "network.static_routes": "false",
    "nodes[1].pod_subnet": "10.128.8.0/24",
}
"""For every key of every-option.yaml whose value is in the document, another value."""

PIN = '  version: "4081.3.10"\n'
GATE = {"GracefulNodeShutdown: false": "GracefulNodeShutdown: true"}
FIRST = {
    "kubernetes.addons.coredns.version": {"      image: registry.example.org/coredns:1.12.1\n": ""},
    "kubernetes.kubelet.shutdown_grace_period": GATE,
    "kubernetes.kubelet.shutdown_grace_period_critical_pods": GATE,
    "os.channel": {PIN: ""},
    "os.update_server": {PIN: ""},
    "os.reboot.max_nodes": {"node-[1-3]": "node-[1-5]", "-10.0.0.13": "-10.0.0.15"},
    "network.static_routes": {"flannel:\n    enabled: true": "flannel:\n    enabled: false"},
    "nodes[1].pod_subnet": {"flannel:\n    enabled: true": "flannel:\n    enabled: false"},
    "network.flannel.mtu": {"backend: host-gw": "backend: vxlan"},
    "etcd.v2_api": {"strategy: etcd-lock": "strategy: reboot", "fleet:\n  enabled: true": "fleet:\n  enabled: false"},
    "nodes[0].roles[0]": {"kubernetes:\n  enabled: true": "kubernetes:\n  enabled: false"},
}
"""What must be edited beforehand, so that the edit of a key is possible and has an effect."""

NOT_IN_THE_DOCUMENT = {
    *("kubernetes.endpoint", "kubernetes.certificate_names[0]", "kubernetes.certificate_names[1]"),
    *("load_balancer.kind", "load_balancer.announcements", "load_balancer.domain", "load_balancer.kubeconfig"),
    *("load_balancer.http[0]", "load_balancer.http[1]", "load_balancer.https[0]", "load_balancer.kubernetes"),
    *("load_balancer.virtual_address", "load_balancer.seal_key", "load_balancer.image"),
    *("artifacts.registrator.url", "artifacts.registrator.sha256"),
    *("version", "ssh.port", "ssh.private_key", "ssh.host_keys", "ssh.known_hosts"),
    "kubernetes.pause_image",
    *("git.push", "git.signing_key", "nodes[0].ssh.port", "nodes[0].ssh.user", "nodes[1].ssh.address"),
}
ONE_DIALECT_ONLY = {"os.distribution"}


@pytest.fixture
def folder(tmp_path):
    """A copy of the fixtures in which files may be changed."""
    files = tmp_path / "files"
    files.mkdir()
    for path in (FIXTURES / "files").glob("*.*"):
        (files / path.name).write_bytes(path.read_bytes())
    (files / "other.pem").write_bytes((files / "company.pem").read_bytes())
    (files / "extra-other.yaml").write_text((files / "extra.yaml").read_text().replace("/etc/motd", "/etc/issue"))
    mirror = FIXTURES / "files" / "mirror"
    shutil.copytree(mirror, files / "mirror")
    shutil.copytree(mirror / "images", files / "empty-mirror" / "images")
    (tmp_path / "valid").mkdir()
    return tmp_path / "valid"


def load(folder, text):
    file = folder / "cluster.yaml"
    file.write_text(text)
    return load_cluster(file)


def named(path):
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def leaves(loaded):
    """The paths of all scalars, by name."""
    positions = loaded.source.positions
    inner = {path[:length] for path in positions for length in range(len(path))}
    return {named(path): path for path in positions if path not in inner}


def edited(loaded, key, value):
    """The text with another value for one key."""
    path = leaves(loaded)[key]
    old = loaded.source.data
    for part in path:
        old = old[part]
    if "\n" in str(old):  # a text of several lines, in which a word is changed
        return loaded.text.replace(*value.split(" → "))
    line, column = loaded.source.positions[path].value
    lines = loaded.text.splitlines(keepends=True)
    text = lines[line - 1]
    start = column - 1
    quoted = text[start] == '"'
    lines[line - 1] = text[:start] + value + text[start + len(old) + 2 * quoted :]
    return "".join(lines)


def entry_path(change: Change):
    """The path of a changed entry, as `provenance` names it."""
    if change.what == "file":
        return ("write_files", change.name)
    if change.what == "node":
        return ("write_files", "/etc/coupler/nodes")
    if change.what == "setting":
        return tuple(change.name.split("."))
    unit = change.name.rpartition("/")[0].removesuffix(".d") if change.what == "drop-in" else change.name
    return ("coreos", "units", unit)


def unexplained(old, new, key):
    """The entries that an edit of `key` changed and whose origin does not name its line."""
    path = leaves(old)[key]
    line = old.source.positions[path].key[0]
    before, after = Origins(old), Origins(new)
    found = changes(render_document(old.cluster), render_document(new.cluster))
    missing = []
    for change in found:
        origins = after if change.kind == "added" else before
        written = {(written.file, written.line) for written in origins.of([entry_path(change)]).keys}
        if (str(old.path), line) not in written:
            missing.append((change, sorted(written)))
    return found, missing


def test_every_key_has_an_edit(folder):
    assert set(leaves(load(folder, EVERY_OPTION))) == set(EDITS) | NOT_IN_THE_DOCUMENT | ONE_DIALECT_ONLY


@pytest.mark.parametrize("key", EDITS)
def test_entries_that_an_edit_changes_name_its_line(folder, key):
    text = EVERY_OPTION
    for part, instead in FIRST.get(key, {}).items():
        assert part in text
        text = text.replace(part, instead)
    old = load(folder, text)
    try:
        new = load(folder, edited(old, key, EDITS[key]))
    except ConfigurationError as error:
        pytest.fail("\n".join(finding.text() for finding in error.findings))
    found, missing = unexplained(old, new, key)
    assert found, "the edit changes nothing"
    assert not missing


def test_the_classic_dialect_is_traced_too(folder):
    old = load(folder, CLASSIC)
    checked = set()
    for key in set(EDITS) & set(leaves(old)):
        try:
            new = load(folder, edited(old, key, EDITS[key]))
        except ConfigurationError:
            continue
        found, missing = unexplained(old, new, key)
        assert not missing, key
        checked |= {key} if found else set()
    assert {"etcd.tls", "etcd.heartbeat_interval", "fleet.enabled", "network.pods", "nodes[0].address"} <= checked


@pytest.mark.parametrize("dialect", [("flatcar", "container-linux"), ("container-linux", "flatcar")])
def test_another_dialect_changes_the_entries_that_name_it(folder, dialect):
    text = CLASSIC.replace("container-linux", dialect[0])
    old = load(folder, text)
    found, missing = unexplained(old, load(folder, text.replace(*dialect)), "os.distribution")
    assert len(found) > 10
    assert not missing


def test_row_that_becomes_a_range_is_named_by_what_counts_nodes(folder):
    one = "version: 1\nname: demo\ngit: {repository: 'git://10.0.0.5/d.git', interval: 10m}\nnodes:\n"
    one += "  - {name: n, address: 10.0.1.1, roles: [control]}\n  - {name: w1, address: 10.0.2.1}\n"
    old = load(folder, one)
    new = load(folder, one.replace("name: w1, address: 10.0.2.1", "name: 'w[1-60]', address: 10.0.2.1-10.0.2.60"))
    found, missing = unexplained(old, new, "nodes[1].name")
    assert "coupler-pull.timer" in {change.name for change in found}
    assert not missing


@pytest.mark.parametrize("name", ["one-node", "three-nodes", "three-plus-five", "container-linux", "every-option"])
def test_every_entry_of_a_document_has_an_origin(name):
    loaded = load_cluster(FIXTURES / "valid" / f"{name}.yaml")
    expected = {entry_path(change) for change in changes(None, render_document(loaded.cluster))}
    assert {origin.path for origin in provenance(loaded.cluster)} == expected


def test_what_nobody_wrote_is_not_listed():
    loaded = load_cluster(FIXTURES / "valid" / "one-node.yaml")
    origins = Origins(loaded)
    assert origins.of([("coreos", "units", "etcd.service")]).keys == ()
    assert origins.of([("coreos", "units", "etcd.service")]).fragments == ("cloud-config/flatcar/etcd.yaml.j2",)


def test_tracing_is_exact_where_the_templates_are_plain(folder):
    origins = Origins(load(folder, EVERY_OPTION))

    def keys(*path):
        return [key.name for key in origins.of([path]).shown]

    assert keys("write_files", "/etc/docker/daemon.json") == ["docker.options"]
    assert keys("coreos", "units", "coupler.target") == ["name"]
    assert keys("write_files", "/opt/bin/coupler-pull") == []
    assert keys("coreos", "update", "group") == ["os.channel"]
    assert sorted(keys("write_files", "/etc/motd")) == ["extra", "write_files[0]"]


def test_many_keys_below_one_are_shown_as_that_one(folder):
    rows = "".join(f"  - {{name: n{number}, address: 10.0.1.{number}}}\n" for number in range(1, 9))
    loaded = load(folder, EVERY_OPTION + rows)
    found = Origins(loaded).of([("write_files", "/etc/coupler/nodes")])
    assert [key.name for key in found.shown] == ["fleet.metadata", "kubernetes.enabled", "kubernetes.version", "nodes"]
    assert len(found.keys) > 20


def test_fragment_written_in_cluster_yaml_is_named_by_its_own_lines(folder):
    extra = "extra:\n  write_files:\n    - path: /etc/motd\n      content: hello\n"
    text = EVERY_OPTION.replace("extra: ../files/extra.yaml\n", extra)
    loaded = load(folder, text)
    found = Origins(loaded).of([("write_files", "/etc/motd")])
    line = text[: text.index("- path: /etc/motd")].count("\n") + 1
    assert {key.line for key in found.keys} == {line - 2, line, line + 1}
    assert found.fragments == (str(folder / "cluster.yaml"),)
