"""What differs between two documents, entry by entry; and for which nodes a unit is meant."""

from pathlib import Path

import pytest

from coupler.model import load_cluster
from coupler.render import render_document
from coupler.workflows.changes import Change, changes, entries, leap, summary
from coupler.workflows.conditions import Condition, conditions_of, roles_of

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cluster" / "valid"

DOCUMENT = """\
#cloud-config
hostname: "one"
ssh_authorized_keys:
  - "ssh-ed25519 AAAA a"
users:
  - name: "ops"
    groups: ["wheel"]
write_files:
  - path: /etc/motd
    permissions: "0644"
    content: |
      hello
  - path: /etc/coupler/nodes
    content: |
      # name address mac roles labels metadata
      node-1 10.0.0.11 - control,etcd - -
      node-2 10.0.0.12 - worker - -
coreos:
  update:
    group: "stable"
  units:
    - name: etcd.service
      enable: true
      content: |
        [Unit]
        ConditionPathExists=/run/coupler/roles/etcd
        [Service]
        ExecStart=/opt/bin/etcd
    - name: docker.service
      drop_ins:
        - name: 10-a.conf
          content: |
            [Service]
            Environment=A=1
"""


def names(found):
    return [(change.kind, change.what, change.name) for change in found]


def test_entries_of_a_document():
    found = entries(DOCUMENT)
    assert list(found) == [
        ("setting", "hostname"),
        ("setting", "ssh_authorized_keys"),
        ("setting", "users.ops"),
        ("file", "/etc/motd"),
        ("file", "/etc/coupler/nodes"),
        ("node", "node-1"),
        ("node", "node-2"),
        ("unit", "etcd.service"),
        ("drop-in", "docker.service.d/10-a.conf"),
        ("setting", "coreos.update.group"),
    ]
    assert found["file", "/etc/motd"].content == "hello\n"
    assert found["file", "/etc/motd"].details == {"permissions": "0644"}
    assert found["unit", "etcd.service"].roles == ("etcd",)
    assert found["unit", "etcd.service"].details == {"enable": "true"}


def test_same_document_has_no_changes():
    assert changes(DOCUMENT, DOCUMENT + "# a comment\n") == ()


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("hello", "goodbye", Change("changed", "file", "/etc/motd")),
        ('"0644"', '"0600"', Change("changed", "file", "/etc/motd")),
        ("/opt/bin/etcd", "/opt/bin/etcd --v", Change("changed", "unit", "etcd.service", ("etcd",))),
        ("enable: true", "enable: false", Change("changed", "unit", "etcd.service", ("etcd",))),
        ("ConditionPathExists=/run/coupler/roles/etcd", "", Change("changed", "unit", "etcd.service")),
        ("roles/etcd", "roles/control", Change("changed", "unit", "etcd.service", ("etcd", "control"))),
        ("A=1", "A=2", Change("changed", "drop-in", "docker.service.d/10-a.conf")),
        ("10.0.0.12", "10.0.0.13", Change("changed", "node", "node-2")),
        ('"stable"', '"beta"', Change("changed", "setting", "coreos.update.group")),
        ("wheel", "docker", Change("changed", "setting", "users.ops")),
        ("AAAA a", "AAAA b", Change("changed", "setting", "ssh_authorized_keys")),
        ("# name address", "# names", Change("changed", "file", "/etc/coupler/nodes")),
    ],
)
def test_each_difference_is_one_change(old, new, change):
    assert changes(DOCUMENT, DOCUMENT.replace(old, new)) == (change,)


def test_what_is_new_and_what_is_gone():
    row = "      node-2 10.0.0.12 - worker - -\n"
    assert changes(DOCUMENT.replace(row, ""), DOCUMENT) == (Change("added", "node", "node-2"),)
    assert changes(DOCUMENT, DOCUMENT.replace(row, "")) == (Change("removed", "node", "node-2"),)
    assert names(changes(DOCUMENT, DOCUMENT.replace("etcd.service", "etcd3.service"))) == [
        ("added", "unit", "etcd3.service"),
        ("removed", "unit", "etcd.service"),
    ]


@pytest.mark.parametrize("old", [None, "", "- a list\n", "a: b: c\n", "x: 1\nx: 2\n"])
def test_beside_no_document_everything_is_new(old):
    found = changes(old, DOCUMENT)
    assert len(found) == len(entries(DOCUMENT))
    assert {change.kind for change in found} == {"added"}


