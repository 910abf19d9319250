"""The renderer: pure, byte-stable, and every value arrives as it was written."""

import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coupler.errors import ConfigurationError
from coupler.model import load_cluster
from coupler.render import document, render_document
from coupler.render.emit import emit
from coupler.render.merge import Fragment, merge
from coupler.render.systemd import word

THREE = """\
version: 1
name: demo
git: {repository: "git://10.0.0.5/demo.git"}
nodes:
  - {name: node-1, address: 10.0.0.11, roles: [control, worker], mac: "52:54:00:AA:BB:01"}
  - {name: node-2, address: 10.0.0.12, roles: [control, worker], labels: {rack: a, tier: front}}
  - {name: node-3, address: 10.0.0.13, roles: [control, worker]}
  - {name: node-4, address: 10.0.0.14, roles: [worker, lb]}
"""


@pytest.fixture
def cluster_of(tmp_path):
    def load(text):
        path = tmp_path / "cluster.yaml"
        path.write_text(text, encoding="utf-8")
        return load_cluster(path).cluster

    return load


def unit(text, name):
    return next(unit for unit in yaml.safe_load(text)["coreos"]["units"] if unit["name"] == name)


def file(text, path):
    return next(file for file in yaml.safe_load(text)["write_files"] if file["path"] == path)["content"]


def test_same_cluster_gives_same_bytes(cluster_of):
    assert render_document(cluster_of(THREE)) == render_document(cluster_of(THREE))


def test_first_line_is_exactly_the_header(cluster_of):
    assert render_document(cluster_of(THREE)).startswith("#cloud-config\n")


def test_node_table_has_a_row_for_each_node_with_derived_etcd_role(cluster_of):
    assert file(render_document(cluster_of(THREE)), "/etc/coupler/nodes").splitlines() == [
        "# name address mac roles labels metadata taints",
        "node-1 10.0.0.11 52:54:00:aa:bb:01 control,worker,etcd - - -",
        "node-2 10.0.0.12 - control,worker,etcd rack=a,tier=front rack=a,tier=front -",
        "node-3 10.0.0.13 - control,worker,etcd - - -",
        "node-4 10.0.0.14 - worker,lb - - -",
    ]


def test_another_node_changes_one_row_and_no_unit_of_a_member(cluster_of):
    before = render_document(cluster_of(THREE)).splitlines()
    grown = THREE + "  - {name: node-5, address: 10.0.0.15, roles: [worker]}\n"
    after = render_document(cluster_of(grown)).splitlines()
    assert [line for line in after if line not in before] == ["      node-5 10.0.0.15 - worker - - -"]
    assert [line for line in before if line not in after] == []


def test_etcd_is_secured_by_default_and_plain_where_tls_is_off(cluster_of):
    secure = unit(render_document(cluster_of(THREE)), "etcd.service")["content"]
    assert "--client-cert-auth" in secure
    assert "https://${COUPLER_ADDRESS}:2379" in secure
    plain = unit(render_document(cluster_of(THREE + "etcd: {tls: false}\n")), "etcd.service")["content"]
    assert "http://${COUPLER_ADDRESS}:2379" in plain
    assert "crt" not in plain


def test_no_substitution_of_coreos_cloudinit_occurs_in_our_own_text(cluster_of):
    text = render_document(cluster_of(THREE))
    for name in ("$public_ipv4", "$private_ipv4", "$public_ipv6", "$private_ipv6"):
        assert name not in text


def test_no_key_contains_a_hyphen(cluster_of):
    """The Flatcar fork ignores keys with hyphens without a word."""

    def keys(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield key
                yield from keys(item)
        elif isinstance(value, list):
            for item in value:
                yield from keys(item)

    assert [key for key in keys(yaml.safe_load(render_document(cluster_of(THREE)))) if "-" in key] == []


def test_reboot_strategy_off_stays_text(cluster_of):
    text = render_document(cluster_of(THREE + "os: {reboot: {strategy: off}}\n"))
    assert yaml.safe_load(text)["coreos"]["update"]["reboot_strategy"] == "off"


def test_user_fragment_is_merged_with_its_scalars_as_written(cluster_of):
    extra = """\
extra:
  write_files:
    - {path: /etc/motd, permissions: "0644", content: "welcome: yes"}
  coreos:
    units:
      - {name: hello.service, enable: true, command: start, content: "[Service]\\nExecStart=/bin/true\\n"}
"""
    data = yaml.safe_load(render_document(cluster_of(THREE + extra)))
    assert {"path": "/etc/motd", "permissions": "0644", "content": "welcome: yes"} in data["write_files"]
    assert data["coreos"]["units"][-1]["enable"] is True


def test_user_fragment_must_not_redefine_what_coupler_writes(cluster_of):
    extra = "extra: {coreos: {units: [{name: etcd.service, content: x}]}}\n"
    with pytest.raises(ConfigurationError, match=r"cloud-config/flatcar/etcd.yaml.j2 both write etcd.service"):
        render_document(cluster_of(THREE + extra))


def test_document_remembers_its_fragments_in_order(cluster_of):
    origins = [fragment.origin for fragment in document(cluster_of(THREE)).fragments]
    assert origins[0] == "cloud-config/common/access.yaml.j2"
    assert origins[-1] == "cloud-config/common/target.yaml.j2"


def test_artifact_list_says_where_a_checksum_is_unknown(cluster_of):
    lines = file(render_document(cluster_of(THREE)), "/etc/coupler/artifacts").splitlines()
    fleetd = next(line for line in lines if line.startswith("fleetd "))
    assert fleetd.split()[2] == "-"
    etcd = next(line for line in lines if line.startswith("etcd "))
    assert len(etcd.split()[2]) == 64


def test_merge_joins_lists_and_keeps_order():
    parts = [
        Fragment("a", yaml.compose("coreos: {units: [{name: a.service}]}", yaml.BaseLoader)),
        Fragment("b", yaml.compose("coreos: {units: [{name: b.service}], update: {group: stable}}", yaml.BaseLoader)),
        Fragment("c", None),
    ]
    merged = yaml.safe_load(emit(merge(parts)))
    assert merged == {
        "coreos": {"units": [{"name": "a.service"}, {"name": "b.service"}], "update": {"group": "stable"}}
    }


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.just("\n"), min_size=1))
def test_any_quoted_text_comes_back_from_yaml_as_it_was(text):
    node = yaml.MappingNode("tag:yaml.org,2002:map", [])
    key = yaml.ScalarNode("tag:yaml.org,2002:str", "content")
    node.value.append((key, yaml.ScalarNode("tag:yaml.org,2002:str", text, style='"')))
    assert yaml.safe_load(emit(node)) == {"content": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--name=a", "--name=a"),
        ("--x=50%", "--x=50%%"),
        ("--x=$HOME", "--x=$$HOME"),
        ("--x=a b", '"--x=a b"'),
        ('--x=say "hi"\\', '"--x=say \\"hi\\"\\\\"'),
    ],
)
def test_words_reach_the_program_as_they_are(text, expected):
    assert word(text) == expected


def test_fragments_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fragment("a", None).origin = "b"
