"""The program itself: flags, exit codes, sources, scratch roots, and what it refuses in its own mode."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coupler.cloudinit.__main__ import main
from coupler.cloudinit.live import Machine
from coupler.cloudinit.node import NodeError

_DOCUMENT = "#cloud-config\nwrite_files:\n  - path: /etc/example\n    content: from here\n"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "user-data"
    path.write_text(_DOCUMENT)
    return path


@pytest.mark.parametrize("flag", ["-from-file={}", "--from-file={}", "-from-file {}", "--from-file {}"])
def test_flags_take_one_or_two_dashes_and_a_value_either_way(flag: str, document: Path, tmp_path: Path) -> None:
    assert main([*flag.format(document).split(), f"--root={tmp_path / 'root'}"]) == 0
    assert (tmp_path / "root/etc/example").read_text() == "from here"


def test_validate_applies_nothing(document: Path, tmp_path: Path) -> None:
    assert main(["--validate", f"--from-file={document}", f"--root={tmp_path / 'root'}"]) == 0
    assert list((tmp_path / "root").iterdir()) == []


def test_any_line_of_the_validator_makes_the_exit_code_one(tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\ncoreos:\n  write_files: []\n")
    assert main(["--validate", f"--from-file={path}"]) == 1


@pytest.mark.parametrize(
    "words", [[], ["--no-such-flag"], ["--from-file"], ["--as=debian", "--from-file=x"], ["--from-ec2-metadata=x"]]
)
def test_wrong_usage_is_exit_code_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err


def test_missing_file_is_no_data_source(tmp_path: Path) -> None:
    assert main([f"--from-file={tmp_path / 'missing'}"]) == 1


def test_ignore_failure_forgives_malformed_user_data(tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\nhostname: [\n")
    words = [f"--from-file={path}", f"--root={tmp_path / 'root'}"]
    assert (main(words), main([*words, "--ignore-failure"])) == (1, 0)


def test_config_drive_gives_user_data_and_metadata(tmp_path: Path) -> None:
    latest = tmp_path / "drive/openstack/latest"
    latest.mkdir(parents=True)
    (latest / "user_data").write_text(_DOCUMENT)
    (latest / "meta_data.json").write_text(
        json.dumps({"hostname": "drive-1.example", "public_keys": {"a": "ssh-rsa A"}})
    )
    operations = tmp_path / "operations"
    main([f"--from-configdrive={tmp_path / 'drive'}", f"--root={tmp_path / 'root'}", f"--operations={operations}"])
    assert [call["argv"][0] for call in json.loads(operations.read_text())["calls"]] == [
        "hostnamectl",
        "update-ssh-keys",
    ]
    assert (tmp_path / "root/etc/hostname").read_text() == "drive-1\n"


def test_url_is_fetched(tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(_DOCUMENT.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert main([f"--from-url=http://127.0.0.1:{server.server_port}/", f"--root={tmp_path / 'root'}"]) == 0
        server.shutdown()
    assert (tmp_path / "root/etc/example").exists()


@pytest.mark.parametrize(
    "harm",
    [
        "write_files: [{path: /etc/a, content: b, permissions: '4755'}]",
        "coreos: {units: [{name: ../../a.service, content: b}]}",
        "coreos: {units: [{name: a.service, drop_ins: [{name: ../../a, content: b}]}]}",
    ],
)
def test_own_mode_refuses_silent_harm_before_any_change(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_text(f"#cloud-config\nmanage_etc_hosts: localhost\n{harm}\n")
    assert main([f"--from-file={path}", f"--root={tmp_path / 'root'}"]) == 1
    assert list((tmp_path / "root").iterdir()) == []
    assert main(["--as=flatcar", f"--from-file={path}", f"--root={tmp_path / 'faithful'}"]) == 0


@pytest.mark.parametrize("mode", [[], ["--as=flatcar"], ["--as=coreos"]], ids=str)
@pytest.mark.parametrize("path", ['"/etc/a\\0b"', f"/etc/{'x' * 300}/a", f"/etc/{'x' * 300}", "/" + "x/" * 3000])
def test_impossible_path_ends_the_run_and_no_traceback(path: str, mode: list[str], tmp_path: Path) -> None:
    document = tmp_path / "user-data"
    document.write_text(f"#cloud-config\nwrite_files: [{{path: {path}, content: x}}, {{path: /etc/b}}]\n")
    assert main([*mode, f"--from-file={document}", f"--root={tmp_path / 'root'}"]) == 1
    assert not (tmp_path / "root/etc/b").exists()


def test_nul_in_an_argument_is_an_error_of_the_node() -> None:
    machine = Machine()
    assert not machine.has_user("a\0b")
    with pytest.raises(NodeError, match="invalid argument"):
        machine.call(["true", "a\0b"])


def test_own_mode_leaves_no_temporary_file_behind(tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\nwrite_files: [{path: /opt, content: x}]\n")
    for words, left in (([], 0), (["--as=flatcar"], 1)):
        root = tmp_path / f"root{left}"
        (root / "opt").mkdir(parents=True)
        assert main([*words, f"--from-file={path}", f"--root={root}"]) == 1
        assert len(list(root.glob("cloudinit-temp*"))) == left


def test_links_never_lead_out_of_a_scratch_root(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/climbing").symlink_to("../../../../../outside")
    (root / "etc/absolute").symlink_to(str(outside))
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\nwrite_files: [{path: /etc/climbing/a, content: x}]\n")
    main([f"--from-file={path}", f"--root={root}"])
    path.write_text("#cloud-config\nwrite_files: [{path: /etc/absolute/a, content: x}]\n")
    main([f"--from-file={path}", f"--root={root}"])
    assert list(outside.iterdir()) == []


def test_second_run_gives_the_same_tree(document: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    trees = []
    for _ in range(2):
        assert main([f"--from-file={document}", f"--root={root}"]) == 0
        trees.append({path: path.read_bytes() for path in root.rglob("*") if path.is_file()})
    assert trees[0] == trees[1]


def test_program_imports_only_what_nodes_have() -> None:
    code = """
import sys
from coupler.cloudinit.__main__ import main
main(["--validate", "--from-file=/dev/null"])
print(*sys.modules)
"""
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = {"pydantic", "typer", "rich", "jinja2", "ansible", "argparse", "email.message", "urllib.request"}
    assert not foreign & set(modules)
