"""The documents of representative clusters, and previews of some of their nodes, byte for byte.

A change of a golden file is read by a person: `make golden` writes them anew, and `git diff` shows what every node of
such a cluster would get.
"""

from pathlib import Path

import pytest
from tests.golden.files import golden

from coupler.model import load_cluster
from coupler.render import render_boot_stub, render_document
from coupler.workflows.preview import preview
from coupler.workflows.steps.check import check_document

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cluster" / "valid"
GOLDEN = Path(__file__).parent / "documents"
PREVIEWS = Path(__file__).parent / "previews"
REPRESENTATIVE = ["one-node", "three-nodes", "three-plus-five", "container-linux", "every-option", "static-routes"]


@pytest.mark.parametrize("name", REPRESENTATIVE)
@pytest.mark.parametrize(("kind", "render"), [("cloud-config", render_document), ("boot-stub", render_boot_stub)])
def test_document_is_the_golden_one(name, kind, render):
    text = render(load_cluster(FIXTURES / f"{name}.yaml").cluster)
    assert text == golden(GOLDEN / f"{name}.{kind}.yaml", text)


@pytest.mark.parametrize(
    ("name", "node"),
    [
        *(("one-node", "node-1"), ("three-plus-five", "control-1"), ("three-plus-five", "worker-04")),
        *(("container-linux", "core-1"), ("every-option", "edge")),
    ],
)
def test_preview_is_the_golden_one(name, node):
    text = preview(load_cluster(FIXTURES / f"{name}.yaml"), node).text() + "\n"
    assert text == golden(PREVIEWS / f"{name}.{node}.txt", text)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("fixture", sorted(FIXTURES.glob("*.yaml")), ids=lambda path: path.stem)
def test_document_of_every_valid_cluster_is_sound(fixture):
    loaded = load_cluster(fixture)
    _, findings = check_document(loaded)
    assert set(findings) == set(loaded.warnings), "the document itself gives no reason for a finding"
