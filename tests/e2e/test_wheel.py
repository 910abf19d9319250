"""The installed package: everything works from the wheel, in an empty folder, without the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel and unpack it into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(CHECKOUT)], check=True)
    (wheel,) = folder.glob("coupler-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


@pytest.fixture
def cluster(installed, tmp_path):
    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, "-m", "coupler", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_package_is_the_installed_one(installed, tmp_path):
    script = (
        "import coupler.assets as a; print(a.__file__, a.asset('cloud-config'), a.asset('playbooks'), a.asset('roles'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert all(path.startswith(str(installed)) for path in result.stdout.split())


def test_new_check_render_in_an_empty_folder(cluster, tmp_path):
    assert cluster("new", "demo").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster-v1.schema.json", "cluster.yaml"]
    assert cluster("check").returncode == 0
    rendered = cluster("render")
    assert rendered.stdout.startswith("#cloud-config\n")
    assert rendered.stderr == ""


def test_check_fix_and_explain(cluster, tmp_path):
    file = tmp_path / "user-data"
    file.write_text("#cloud-config\ncoreos:\n  update:\n    reboot-strategy: 'off'\n")
    assert cluster("check", "user-data").returncode == 3
    assert cluster("check", "--fix", "user-data").returncode == 0
    assert "reboot_strategy: 'off'" in file.read_text()
    assert cluster("check", "--explain", "hyphenated-key").stdout.startswith("hyphenated-key: ")


@pytest.mark.lab
def test_main_job_in_an_empty_folder(cluster, lab_host, tmp_path):
    try:
        result = cluster("init", "--lab", "--nodes", "1", "--output", "json")
        envelope = json.loads(result.stdout)
        assert envelope["data"]["failed"] == []
        assert result.returncode == 0
        assert "next: cluster init" in cluster("init", "--dry-run").stdout
        assert json.loads(cluster("status", "-o", "json").stdout)["data"]["nodes"][0]["etcd"]["healthy"] is True
        assert cluster("diff").returncode == cluster("diff", "node-1").returncode == 0
        assert "etcd.service" in cluster("preview", "node-1").stdout
        text = (tmp_path / "cluster.yaml").read_text()
        (tmp_path / "cluster.yaml").write_text(text.replace("election_timeout: 250", "election_timeout: 300"))
        assert cluster("diff").returncode == 1
        assert "change etcd.service" in cluster("publish").stdout
        assert cluster("diff").returncode == 0
    finally:
        cluster("lab", "down", "--forget")
