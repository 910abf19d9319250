"""`cluster doctor` names what is missing, with the command that mends it."""

import json
import os
import subprocess
import sys


def doctor(path, *arguments):
    environment = {**os.environ, "PATH": path}
    command = [sys.executable, "-m", "coupler", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_machine_without_git_and_ssh(tmp_path):
    result = doctor(str(tmp_path))
    assert result.returncode == 1
    assert "MISSING  git 2.34 or newer" in result.stdout
    mends = result.stdout.partition("mend it:")[2].split("\n")
    assert "  apt-get install git" in mends
    assert "  apt-get install openssh-client" in mends


def test_this_machine_can_do_the_main_job():
    result = doctor(os.environ["PATH"], "--output", "json")
    findings = json.loads(result.stdout)["data"]["findings"]
    assert result.returncode == 0
    assert all(finding["ok"] for finding in findings if finding["needed_for"] == "init")
    assert {finding["needed_for"] for finding in findings} == {"init", "lab"}
