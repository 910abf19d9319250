"""What a person and a program see of `cluster`: help, answers, errors, exit codes."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"ansible", "paramiko", "jinja2", "yaml", "pydantic", "aiohttp", "rich", "cryptography"}
CLUSTER = """\
version: 1
name: demo
git: {repository: "git://10.0.0.5/demo.git"}
nodes:
  - {name: node-1, address: 10.0.0.11, roles: [control, worker]}
"""


def cluster(*arguments, cwd, **environment):
    command = [sys.executable, "-m", "coupler", *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cluster.yaml").write_text(CLUSTER, encoding="utf-8")
    return tmp_path


def test_help_loads_nothing_heavy(tmp_path):
    script = (
        "import sys; from coupler.__main__ import run; run(['--help'])\n"
        "print(sorted(m.split('.')[0] for m in sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert not HEAVY & set(eval(result.stderr))
    assert "init" in result.stdout


@pytest.mark.parametrize(
    "verb",
    [
        "new",
        "check",
        "render",
        "nodes",
        "preview",
        "diff",
        "init",
        "status",
        "doctor",
        "lab",
        "mirror",
        "certs",
        "kubeconfig",
    ],
)
def test_every_verb_has_help(verb, tmp_path):
    result = cluster(verb, "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: cluster" in result.stdout


def test_new_check_render_nodes(tmp_path):
    written = cluster("new", "demo", cwd=tmp_path)
    assert written.returncode == 0
    assert written.stdout.splitlines()[-1].startswith("next: edit cluster.yaml")
    checked = cluster("check", cwd=tmp_path)
    assert checked.returncode == 0
    assert "cluster.yaml is valid: 3 nodes, 3 etcd members" in checked.stdout
    assert cluster("render", cwd=tmp_path).stdout.startswith("#cloud-config\n")
    assert cluster("nodes", cwd=tmp_path).stdout.splitlines()[0].split() == [
        "NAME",
        "ADDRESS",
        "ROLES",
        "ETCD",
        "LABELS",
    ]


def test_preview_of_a_node_and_of_one_file(folder):
    answer = cluster("preview", "node-1", cwd=folder)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("node-1: ")
    assert "  COUPLER_ROLES=control,worker,etcd\n" in answer.stdout
    assert cluster("preview", "node-1", "/etc/coupler/pull.conf", cwd=folder).stdout == (
        "# Where coupler-pull finds the cluster's configuration.\nREPOSITORY=git://10.0.0.5/demo.git\nBRANCH=main\n"
        "# How long the units of a new document may take until they are well.\nHEALTH_SECONDS=120\n"
    )
    envelope = json.loads(cluster("preview", "node-1", "--output", "json", cwd=folder).stdout)
    assert {"node", "variables", "files", "units", "operations"} == set(envelope["data"])


def test_preview_suggests_a_name(folder):
    answer = cluster("preview", "nodd-1", cwd=folder)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "no node is called nodd-1" in answer.stderr
    assert "did you mean `node-1`?" in answer.stderr


def test_diff_without_a_repository_says_so(folder):
    (folder / "cluster.yaml").write_text(CLUSTER.replace("}", f", push: {folder}/none.git}}", 1), encoding="utf-8")
    answer = cluster("diff", cwd=folder)
    assert (answer.returncode, answer.stdout) == (4, "")
    assert f"the git repository {folder}/none.git cannot be read" in answer.stderr


def test_diff_exits_with_1_where_something_differs(folder):
    subprocess.run(["git", "init", "--quiet", "--bare", folder / "remote.git"], check=True)
    (folder / "cluster.yaml").write_text(CLUSTER.replace("}", ", push: remote.git}", 1), encoding="utf-8")
    answer = cluster("diff", "--output", "json", cwd=folder)
    envelope = json.loads(answer.stdout)
    assert (answer.returncode, envelope["exit_code"], envelope["data"]["same"]) == (1, 1, False)
    assert {"kind": "added", "what": "node", "name": "node-1", "roles": []} in envelope["data"]["changes"]
    assert cluster("diff", "nodd-1", cwd=folder).returncode == 2
    assert cluster("diff", "node-1", "--all", cwd=folder).returncode == 2


def test_new_does_not_overwrite(folder):
    result = cluster("new", "demo", cwd=folder)
    assert result.returncode == 2
    assert "cluster.yaml exists" in result.stderr
    assert (folder / "cluster.yaml").read_text(encoding="utf-8") == CLUSTER


def test_cluster_yaml_is_found_upwards(folder):
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert cluster("render", cwd=below).stdout == cluster("render", cwd=folder).stdout


def test_answer_is_on_stdout_and_nothing_else(folder):
    result = cluster("render", "--output", "json", cwd=folder)
    envelope = json.loads(result.stdout)
    assert (envelope["version"], envelope["verb"], envelope["ok"], envelope["exit_code"]) == (1, "render", True, 0)
    assert envelope["data"]["document"].startswith("#cloud-config\n")
    assert envelope["error"] is None
    assert result.stderr == ""


def test_typo_names_file_line_and_column(folder):
    (folder / "cluster.yaml").write_text(CLUSTER + "os:\n  chanel: stable\n", encoding="utf-8")
    for verb in ("check", "render", "nodes", "init", "status"):
        result = cluster(verb, cwd=folder)
        assert result.returncode == 3
        assert "cluster.yaml:7:3: error: " in result.stderr
        assert "`channel`" in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""


def test_error_has_an_envelope_too(folder):
    (folder / "cluster.yaml").write_text(CLUSTER + "os:\n  chanel: stable\n", encoding="utf-8")
    result = cluster("check", "--output", "json", cwd=folder)
    envelope = json.loads(result.stdout)
    assert (result.returncode, envelope["ok"], envelope["exit_code"]) == (3, False, 3)
    finding = envelope["error"]["findings"][0]
    assert (finding["code"], finding["line"], finding["column"]) == ("unknown-key", 7, 3)


def test_usage_error_has_an_envelope_too(folder):
    result = cluster("render", "--nonsense", "--output=json", cwd=folder)
    assert result.returncode == 2
    assert json.loads(result.stdout)["exit_code"] == 2


def test_usage_error_names_the_way_out(folder):
    result = cluster("render", "--nonsense", cwd=folder)
    assert result.returncode == 2
    assert "--nonsense" in result.stderr
    assert "next: cluster render --help" in result.stderr


def test_missing_cluster_yaml_says_how_to_get_one(tmp_path):
    result = cluster("check", cwd=tmp_path)
    assert result.returncode == 3
    assert "there is no cluster.yaml" in result.stderr
    assert "cluster new" in result.stderr


def test_unknown_node_in_limit_is_a_usage_error(folder):
    result = cluster("status", "--limit", "nodd-1", cwd=folder)
    assert result.returncode == 2
    assert "no node is called nodd-1" in result.stderr


def test_no_escape_sequence_off_a_terminal(folder):
    (folder / "cluster.yaml").write_text("version: 1\n", encoding="utf-8")
    result = cluster("check", cwd=folder)
    assert "\033" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_only_on_a_terminal_that_wants_it(folder, environment, coloured):
    (folder / "cluster.yaml").write_text("version: 1\n", encoding="utf-8")
    leader, follower = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    variables = {**inherited, "TERM": "xterm", **environment}
    subprocess.run([sys.executable, "-m", "coupler", "check"], cwd=folder, env=variables, stderr=follower, check=False)
    os.close(follower)
    output = os.read(leader, 65536).decode()
    os.close(leader)
    assert ("\033[" in output) is coloured


def test_closed_pipe_is_no_error(folder):
    command = f"{sys.executable} -m coupler render | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.stdout == "#cloud-config\n"
    assert result.stderr == ""


def test_a_folder_that_was_deleted_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir ../gone; "$0" -m coupler check; echo $?; "$0" -m coupler new demo --output json'
    result = subprocess.run(["sh", "-c", script, sys.executable], cwd=gone, capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[0] == "error: the current folder does not exist any more"
    assert "cd to a folder that is there" in result.stderr
    code, _, answer = result.stdout.partition("\n")
    assert (code, result.returncode) == ("1", 1)
    assert json.loads(answer)["error"]["what"] == "the current folder does not exist any more"


def test_what_the_system_refuses_is_no_defect(folder):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "coupler", "nodes"]
        result = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: No space left on device\n  why: the system refused")
    refused = cluster("nodes", "--file", "/dev/null/cluster.yaml", cwd=folder)
    assert "defect" not in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up the right to read every file")
def test_a_file_that_may_not_be_read(folder):
    (folder / "cluster.yaml").chmod(0)
    rights = "--bounding-set=-dac_override,-dac_read_search"
    command = ["setpriv", rights, sys.executable, "-m", "coupler", "check"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert "cluster.yaml: error: cannot be read: Permission denied [file-unreadable]" in result.stderr


def test_a_folder_in_the_place_of_cluster_yaml(tmp_path):
    (tmp_path / "cluster.yaml").mkdir()
    found = cluster("check", cwd=tmp_path)
    assert found.returncode == 3
    assert "there is no cluster.yaml" in found.stderr
    named = cluster("check", "cluster.yaml", cwd=tmp_path)
    assert "is a directory" in named.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(folder, closed):
    result = subprocess.run(
        ["sh", "-c", f'"$0" -m coupler nodes {closed}', sys.executable], cwd=folder, capture_output=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_a_home_is_not_needed(folder):
    variables = {name: value for name, value in os.environ.items() if name != "HOME"}
    command = [sys.executable, "-m", "coupler", "check"]
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0


def test_what_a_character_set_lacks_is_a_question_mark(folder):
    (folder / "cluster.yaml").write_text(CLUSTER.replace("demo", "ünö", 1), encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = cluster("check", cwd=folder, **ascii_only)
    assert result.returncode == 3
    lines = result.stderr.splitlines()
    place = next(number for number, line in enumerate(lines) if line.endswith("| name: ?n?"))
    assert lines[place + 1].index("^") == lines[place].index("?"), "the caret stays in its column"
    (folder / "cluster.yaml").write_text(CLUSTER, encoding="utf-8")
    shown = cluster("preview", "node-1", cwd=folder, **ascii_only)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "files (? the keys of cluster.yaml" in shown.stdout


def test_help_on_a_narrow_terminal(tmp_path):
    result = cluster("--help", cwd=tmp_path, COLUMNS="20")
    assert (result.returncode, result.stderr) == (0, "")
    assert "doctor" in result.stdout


def test_environment_takes_the_place_of_options(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    result = cluster("nodes", cwd=elsewhere, COUPLER_FILE=str(folder / "cluster.yaml"), COUPLER_OUTPUT="json")
    assert json.loads(result.stdout)["data"]["nodes"][0]["name"] == "node-1"
