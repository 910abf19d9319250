"""`cluster check FILE`: the answers, exit codes and files that a person, and a script, see."""

import errno
import json
import subprocess
import sys

import pytest

from coupler.__main__ import run
from coupler.workflows import user_data

SOUND = "#cloud-config\nhostname: node-1\n"
WARNED = "#cloud-config\ncoreos:\n  update:\n    reboot_strategy: off\n"
WRONG = "#cloud-config\nwrite-files: []\n"
CLUSTER = """\
version: 1
name: demo
git: {repository: "git://10.0.0.5/demo.git"}
nodes:
  - {name: node-1, address: 10.0.0.11, roles: [control, worker]}
"""


@pytest.fixture
def document(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "user-data.yaml"


@pytest.mark.parametrize(
    ("text", "exit_code", "summary"),
    [
        (SOUND, 0, "user-data.yaml: nothing is wrong\n"),
        (WARNED, 0, "user-data.yaml: 1 warning; --fix mends 1 of them\n"),
        (WRONG, 3, "user-data.yaml: 1 error; --fix mends 1 of them\n"),
        ("", 0, "user-data.yaml: 1 info\n"),
    ],
)
def test_exit_code_is_3_for_errors_only(document, capsys, text, exit_code, summary):
    document.write_text(text)
    assert run(["check", "user-data.yaml"]) == exit_code
    assert summary in capsys.readouterr().out


def test_findings_are_data_whatever_the_exit_code(document, capsys):
    document.write_text(WRONG)
    assert run(["check", "--output", "json", "user-data.yaml"]) == 3
    envelope = json.loads(capsys.readouterr().out)
    assert (envelope["version"], envelope["verb"], envelope["ok"], envelope["exit_code"]) == (1, "check", False, 3)
    assert envelope["data"]["as"] == "flatcar"
    assert envelope["data"]["findings"] == [
        {
            "code": "hyphenated-key",
            "severity": "error",
            "message": "Flatcar silently ignores the key write-files",
            "file": "user-data.yaml",
            "line": 2,
            "column": 1,
            "hint": "write write_files",
            "fixable": True,
        }
    ]


def test_the_program_is_chosen_by_as(document, capsys):
    document.write_text(WRONG)
    assert run(["check", "--as", "coreos", "user-data.yaml"]) == 0
    assert "warning: the key write-files works on classic CoreOS only" in capsys.readouterr().out


def test_exact_prints_the_lines_of_the_program_and_nothing_else(document, capsysbinary):
    document.write_bytes(b"#cloud-config\nx: 1\nx\xff: 2\n")
    assert run(["check", "--exact", "--as", "coreos", "--output", "json", "user-data.yaml"]) == 1
    assert capsysbinary.readouterr() == (
        b'line 0: warning: incorrect type for "" (want struct)\nline 1: error: invalid leading UTF-8 octet\n',
        b"",
    )
    document.write_text(SOUND)
    assert run(["check", "--exact", "user-data.yaml"]) == 0
    assert capsysbinary.readouterr() == (b"", b"")


def test_standard_input_is_read_for_a_hyphen(tmp_path):
    command = [sys.executable, "-m", "coupler", "check", "-"]
    result = subprocess.run(command, input=WRONG.encode(), capture_output=True, check=False, cwd=tmp_path)
    assert result.returncode == 3
    assert result.stdout.startswith(b"<stdin>:2:1: error: ")
    fixed = subprocess.run([*command, "--fix"], input=WRONG.encode(), capture_output=True, check=False, cwd=tmp_path)
    assert (fixed.returncode, fixed.stdout, fixed.stderr) == (0, WRONG.replace("write-", "write_").encode(), b"")


def test_a_cluster_yaml_is_known_by_its_content(document, capsys):
    document.write_text(CLUSTER)
    assert run(["check", "user-data.yaml"]) == 0
    assert "user-data.yaml is valid: 1 node" in capsys.readouterr().out
    assert run(["check", "--as", "flatcar", "user-data.yaml"]) == 3
    assert "[unknown-format]" in capsys.readouterr().out


def test_fix_rewrites_the_file_and_keeps_its_mode(document, capsys):
    document.write_text(WRONG + "hostname: a_b\n")
    document.chmod(0o640)
    link = document.with_name("link.yaml")
    link.symlink_to(document.name)
    assert run(["check", "--fix", "link.yaml"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(
        "--- link.yaml\n+++ link.yaml\n@@ -1,3 +1,3 @@\n #cloud-config\n-write-files: []\n+write_files: []\n"
    )
    assert "link.yaml:3:11: warning: " in output
    assert output.endswith("link.yaml: mended 1 finding; left: 1 warning\n")
    assert document.read_text() == "#cloud-config\nwrite_files: []\nhostname: a_b\n"
    assert document.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert sorted(path.name for path in document.parent.iterdir()) == ["link.yaml", "user-data.yaml"]


def test_fix_of_a_sound_file_writes_nothing(document, capsys):
    document.write_text(SOUND)
    before = document.stat()
    assert run(["check", "--fix", "user-data.yaml"]) == 0
    assert capsys.readouterr().out == "user-data.yaml: there was nothing to mend; left: nothing is wrong\n"
    assert document.stat().st_ino == before.st_ino


def test_fix_of_what_cannot_be_read_says_why(document, capsys):
    document.write_text("#cloud-config\nhostname: [\n")
    assert run(["check", "--fix", "user-data.yaml"]) == 3
    error = capsys.readouterr().err
    assert "cannot be mended by a program" in error
    assert "user-data.yaml:2:1: error: did not find expected node content [yaml-syntax]" in error
    assert document.read_text() == "#cloud-config\nhostname: [\n"


def test_what_is_left_of_standard_input_is_the_exit_code(tmp_path):
    text = "#cloud-config\nwrite-files:\n  - permissions: '4755'\n"
    command = [sys.executable, "-m", "coupler", "check", "--fix", "-"]
    result = subprocess.run(command, input=text, capture_output=True, check=False, cwd=tmp_path, text=True)
    assert (result.returncode, result.stdout) == (3, text.replace("write-", "write_"))


@pytest.mark.parametrize("code", ["hyphenated-key", "user-data-size"])
def test_explain_says_what_a_code_means(capsys, code):
    assert run(["check", "--explain", code]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{code}: ")
    assert "\nbefore:\n    #cloud-config\n" in output


def test_explain_suggests_a_code(capsys):
    assert run(["check", "--explain", "hyphen-key"]) == 2
    assert "next: cluster check --explain hyphenated-key" in capsys.readouterr().err
    assert run(["check", "--explain", "qqq"]) == 2
    assert "the codes are boolean-word, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["missing.yaml"], "cannot read missing.yaml: no such file or directory"),
        (["."], "cannot read .: is a directory"),
        (["--exact"], "--as, --exact and --fix are for a FILE"),
        (["--as", "coreos"], "--as, --exact and --fix are for a FILE"),
        (["--fix", "--exact", "user-data.yaml"], "--exact changes nothing, and --fix does"),
        (["--as", "debian", "user-data.yaml"], "debian"),
        (["--explain", "secret", "user-data.yaml"], "--explain stands alone"),
        (["--file", "cluster.yaml", "user-data.yaml"], "--file names a cluster.yaml"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(document, capsys, arguments, error):
    document.write_text(SOUND)
    assert run(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert error in captured.err
    assert "\n  next: " in captured.err
    assert captured.out == ""


def test_a_binary_file_is_answered_like_any_other(document, capsys):
    document.write_bytes(bytes(range(256)) * 40)
    assert run(["check", "user-data.yaml"]) == 3
    output = capsys.readouterr().out
    assert "[unknown-format]" in output
    assert all(character.isprintable() or character in "\n\t" for character in output)


def test_a_file_that_cannot_be_written_is_said(document, capsys, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    document.write_text(WRONG)
    monkeypatch.setattr(user_data, "write", refuse)
    assert run(["check", "--fix", "user-data.yaml"]) == 1
    assert "user-data.yaml: read-only file system" in capsys.readouterr().err


def test_explanations_and_fixes_are_not_loaded_by_the_program_on_nodes(tmp_path):
    document = tmp_path / "user-data"
    document.write_text(WRONG)
    code = (
        "import sys; from coupler.cloudinit.__main__ import main\n"
        f"main(['--from-file={document}', '--root={tmp_path / 'root'}'])\n"
        "print([m for m in sys.modules if m.startswith('coupler.cloudinit.')])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "coupler.cloudinit.verdict" in output
    for module in ("fix", "explain", "lint", "findings", "shipped"):
        assert f"'coupler.cloudinit.{module}'" not in output
