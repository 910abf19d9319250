"""What `cluster diff` makes of a node's answer, and of two documents."""

import base64
import subprocess

import pytest

from coupler.cloudinit.grammar import Lineage
from coupler.errors import CouplerError, ExitCode, UsageError
from coupler.model import load_cluster
from coupler.render import render_document
from coupler.result import HostOutcome, State
from coupler.workflows.changes import Change
from coupler.workflows.diff import ClusterDrift, diff_document, diff_nodes
from coupler.workflows.drift import compare, programs_of, question, redacted
from coupler.workflows.machine import machine
from coupler.workflows.script import Answer
from coupler.workflows.steps.publish import repository_of
from coupler.workflows.workspace import Workspace

DOCUMENT = """\
#cloud-config
manage_etc_hosts: localhost
write_files:
  - path: /etc/motd
    content: |
      hello
  - path: /etc/app.conf
    permissions: "0640"
    owner: "app:www"
    content: "x"
  - path: /etc/coupler/artifacts
    content: |
      # name version sha256 member target urls
      etcd 3.5.25 aaaa - /opt/bin/etcd http://m/etcd
      kubelet 1.35.1 bbbb kubernetes/kubelet /opt/bin/kubelet http://m/k.tgz
coreos:
  update:
    group: "stable"
  units:
    - name: app.service
      enable: true
      content: |
        [Service]
        ExecStart=/opt/bin/app
        [Install]
        WantedBy=multi-user.target
    - name: role.service
      enable: true
      content: |
        [Unit]
        ConditionPathExists=/run/coupler/roles/etcd
        [Service]
        ExecStart=/opt/bin/role
    - name: passive.service
      content: |
        [Service]
        ExecStart=/opt/bin/passive
    - name: gone.service
      command: stop
    - name: hidden.service
      mask: true
"""
COMMIT = "c0ffee" * 6 + "c0ff"
EXPECTED = machine(DOCUMENT, Lineage.FLATCAR)
PROGRAMS = programs_of(EXPECTED)
RUNS = "LoadState=loaded ActiveState=active UnitFileState=enabled ConditionResult=yes ConditionTimestampMonotonic=5"


def b64(text):
    return base64.b64encode(text.encode()).decode()


def sound():
    """The answer of a node on which everything is as it should be, as lines by name."""
    answer = {
        "applied": COMMIT,
        "artifact etcd": "installed etcd 3.5.25",
        "artifact kubelet": "waiting kubelet 1.35.1 the mirror does not have it",
        "file etcd": "etcd aaaa 755 root root 0 0 ",
    }
    for index, file in enumerate(EXPECTED.files.values()):
        owner = "app www 990 33" if file.owner else "root root 0 0"
        sum_ = next(line.split()[1] for line in listed() if line.split()[0] == str(index))
        content = b64("GROUP=stable\nMACHINE_ALIAS=x\n") if file.merged else ""
        content = b64("127.0.0.1 other\n") if file.path == "/etc/hosts" else content
        answer[f"file {file.path}"] = f"{index} {sum_ if sum_ != '-' else 'ffff'} {file.mode:o} {owner} {content}"
    for unit in EXPECTED.units:
        answer[f"unit {unit}"] = f"{RUNS} Type=simple RemainAfterExit=no"
    answer["unit passive.service"] = "LoadState=loaded ActiveState=inactive UnitFileState=static"
    answer["unit gone.service"] = "LoadState=loaded ActiveState=inactive UnitFileState=disabled"
    answer["unit hidden.service"] = "LoadState=masked ActiveState=inactive UnitFileState=masked"
    return answer


def listed():
    """The lines about files that the question sends."""
    encoded = question(EXPECTED, PROGRAMS).split("FILES='")[1].split("'")[0]
    return base64.b64decode(encoded).decode().splitlines()


def differences(**changed):
    answer = sound()
    for name, value in changed.items():
        assert name in answer or name.startswith("drop_in")
        answer[name] = value
    lines = []
    for name, value in answer.items():
        kind, _, rest = name.partition(" ")
        values = [f"{rest} {word}" for word in value.split()] if kind == "unit" else [value]
        lines += [f"{kind}={one}" for one in values]
    found = compare("node-1", COMMIT, EXPECTED, PROGRAMS, Answer("\n".join(lines)))
    return {(one.what, one.name): (one.text, one.diff) for one in found.differences}


def texts(**changed):
    return {name: text for (_, name), (text, _) in differences(**changed).items()}


def test_sound_node_has_no_differences():
    assert differences() == {}


def test_program_in_an_archive_has_no_sum_of_its_own():
    assert [(program.name, program.sha256) for program in PROGRAMS] == [("etcd", "aaaa"), ("kubelet", None)]
    assert listed()[-1] == "etcd aaaa no /opt/bin/etcd"


