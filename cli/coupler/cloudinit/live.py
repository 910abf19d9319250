"""The running machine as a node: systemctl, and the helper programs of Container Linux."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from coupler.cloudinit.node import Files, NodeError, Outcome
from coupler.cloudinit.unitfile import is_unit_name

_VERBS = {"reload-or-try-restart": "try-reload-or-restart"}
_RESULTS = {
    "A dependency job for ": "dependency",
    " timed out": "timeout",
    " canceled": "canceled",
    " is not active, cannot reload": "invalid",
    "Assertion failed on job for ": "assert",
    " not supported on this system": "unsupported",
    " garbage collected": "collected",
    " can't be started again": "once",
    "Job for ": "failed",
    "Job failed": "failed",
}
"""The results of a job by the words with which systemctl reports them."""


class Machine:
    """This machine."""

    def __init__(self) -> None:
        self.files = Files(Path("/"), durable=True)

    def hostname(self) -> str:
        """Return the host's name as the kernel has it."""
        return os.uname().nodename

    def has_user(self, name: str) -> bool:
        """Return whether there is a user of that name."""
        try:
            pwd.getpwnam(name)
        except (KeyError, ValueError):  # a name with a NUL is no name
            return False
        return True

    def call(self, argv: list[str], stdin: str = "") -> Outcome:
        """Run a helper program. Where `update-ssh-keys` is missing (it is Container Linux's own) do its work here."""
        if argv[0] == "update-ssh-keys" and shutil.which(argv[0]) is None:
            return self._update_ssh_keys(user=argv[2], label=argv[4], keys=stdin)
        try:
            done = subprocess.run(
                argv, input=stdin, text=True, errors="surrogateescape", capture_output=True, check=False
            )
        except FileNotFoundError as error:
            raise NodeError(f'exec: "{argv[0]}": executable file not found in $PATH') from error
        except ValueError as error:
            raise NodeError(f"fork/exec {argv[0]}: invalid argument") from error
        return Outcome(done.returncode, (done.stdout + done.stderr).strip())

    def _update_ssh_keys(self, user: str, label: str, keys: str) -> Outcome:
        """Keep keys as Container Linux does: a file for each label, and `authorized_keys` made of all of them."""
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            return Outcome(1, f"user {user} does not exist")
        folder = Path(entry.pw_dir) / ".ssh"
        parts = folder / "authorized_keys.d"
        together = folder / "authorized_keys"
        first_time = not parts.exists()
        for directory in (folder, parts):
            directory.mkdir(mode=0o700, exist_ok=True)
            os.chown(directory, entry.pw_uid, entry.pw_gid)
        if first_time and together.exists():
            self._replace(parts / "orig_authorized_keys", together.read_text(errors="surrogateescape"), entry)
        self._replace(parts / label, keys, entry)
        texts = [part.read_text(errors="surrogateescape").rstrip("\n") for part in sorted(parts.iterdir())]
        self._replace(together, "".join(f"{text}\n" for text in texts), entry)
        return Outcome(0)

    def _replace(self, path: Path, text: str, owner: pwd.struct_passwd) -> None:
        temporary = self.files.temporary(str(path.parent), ".new-")
        self.files.fill(temporary, text.encode(errors="surrogateescape"), 0o600)
        os.chown(temporary, owner.pw_uid, owner.pw_gid)
        self.files.rename(temporary, str(path))

    def fetch(self, url: str) -> bytes:
        """Return what a URL serves."""
        from coupler.cloudinit.sources import get

        return get(url)

    def enable(self, unit: str, *, runtime: bool) -> None:
        """Enable a unit file, replacing links that are in the way."""
        if not is_unit_name(unit):
            raise NodeError(f"File {unit}: Invalid argument")
        options = ["--runtime"] if runtime else []
        outcome = self._systemctl("--quiet", "--no-reload", "--force", *options, "enable", unit)
        if outcome.exit_code:
            raise NodeError(_refusal(outcome.output))

    def daemon_reload(self) -> None:
        """Make systemd read its unit files again."""
        outcome = self._systemctl("daemon-reload")
        if outcome.exit_code:
            raise NodeError(_refusal(outcome.output))

    def job(self, command: str, unit: str) -> str:
        """Run a unit command and wait for its job to end."""
        if not is_unit_name(unit):
            raise NodeError(f"Unit name {unit} is not valid.")
        outcome = self._systemctl(_VERBS.get(command, command), unit)
        if not outcome.exit_code:
            return "done"
        if not outcome.output.startswith("Failed to "):
            for words, result in _RESULTS.items():
                if words in outcome.output:
                    return result
        raise NodeError(_refusal(outcome.output))

    def transient(self, unit: str, description: str, argv: list[str]) -> None:
        """Start a transient service."""
        outcome = self.call(["systemd-run", "--quiet", f"--unit={unit}", f"--description={description}", *argv])
        if outcome.exit_code:
            raise NodeError(_refusal(outcome.output))

    def _systemctl(self, *arguments: str) -> Outcome:
        return self.call(["env", "LC_ALL=C", "systemctl", "--no-ask-password", *arguments])


def _refusal(output: str) -> str:
    """Return systemd's own message out of what systemctl says: `Failed to start x.service: MESSAGE`."""
    first = output.partition("\n")[0]
    return first.partition(": ")[2] or first if first.startswith("Failed to ") else output
