"""What a node's report means, and what the summaries make of it."""

from coupler.workflows.report import read_report, waiting
from coupler.workflows.script import Answer
from coupler.workflows.steps.health import lacks

# Recorded on a lab machine with etcd 3.4.
ANSWER = """\
status={"result": "applied", "reason": "", "applied": "abc123", "fetched": "abc123", "time": "2026-08-01T10:00:00Z"}
os_name=Debian GNU/Linux 12 (bookworm)
artifact=installed etcd 3.4.23
artifact=waiting kubelet 1.35.1 the mirror does not have it
unit=LoadState=loaded
unit=ActiveState=active
unit=SubState=running
unit=Id=etcd.service
unit=
unit=LoadState=not-found
unit=ActiveState=inactive
unit=SubState=dead
unit=Id=etcd2.service
unit=
unit=Id=kubelet.service
unit=LoadState=loaded
unit=ActiveState=inactive
unit=SubState=dead
etcd_health={"health":"true"}
etcd_status={"header":{"cluster_id":"1","member_id":"7","revision":"1","raft_term":"2"},"version":"3.4.23","dbSize":"20480","leader":"7","raftIndex":"9","raftTerm":"2","raftAppliedIndex":"9","dbSizeInUse":"16384"}
etcd_members={"header":{},"members":[{"ID":"7","name":"node-1","peerURLs":["https://10.0.0.11:2380"]}]}
etcd_alarms={"header":{}}
"""


def report(text=ANSWER, node="node-1"):
    return read_report(node, Answer(text))


def test_units_that_do_not_exist_are_left_out():
    assert [unit.name for unit in report().units] == ["etcd.service", "kubelet.service"]


def test_unit_without_its_program_waits_for_it():
    assert [unit.waits_for for unit in report().units] == [None, "kubelet"]


def test_etcd_member_is_read():
    member = report().etcd
    assert (member.healthy, member.is_leader, member.version, member.database_bytes) == (True, True, "3.4.23", 20480)
    assert member.alarms == ()
    assert member.members == {"7": "node-1"}


def test_alarms_are_named_once_each():
    text = ANSWER.replace('etcd_alarms={"header":{}}', 'etcd_alarms={"alarms":[{"memberID":"7","alarm":"NOSPACE"}]}')
    assert report(text).etcd.alarms == ("NOSPACE",)


def test_silent_etcd_is_not_healthy():
    assert report(ANSWER.replace('{"health":"true"}', "")).etcd.healthy is False


def test_node_without_the_role_has_no_member():
    text = "\n".join(line for line in ANSWER.splitlines() if not line.startswith("etcd_"))
    assert report(text).etcd is None


def test_waiting_units_are_grouped_by_reason_and_nodes():
    groups = waiting([report(), report(node="node-2")])
    assert [group.lines() for group in groups] == [
        ["waiting for their programs: kubelet", "  on node-1, node-2: the mirror does not have it"]
    ]


def test_what_no_unit_waits_for_is_told_where_something_is_wrong_with_it():
    more = (
        "artifact=waiting kubectl 1.35.1 no server has it: http://m/kubectl has the SHA-256 5f, not 46\n"
        "artifact=waiting docker.io/library/app 1 containerd does not take it: broken\n"
        "artifact=waiting docker.io/library/tool 1 containerd does not run\n"
        "artifact=waiting fleetctl 1.0.0 the mirror does not have it\n"
        "artifact=waiting flanneld 0.27.4 no server has it: http://m/flanneld (7)\n"
    )
    groups = waiting([report(ANSWER + more)])
    assert [group.lines() for group in groups[1:]] == [
        ["lacking: kubectl", "  on node-1: no server has it: http://m/kubectl has the SHA-256 5f, not 46"],
        ["lacking: docker.io/library/app", "  on node-1: containerd does not take it: broken"],
    ]


def test_healthy_node_lacks_nothing():
    assert lacks(report(), "abc123") is None


def test_what_a_node_lacks_is_said():
    assert lacks(report(), "def456") == "it is at commit abc123, not def456"
    assert lacks(report(ANSWER.replace('{"health":"true"}', '{"health":"false"}')), "abc123") == (
        "its etcd member has no quorum yet"
    )
    restarting = ANSWER.replace("SubState=running", "SubState=auto-restart")
    assert lacks(report(restarting), "abc123") == "etcd.service failed"
    assert lacks(report(restarting.replace("Id=etcd.service", "Id=coupler-haproxy.service")), "abc123") is None, "later"


def test_rubbish_is_no_error():
    empty = report("status=not json\nunit=\ncertificate=/x notbase64!\n")
    assert (empty.applied, empty.units, empty.certificates, empty.etcd) == ("", (), {}, None)