def file(path, state):
    index = next(i for i, name in enumerate(EXPECTED.files) if name == path)
    return {f"file {path}": f"{index} {state}"}


@pytest.mark.parametrize(
    ("path", "state", "text"),
    [
        ("/etc/motd", "missing", "is missing"),
        ("/etc/motd", "other", "is no file"),
        ("/etc/motd", "", "could not be looked at"),
        ("/etc/motd", f"ffff 644 root root 0 0 {b64('bye')}", "has another content"),
        ("/etc/motd", "ffff 644 root root 0 0", "has another content"),
        ("/etc/motd", f"ffff 600 root root 0 0 {b64('bye')}", "has another content, has mode 0600, not 0644"),
        ("/etc/coreos/update.conf", f"ffff 644 root root 0 0 {b64('GROUP=beta')}", "has another content"),
        ("/etc/coreos/update.conf", "ffff 644 root root 0 0", "has another content"),
        ("/etc/hosts", f"ffff 644 root root 0 0 {b64('127.0.0.1 a b')}", "has another content"),
    ],
)
def test_files(path, state, text):
    assert texts(**file(path, state)) == {path: text}


def test_owner_by_name_or_number():
    [sum_] = [line.split()[1] for line in listed() if line.endswith("/etc/app.conf")]
    assert texts(**file("/etc/app.conf", f"{sum_} 640 root root 0 0")) == {
        "/etc/app.conf": "belongs to root:root, not app:www"
    }


def test_changed_file_is_shown_as_a_diff_without_secrets():
    content = b64("hello\nPASSWORD=hunter2\n")
    found = differences(**file("/etc/motd", f"ffff 644 root root 0 0 {content}"))
    assert found["file", "/etc/motd"][1] == ("--- published", "+++ node-1", "@@ -1 +1,2 @@", " hello", "+PASSWORD=…")


def test_line_that_looks_like_a_secret_and_is_the_same_is_no_difference():
    made = machine('#cloud-config\nwrite_files:\n  - {path: /a, content: "token=x\\nb"}\n', Lineage.FLATCAR)
    answer = Answer(f"applied={COMMIT}\nfile=0 ffff 644 root root 0 0 {b64(chr(10).join(['token=x', 'c']))}")
    [found] = compare("node-1", COMMIT, made, (), answer).differences
    assert found.diff[3:] == (" token=…", "-b", "+c")


def test_private_key_in_a_file_is_not_shown():
    key = "-----BEGIN RSA PRIVATE KEY-----\nMII\nEow\n-----END RSA PRIVATE KEY-----\n"
    found = differences(**file("/etc/motd", f"ffff 644 root root 0 0 {b64(key)}"))
    assert found["file", "/etc/motd"][1][3:] == ("-hello", "+(a private key)")


@pytest.mark.parametrize(
    ("unit", "now", "text"),
    [
        ("app.service", "LoadState=loaded ActiveState=active UnitFileState=disabled", "is disabled, and the document"),
        ("app.service", "LoadState=masked ActiveState=inactive UnitFileState=masked", "is masked, and the document"),
        ("app.service", "LoadState=not-found ActiveState=inactive UnitFileState=", "is not there, and the document"),
        ("app.service", "LoadState=loaded ActiveState=failed UnitFileState=enabled", "has failed"),
        (
            "app.service",
            "LoadState=loaded ActiveState=inactive UnitFileState=enabled ConditionResult=yes "
            "ConditionTimestampMonotonic=7",
            "is inactive, and the document starts it",
        ),
        ("passive.service", "LoadState=loaded ActiveState=inactive UnitFileState=enabled", "is enabled, and the"),
        ("gone.service", "LoadState=loaded ActiveState=active UnitFileState=disabled", "is active, and the document"),
        ("hidden.service", "LoadState=loaded ActiveState=active UnitFileState=disabled", "is not masked, and the"),
    ],
)
def test_units(unit, now, text):
    found = texts(**{f"unit {unit}": now})
    assert list(found) == [unit]
    assert found[unit].startswith(text)


@pytest.mark.parametrize(
    "now",
    [
        "ConditionResult=no ConditionTimestampMonotonic=7",
        "ConditionResult=no ConditionTimestampMonotonic=0",
        "ConditionResult=yes ConditionTimestampMonotonic=7 Type=oneshot RemainAfterExit=no",
    ],
)
def test_unit_that_a_condition_holds_back_or_that_is_over_is_as_it_should_be(now):
    state = f"LoadState=loaded ActiveState=inactive UnitFileState=enabled {now}"
    assert texts(**{"unit role.service": state}) == {}


