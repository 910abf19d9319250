"""What a template reads belongs to the entries that it decides about, however the template is written."""

import jinja2
import pytest

from coupler.model import load_cluster
from coupler.render import fragments, provenance

HEAD = "write_files:\n  - path: /first\n    content: 'x'\n"
TAIL = "  - path: /last\n    content: 'z'\n"

TEMPLATES = {
    "a value": (HEAD + "  - path: /it\n    content: {{ cluster.name }}\n" + TAIL, {"/it": {"name"}}),
    "a value in the middle of a line": (
        HEAD + "  - path: /it\n    content: 'a{{ cluster.name }}b'\n" + TAIL,
        {"/it": {"name"}},
    ),
    "an if around two entries": (
        HEAD
        + "{% if cluster.etcd.tls %}\n  - path: /a\n    content: 'a'\n  - path: /b\n    content: 'b'\n{% endif %}\n"
        + TAIL,
        {"/a": {"etcd.tls"}, "/b": {"etcd.tls"}},
    ),
    "an else around two entries": (
        HEAD
        + "{% if not cluster.etcd.tls %}\n  - path: /n\n{% else %}\n  - path: /a\n  - path: /b\n{% endif %}\n"
        + TAIL,
        {"/a": {"etcd.tls"}, "/b": {"etcd.tls"}},
    ),
    "an elif": (
        HEAD
        + "{% if cluster.name == 'x' %}\n{% elif cluster.etcd.tls %}\n  - path: /a\n  - path: /b\n{% endif %}\n"
        + TAIL,
        {"/a": {"name", "etcd.tls"}, "/b": {"name", "etcd.tls"}},
    ),
    "an if in an if": (
        HEAD
        + "{% if cluster.name %}\n{% if cluster.etcd.tls %}\n  - path: /a\n{% endif %}\n  - path: /b\n{% endif %}\n"
        + TAIL,
        {"/a": {"name", "etcd.tls"}, "/b": {"name"}},
    ),
    "a loop around entries": (
        HEAD
        + "{% for node in cluster.nodes %}\n  - path: /{{ node.name }}\n    content: {{ node.address }}\n{% endfor %}\n"
        + TAIL,
        {"/n1": {"nodes", "nodes.0.name", "nodes.0.address"}, "/n2": {"nodes", "nodes.1.name", "nodes.1.address"}},
    ),
    "a choice within a value": (
        HEAD
        + "  - path: /it\n    content: {{ cluster.name if cluster.etcd.tls else cluster.network.domain }}\n"
        + TAIL,
        {"/it": {"name", "etcd.tls"}},
    ),
    "lines left out at the end of an entry": (
        HEAD + "  - path: /it\n    content: |\n      a\n{% if not cluster.etcd.tls %}\n      b\n{% endif %}\n" + TAIL,
        {"/it": {"etcd.tls"}, "/last": {"etcd.tls"}},
    ),
    "a derived value": (HEAD + "  - path: /it\n    content: {{ etcd.scheme }}\n" + TAIL, {"/it": {"etcd.tls"}}),
    "a derived value used twice": (
        HEAD + "  - path: /a\n    content: {{ pull_jitter }}\n  - path: /b\n    content: {{ pull_jitter }}\n" + TAIL,
        {
            "/a": {"git.interval", "nodes", "nodes.0.name", "nodes.1.name"},
            "/b": {"git.interval", "nodes", "nodes.0.name", "nodes.1.name"},
        },
    ),
    "what decides about the whole fragment": (
        "{% if cluster.etcd.tls %}\n" + HEAD + TAIL + "{% endif %}\n",
        {"/first": {"etcd.tls"}, "/last": {"etcd.tls"}},
    ),
}
"""Templates, and the keys that each of their entries must have; entries that are not named have none."""

UNTOLD = {
    "a variable": "{% set name = cluster.name %}\n" + HEAD + "  - path: /it\n    content: {{ name }}\n" + TAIL,
    "a macro": "{% macro m() %}{{ cluster.name }}{% endmacro %}\n"
    + HEAD
    + "  - path: /it\n    content: {{ m() }}\n"
    + TAIL,
}
"""Templates of which it cannot be told by the place who uses what was read: every entry has it."""


@pytest.fixture
def origins_of(tmp_path, monkeypatch):
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "version: 1\nname: demo\ngit: {repository: 'git://10.0.0.5/d.git'}\n"
        "nodes:\n  - {name: n1, address: 10.0.0.1, roles: [control]}\n  - {name: n2, address: 10.0.0.2}\n"
    )
    cluster = load_cluster(file).cluster

    def origins(template):
        loader = jinja2.DictLoader({"it.yaml.j2": template})
        monkeypatch.setattr(provenance, "environment", lambda: fragments.environment().overlay(loader=loader))
        monkeypatch.setattr(provenance, "fragment_names", lambda _: iter(["it"]))
        return {
            origin.path[1]: {".".join(map(str, read.path)) for read in origin.reads}
            for origin in provenance.provenance(cluster)
        }

    return origins


@pytest.mark.parametrize("name", TEMPLATES)
def test_entry_has_the_keys_that_decide_about_it(origins_of, name):
    template, expected = TEMPLATES[name]
    found = origins_of(template)
    assert {"/first", "/last"} | set(expected) == set(found)
    assert found == {path: expected.get(path, set()) for path in found}


@pytest.mark.parametrize("name", UNTOLD)
def test_every_entry_has_a_key_whose_use_cannot_be_told(origins_of, name):
    found = origins_of(UNTOLD[name])
    assert set(found) == {"/first", "/it", "/last"}
    assert all("name" in keys for keys in found.values())