def test_change_of_an_entry_that_stands_twice_is_seen():
    twice = DOCUMENT + "    - name: etcd.service\n      command: start\n"
    assert changes(twice, twice.replace("command: start", "command: restart")) == (
        Change("changed", "unit", "etcd.service", ("etcd",)),
    )
    assert changes(twice, twice.replace("/opt/bin/etcd", "/bin/etcd")) == (
        Change("changed", "unit", "etcd.service", ("etcd",)),
    )


def test_summary_is_one_short_line():
    found = [Change("added", "node", "node-4"), Change("changed", "unit", "etcd.service", ("etcd",))]
    assert summary(found) == "change etcd.service (role etcd); add node-4"
    assert summary([Change("removed", "unit", "x.service", ("etcd", "lb"))]) == "remove x.service (roles etcd, lb)"
    assert summary([]) == "no entry differs"


def test_summary_names_a_few_and_counts_the_rest():
    many = [Change("added", "node", f"node-{number}") for number in range(1, 6)]
    assert summary(many) == "add node-1, node-2, node-3 and 2 more"
    assert summary(many[:4]) == "add node-1, node-2, node-3 and 1 more"


def test_node_that_joins_a_real_cluster(tmp_path):
    text = (FIXTURES / "three-nodes.yaml").read_text()
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    old = render_document(load_cluster(file).cluster)
    file.write_text(text + "  - {name: new-1, address: 10.0.0.99}\n")
    assert names(changes(old, render_document(load_cluster(file).cluster))) == [("added", "node", "new-1")]


@pytest.mark.parametrize(
    ("conditions", "roles"),
    [
        ("", ()),
        ("ConditionPathExists=/run/coupler/roles/etcd", ("etcd",)),
        ("ConditionPathExists=!/run/coupler/roles/etcd", ()),
        ("ConditionPathExists=|/run/coupler/roles/a\nConditionPathExists=|/run/coupler/roles/b", ("a", "b")),
        ("ConditionPathExists=|/run/coupler/roles/a\nConditionPathExists=|/etc/x", ()),
        ("ConditionPathExists=|/run/coupler/roles/a\nConditionPathExists=|!/run/coupler/roles/b", ()),
        ("ConditionPathExists=|/run/coupler/roles/a\nConditionPathExists=/run/coupler/roles/b", ("b",)),
        ("ConditionPathExists=/run/coupler/roles/a\nConditionFileNotEmpty=", ()),
        ("ConditionFileIsExecutable=/run/coupler/roles/a", ()),
        ("ConditionPathExists=/run/coupler/roles/", ()),
    ],
)
def test_roles_that_a_unit_needs(conditions, roles):
    assert roles_of(conditions_of([f"[Unit]\n{conditions}\n"])) == roles


def test_conditions_are_read_with_what_their_marks_say():
    text = "[Unit]\nConditionPathExists=|!/a\nConditionFirstBoot = yes\n[Service]\nConditionPathExists=/no\n"
    assert conditions_of([text]) == (
        Condition("ConditionPathExists", "/a", negated=True, trigger=True),
        Condition("ConditionFirstBoot", "yes"),
    )
    assert [str(condition) for condition in conditions_of([text])] == [
        "ConditionPathExists=|!/a",
        "ConditionFirstBoot=yes",
    ]


@pytest.mark.parametrize(
    ("was", "will_be", "leaps"),
    [
        *(("1.30.2", "1.32.0", True), ("1.21.14", "1.36.4", True), ("1.30.2", "1.31.0", False)),
        *(("1.30.2", "1.30.9", False), ("1.32.0", "1.30.2", False), ("", "1.32.0", False), ("1.30.2", "", False)),
    ],
)
def test_a_leap_over_a_minor_version_of_the_api_server_is_seen(was, will_be, leaps):
    def document(version):
        rows = f"kube-apiserver {version} - - /opt/bin/kube-apiserver\nkubelet 1.99.0 - - /opt/bin/kubelet" * bool(
            version
        )
        lines = "".join(f"      {line}\n" for line in ["# name version", *rows.splitlines()])
        return f"#cloud-config\nwrite_files:\n  - path: /etc/coupler/artifacts\n    content: |\n{lines}"

    assert leap(document(was), document(will_be)) == ((was, will_be) if leaps else None)
    assert leap(None, document(will_be)) is None