@pytest.mark.parametrize(
    ("changed", "name", "text"),
    [
        ({"applied": ""}, COMMIT[:12], "is published, and none is applied"),
        ({"applied": "abc"}, COMMIT[:12], "is published, and commit abc is applied"),
        ({"artifact etcd": "installed etcd 3.4.0"}, "etcd", "3.5.25 is listed, and the node has 3.4.0"),
        ({"artifact etcd": ""}, "etcd", "3.5.25 is listed, and the node does not know of it"),
        ({"file etcd": "etcd bbbb 755 root root 0 0"}, "etcd", "/opt/bin/etcd is not the program that was installed"),
        ({"drop_in": "/etc/systemd/system/x.service.d/x.conf"}, "/etc/systemd/system/x.service.d/x.conf", "is not in"),
    ],
)
def test_commit_programs_and_drop_ins(changed, name, text):
    found = texts(**changed)
    assert list(found) == [name]
    assert found[name].startswith(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://u:pw@h/", "http://u:…@h/"),
        ("HTTP_PROXY=http://proxy:3128", "HTTP_PROXY=http://proxy:3128"),
        ("api_key: abc", "api_key: …"),
        ('"token": "abc",', '"token": …'),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nb", "a\n(a private key)\nb"),
        ("-----BEGIN PRIVATE KEY-----\nMII", "(a private key)"),
    ],
)
def test_what_looks_like_a_secret_is_not_shown(text, expected):
    assert redacted(text) == expected


def test_names_in_the_question_cannot_leave_it():
    hostile = machine(
        "#cloud-config\ncoreos:\n  units:\n    - {name: \"a';reboot;'.service\", enable: true}\n", Lineage.COREOS
    )
    assert "UNITS=''" in question(hostile, ())


def test_exit_code_of_silent_nodes_wins():
    down = HostOutcome("b", State.UNREACHABLE, "no answer", "check it")
    drift = compare("a", COMMIT, EXPECTED, PROGRAMS, Answer("applied=abc"))
    assert ClusterDrift("c", COMMIT, ("a",), {"a": drift}, {}).exit_code == ExitCode.DIFFERS == 1
    assert ClusterDrift("c", COMMIT, ("b",), {}, {"b": down}).exit_code is ExitCode.UNREACHABLE
    both = ClusterDrift("c", COMMIT, ("a", "b"), {"a": drift}, {"b": down})
    assert both.exit_code is ExitCode.HOST_FAILED
    assert "b: unreachable: no answer\n  next: check it\n" in both.text()


@pytest.fixture
def loaded(tmp_path):
    """A cluster with an empty repository."""
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "remote.git"], check=True)
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "version: 1\nname: demo\ngit: {repository: 'git://10.0.0.5/demo.git', push: remote.git}\n"
        "nodes:\n  - {name: node-1, address: 10.0.0.11, roles: [control]}\n"
    )
    return load_cluster(file)


def publish(loaded, document):
    repository = repository_of(loaded.cluster, Workspace.beside(loaded.path))
    commit = repository.commit({"cloud-config.yaml": document}, "a commit", repository.published())
    repository.push(commit)
    return commit


def test_nothing_published_means_everything_is_new(loaded):
    found = diff_document(loaded)
    assert (found.exit_code, found.published) == (ExitCode.DIFFERS, None)
    assert {change.kind for change in found.changes} == {"added"}
    assert "cluster.yaml beside nothing published yet" in found.text()
    with pytest.raises(CouplerError, match="nothing is published yet"):
        diff_nodes(loaded, [])


def test_published_document_is_the_same_until_it_is_edited(loaded):
    document = render_document(loaded.cluster)
    commit = publish(loaded, document)
    same = diff_document(loaded)
    assert (same.exit_code, same.diff, same.changes) == (ExitCode.DONE, (), ())
    assert same.text() == f"cluster demo: cluster.yaml is what is published as commit {commit[:12]}"
    loaded.path.write_text(loaded.source.text.replace("10.0.0.11", "10.0.0.12"))
    found = diff_document(load_cluster(loaded.path))
    assert found.exit_code == ExitCode.DIFFERS
    assert Change("changed", "node", "node-1") in found.changes
    assert "changed  node  node-1\n" in found.text()
    assert any(line.startswith("-") and "node-1 10.0.0.11" in line for line in found.diff)
    assert found.data()["published"] == commit


def test_difference_that_is_no_entry_is_told_too(loaded):
    publish(loaded, render_document(loaded.cluster) + "# a comment\n")
    found = diff_document(loaded)
    assert (found.exit_code, found.changes) == (ExitCode.DIFFERS, ())
    assert "only comments or order differ" in found.text()


def test_nodes_are_not_asked_about_a_document_that_none_would_take(loaded):
    publish(loaded, "#cloud-config\nwrite_files: {a: [b]}\n")
    with pytest.raises(CouplerError, match="is no document that a node takes"):
        diff_nodes(loaded, [])


def test_unknown_node_is_a_usage_error(loaded):
    with pytest.raises(UsageError) as raised:
        diff_nodes(loaded, ["nod-1"])
    assert raised.value.why == "did you mean `node-1`?"
