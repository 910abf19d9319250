"""References of images, a mirror's index of them, and which one is the sandbox's."""

from __future__ import annotations

from pathlib import Path

import pytest

from coupler.model import load_cluster
from coupler.model.images import PAUSE_IMAGE, REFERENCE, MirroredImage, image_of, pause_among

ONE_NODE = Path(__file__).parents[2] / "fixtures" / "cluster" / "valid" / "one-node.yaml"
SUM = "ab" * 32


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("registry.k8s.io/pause:3.10", True),
        ("localhost:5000/a/b_c/d--e:v1.2-x", True),
        ("busybox", True),
        (f"docker.io/library/busybox@sha256:{SUM}", True),
        ("Busybox", False),
        ("registry.k8s.io/pause:", False),
        ("registry.k8s.io/pause:3 .10", False),
        ('registry.k8s.io/"pause', False),
        ("/pause:1", False),
        ("", False),
    ],
)
def test_a_reference_is_told_from_anything_else(text: str, *, valid: bool) -> None:
    assert bool(REFERENCE.fullmatch(text)) is valid


def test_a_line_of_the_index_says_all_of_an_image() -> None:
    image = MirroredImage("pause.tar", SUM, "amd64", ("registry.k8s.io/pause:3.10", "k8s.gcr.io/pause:3.10"))
    assert image_of(image.line()) == image
    assert image.place == "images/pause.tar"


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"{SUM} pause.tar amd64",
        f"{SUM} ../pause.tar amd64 a:1",
        f"{SUM} pause.tar amd64 A:1",
        "0 pause.tar amd64 a:1",
    ],
)
def test_another_line_is_none(line: str) -> None:
    assert image_of(line) is None


def images(*references: str, arch: str = "amd64") -> tuple[MirroredImage, ...]:
    return tuple(MirroredImage(f"{number}.tar", SUM, arch, (text,)) for number, text in enumerate(references))


@pytest.mark.parametrize(
    ("references", "pause"),
    [
        ([], None),
        (["docker.io/library/busybox:1.36", "example.org/pause/agent:9"], None),
        (
            ["coupler.local/pause:1", "registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.10"],
            "registry.k8s.io/pause:3.10",
        ),
        (["localhost:5000/pause"], "localhost:5000/pause"),
        (["k8s.gcr.io/pause-amd64:3.1", "k8s.gcr.io/pause-arm64:3.2"], "k8s.gcr.io/pause-amd64:3.1"),
    ],
)
def test_the_newest_pause_is_the_sandbox(references: list[str], pause: str | None) -> None:
    assert pause_among(images(*references), "amd64") == pause


def test_an_image_for_another_architecture_is_none_of_ours() -> None:
    assert pause_among(images("registry.k8s.io/pause:3.10", arch="arm64"), "amd64") is None


def pause(tmp_path: Path, more: str) -> str:
    (tmp_path / "cluster.yaml").write_text(ONE_NODE.read_text() + more)
    return load_cluster(tmp_path / "cluster.yaml").cluster.pause_image


def test_cluster_yaml_wins_over_the_mirror_and_that_over_the_default(tmp_path: Path) -> None:
    (tmp_path / "mirror" / "images").mkdir(parents=True)
    (image,) = images("coupler.local/pause:1")
    (tmp_path / "mirror" / "images" / "INDEX").write_text(f"{image.line()}\n")
    mirror = "mirror: {url: 'http://m', folder: mirror}\n"
    assert pause(tmp_path, "") == PAUSE_IMAGE
    assert pause(tmp_path, mirror) == "coupler.local/pause:1"
    assert pause(tmp_path, f"{mirror}kubernetes: {{pause_image: 'example.org/pause:7'}}") == "example.org/pause:7"
