"""Fixtures say what they prove: `# expect: LINE:COLUMN SEVERITY CODE [in FILE]`, one comment for each finding."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coupler.errors import ConfigurationError, Finding
from coupler.model import find_cluster_file, load_cluster

CLUSTERS = Path(__file__).parents[2] / "fixtures" / "cluster"
VALID = sorted((CLUSTERS / "valid").glob("*.yaml"))
INVALID = sorted((CLUSTERS / "invalid").glob("*.yaml"))


def expected(path: Path) -> list[str]:
    return re.findall(r"^# expect: (.+)$", path.read_text(errors="replace"), re.MULTILINE)


def told(finding: Finding, path: Path) -> str:
    where = finding.location
    elsewhere = "" if where.file == str(path) else f" in {Path(where.file).name}"
    return f"{where.line}:{where.column} {finding.severity} {finding.code}{elsewhere}"


def findings_of(path: Path) -> tuple[Finding, ...]:
    try:
        return load_cluster(path).warnings
    except ConfigurationError as error:
        return error.findings


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid_cluster_loads(path: Path) -> None:
    assert [told(warning, path) for warning in load_cluster(path).warnings] == expected(path)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_every_finding_is_told_with_its_place(path: Path) -> None:
    found = findings_of(path)
    assert [told(finding, path) for finding in found] == expected(path)
    assert any(path.stem.startswith(finding.code) for finding in found), "a fixture is named after its rule"


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_a_place_inside_the_file_shows_that_line(path: Path) -> None:
    for finding in findings_of(path):
        if finding.location.line:
            assert finding.excerpt[-1][0] == finding.location.line
            assert 1 <= finding.location.column <= len(finding.excerpt[-1][1]) + 1


def test_every_code_of_the_model_has_a_fixture() -> None:
    model = Path(__file__).parents[3] / "cli" / "coupler" / "model"
    sources = "".join(file.read_text() for file in model.rglob("*.py"))
    raised = r"(?:problem|error|warning|_note|_refuse|finding|_whole_file)\(\s*(?:[\w.]+, )?\"([a-z0-9-]+)\""
    codes = set(re.findall(raised, sources))
    proven = {line.split()[2] for path in INVALID for line in expected(path)}
    assert len(codes) > 60
    assert codes - proven == NEEDS_MORE_THAN_A_FILE


NEEDS_MORE_THAN_A_FILE = {"not-a-file", "key-readable", "too-many-nodes"}


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("os: {chanel: stable}", "did you mean `channel`?"),
        ("etcd: {extra-args: {}}", "did you mean `extra_args`?"),
        ("network: {pods: 10.0.3.0/16}", "did you mean 10.0.0.0/16?"),
        ("name: My Cluster", "did you mean `my-cluster`?"),
        ("os: {distribution: Flatcar}", "did you mean `flatcar`?"),
        ("etcd: {tls: yes}", "write `true`"),
        ("kubernetes: {version: v1.35.1}", "write `1.35.1`"),
        ("git: {repository: 'git@example.org:a/b.git'}", "write `ssh://git@example.org/a/b.git`"),
        ("git: {interval: 30}", "write `30s` for seconds"),
        ("artifacts: {kubelte: {}}", "did you mean `kubelet`?"),
        ("kubernetes: {kubelet: {extra_args: {--max-pods: 1}}}", "write `max-pods: value`"),
        ("nodes:\n- {name: a}", "add `address:` to this item of `nodes`."),
    ],
)
def test_a_slip_gets_a_suggestion(tmp_path: Path, text: str, suggestion: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_cluster(tmp_path / "cluster.yaml")
    assert any((finding.hint or "").startswith(suggestion) for finding in caught.value.findings)


def test_a_directory_is_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_cluster(tmp_path)
    assert [finding.code for finding in caught.value.findings] == ["not-a-file"]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_cluster(tmp_path / "cluster.yaml")
    assert [finding.code for finding in caught.value.findings] == ["file-missing"]


def test_a_key_that_others_can_read_is_told(tmp_path: Path) -> None:
    text = (CLUSTERS / "valid" / "one-node.yaml").read_text() + "ssh: {private_key: id}\n"
    (tmp_path / "cluster.yaml").write_text(text)
    key = tmp_path / "id"
    key.write_text("a private key")
    key.chmod(0o644)
    assert "key-readable" in [warning.code for warning in load_cluster(tmp_path / "cluster.yaml").warnings]
    key.chmod(0o600)
    loaded = load_cluster(tmp_path / "cluster.yaml")
    assert "key-readable" not in [warning.code for warning in loaded.warnings]
    assert loaded.cluster.ssh.private_key == key


def test_ranges_do_not_make_clusters_without_end(tmp_path: Path) -> None:
    row = "- {name: 'n-[1-9999]', address: 10.0.0.0-10.0.39.14}\n"
    (tmp_path / "cluster.yaml").write_text("version: 1\nname: a\ngit: {repository: git://h/r}\nnodes:\n" + row * 500)
    with pytest.raises(ConfigurationError) as caught:
        load_cluster(tmp_path / "cluster.yaml")
    assert [finding.code for finding in caught.value.findings] == ["too-many-nodes"]


def test_the_file_is_searched_for_upwards(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_cluster_file(below) == tmp_path.resolve() / "cluster.yaml"


def test_no_file_above_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_cluster_file(tmp_path)
    assert "cluster new" in (caught.value.next_step or "")
