"""Which nodes try a commit first, and what a commit says."""

from pathlib import Path

import pytest

from coupler.errors import UsageError
from coupler.model import load_cluster
from coupler.workflows.changes import Change
from coupler.workflows.publication import Proposal
from coupler.workflows.publish import chosen

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cluster" / "valid"


@pytest.fixture(scope="module")
def cluster():
    return load_cluster(FIXTURES / "three-plus-five.yaml").cluster


def test_a_percentage_takes_members_of_etcd_last_and_rounds_up(cluster):
    members = {node.name for node in cluster.etcd_members}
    assert len(cluster.nodes) == 8
    for percentage, count in (("1%", 1), ("12%", 1), ("13%", 2), ("50%", 4), ("100%", 8)):
        names = [node.name for node in chosen(cluster, [percentage])]
        assert len(names) == count
        assert not members & set(names[:5])


def test_names_are_taken_as_they_are(cluster):
    names = [node.name for node in cluster.nodes]
    assert [node.name for node in chosen(cluster, [names[6], names[0]])] == [names[0], names[6]]
    assert chosen(cluster, []) == ()


@pytest.mark.parametrize("to", [["0%"], ["101%"], ["%"], ["-5%"], ["5%", "6%"], ["x", "5%"], ["nobody"]])
def test_what_names_no_nodes_is_refused(cluster, to):
    with pytest.raises(UsageError):
        chosen(cluster, to)


def test_a_message_has_a_short_subject_each_change_and_what_it_replaces():
    changes = tuple(Change("changed", "unit", f"u{number}.service", ("etcd",)) for number in range(60))
    message = Proposal("a" * 40, {}, "long " * 40, changes, ("b" * 40,)).message("demo")
    subject, body, trailers = message.split("\n\n")
    assert len(subject) <= 100
    assert subject.startswith("demo: long")
    assert body.splitlines()[0] == "changed: unit u0.service (etcd)"
    assert body.splitlines()[-1] == "and 20 more"
    assert trailers == f"Coupler-Replaces: {'b' * 40}"
