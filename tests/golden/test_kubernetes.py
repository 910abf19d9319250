"""Kubernetes by its versions: the document of each is sound in both lineages, and its programs get the golden options.

A golden file has the command lines of one version, word by word, and the kubelet's configuration; the difference of
two of them is what an upgrade changes.
"""

import shlex
from pathlib import Path

import pytest
from tests.golden.files import golden

from coupler.cloudinit import check, validate
from coupler.cloudinit.grammar import Lineage
from coupler.model import load_cluster
from coupler.model.releases import NEWEST, OLDEST
from coupler.render import render_document
from coupler.render.kubernetes import derivations, files

FOLDER = Path(__file__).parent / "kubernetes"
FIXTURE = Path(__file__).parents[1] / "fixtures" / "cluster" / "valid" / "three-nodes.yaml"
REPRESENTATIVE = [21, 24, 27, 31, 36]
"""The oldest; without dockershim; the runtime's address in the file; failCgroupV1; the newest."""


def cluster_of(minor, folder):
    """Return the cluster of three nodes with a version of Kubernetes."""
    folder.joinpath("files").symlink_to(FIXTURE.parents[1] / "files")
    file = folder / "valid" / FIXTURE.name
    file.parent.mkdir()
    file.write_text(FIXTURE.read_text() + f"kubernetes: {{version: 1.{minor}.0}}\n")
    return load_cluster(file).cluster


@pytest.mark.parametrize("minor", range(OLDEST, NEWEST + 1))
def test_document_is_sound_in_both_lineages(minor, tmp_path):
    text = render_document(cluster_of(minor, tmp_path))
    for lineage in Lineage:
        assert validate(text, lineage).text() == []
        assert check(text, "cloud-config.yaml", lineage) == []


@pytest.mark.parametrize("minor", REPRESENTATIVE)
def test_programs_get_the_golden_options(minor, tmp_path):
    cluster = cluster_of(minor, tmp_path)
    text = ""
    for name in ("api_server", "controller_manager", "scheduler", "kubelet", "proxy"):
        words = [shlex.split(word)[0] for word in derivations(cluster)[name]()]
        text += f"{name}\n" + "".join(f"  {word}\n" for word in sorted(words)) + "\n"
    text += files(cluster)["/etc/coupler/kubernetes/kubelet.yaml"]
    assert text == golden(FOLDER / f"1.{minor}.txt", text)
