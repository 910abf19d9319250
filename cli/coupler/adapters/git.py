"""The repository that nodes pull from, with the program `git`.

A commit is made with plumbing on a bare repository of our own: there is no work tree that could be in a bad state,
files of other people in the repository stay, and a push never forces.
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import CouplerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TIMEOUT = 60  # seconds; one git command


@dataclass(frozen=True)
class Repository:
    """The local bare copy at `path` of branch `branch` of `remote` (a URL or a path)."""

    path: Path
    remote: str
    branch: str
    signing_key: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def published(self) -> str | None:
        """Return the commit that the branch is at, fetched; None where it has none yet. Raises as `heads`."""
        return self.heads(self.branch).get(self.branch)

    def heads(self, *branches: str) -> dict[str, str]:
        """Fetch those of `branches` that there are, and return the commit that each is at.

        Raises:
            UnreachableError: the remote does not answer or is no repository.
        """
        self._prepare()
        result = self._git("ls-remote", self.remote, *(f"refs/heads/{branch}" for branch in branches), check=False)
        if result.returncode:
            raise UnreachableError(
                f"the git repository {self.remote} cannot be read",
                why=_cause(result.stderr),
                next_step="check git.push and git.repository in cluster.yaml, and that `git ls-remote` works here",
            )
        there = {line.partition("refs/heads/")[2] for line in result.stdout.splitlines()}
        if there:
            refs = (f"+refs/heads/{branch}:{_ref(branch)}" for branch in sorted(there))
            self._git("fetch", "--quiet", "--no-tags", self.remote, *refs)
        return {branch: self._git("rev-parse", _ref(branch)).stdout.strip() for branch in sorted(there)}

    def content(self, commit: str, name: str) -> bytes | None:
        """Return the file `name` of `commit`, or None where it has none."""
        result = self._run(["git", "-C", str(self.path), "show", f"{commit}:{name}"])
        return result.stdout if result.returncode == 0 else None

    def commit_of(self, name: str) -> str | None:
        """Return the commit that `name` (a hash, or `HEAD~1` and the like from the branch's newest) stands for."""
        name = name.replace("HEAD", _ref(self.branch), 1) if name.startswith("HEAD") else name
        result = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False)
        return result.stdout.strip() or None

    def follows(self, commit: str, ancestor: str) -> bool:
        """Whether `ancestor` is `commit` itself or one of its ancestors."""
        return self._git("merge-base", "--is-ancestor", ancestor, commit, check=False).returncode == 0

    def history(self, commit: str, count: int) -> list[tuple[str, str]]:
        """Return hash and subject of `commit` and its ancestors, newest first, `count` at most."""
        lines = self._git("log", f"--max-count={count}", "--format=%H %s", commit).stdout.splitlines()
        return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]

    def is_signed_by(self, commit: str, allowed_signers: Iterable[str]) -> bool:
        """Whether one of `allowed_signers` (lines of ssh-keygen(1), ALLOWED SIGNERS) has signed `commit`."""
        with tempfile.NamedTemporaryFile("w", prefix="coupler-signers-", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in allowed_signers))
            file.flush()
            options = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={file.name}")
            return self._git(*options, "verify-commit", commit, check=False).returncode == 0

    def last_known(self) -> str | None:
        """Return the commit that the branch was at when something was last published from here; None before that."""
        return self._git("rev-parse", "--verify", "--quiet", self._known, check=False).stdout.strip() or None

    def commit(self, files: Mapping[str, str], message: str, parent: str | None) -> str:
        """Commit `files` on top of `parent`, without publishing it. Returns the new commit.

        Raises:
            CouplerError: it cannot be made, or not be signed.
        """
        self._prepare()
        with tempfile.TemporaryDirectory(prefix="coupler-index-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            if parent:
                self._git("read-tree", parent, environment=index)
            for name, content in files.items():
                blob = self._git("hash-object", "-w", "--stdin", stdin=content).stdout.strip()
                self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", environment=index)
            tree = self._git("write-tree", environment=index).stdout.strip()
        parents = ["-p", parent] if parent else []
        signing: list[str] = []
        sign: list[str] = []
        if self.signing_key:
            signing = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={self.signing_key}"]
            sign = ["-S"]
        arguments = [*signing, "commit-tree", tree, *parents, *sign, "-m", message]
        result = self._git(*arguments, check=False, environment=self._identity())
        if result.returncode:
            raise CouplerError(
                "the commit could not be made" + (f" and signed with {self.signing_key}" if self.signing_key else ""),
                why=_cause(result.stderr),
                next_step="check git.signing_key in cluster.yaml; it is an SSH private key, without a passphrase or "
                "loaded into ssh-agent",
            )
        return result.stdout.strip()

    def push(self, commit: str) -> None:
        """Move the branch to `commit`, never by force.

        Raises:
            CouplerError: the remote refuses it, or somebody else has published what `commit` does not follow.
        """
        self._push(f"{commit}:refs/heads/{self.branch}")
        self._git("update-ref", _ref(self.branch), commit)
        self._git("update-ref", self._known, commit)

    def push_aside(self, commit: str, branch: str) -> None:
        """Put `commit` on a branch of our own, whatever that was at. Raises CouplerError."""
        self._push(f"+{commit}:refs/heads/{branch}")

    def delete(self, branch: str) -> None:
        """Delete a branch of our own. Raises CouplerError."""
        self._push(f":refs/heads/{branch}")

    def _push(self, what: str) -> None:
        result = self._git("push", "--porcelain", self.remote, what, check=False)
        if result.returncode:
            overtaken = "[rejected]" in result.stdout
            raise CouplerError(
                f"the push to {self.remote} was refused",
                why="somebody else has published in the meantime" if overtaken else _cause(result.stderr),
                next_step="run the same command again: it starts from their commit" if overtaken else None,
            )
        if Path(self.remote).is_dir():
            # Nodes may get it as plain files from a web server.
            self._run(["git", "-C", self.remote, "update-server-info"])

    @property
    def _known(self) -> str:
        return f"refs/coupler/known/{self.branch}"

    def _prepare(self) -> None:
        if not (self.path / "HEAD").exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare")

    def _identity(self) -> dict[str, str]:
        """Return who commits, for operators who have not told git."""
        name = self._git("config", "user.name", check=False).stdout.strip() or getpass.getuser()
        email = self._git("config", "user.email", check=False).stdout.strip() or f"{name}@{socket.gethostname()}"
        return {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", name), ("EMAIL", email))
        }

    def _git(
        self,
        *arguments: str,
        check: bool = True,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        result = self._run(
            ["git", "-C", str(self.path), *arguments], stdin.encode() if stdin is not None else None, environment
        )
        if check and result.returncode:
            raise CouplerError(f"git {' '.join(arguments)} failed", why=_cause(result.stderr.decode(errors="replace")))
        return subprocess.CompletedProcess(
            result.args,
            result.returncode,
            result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )

    def _run(
        self, command: list[str], stdin: bytes | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        variables = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **self.environment, **(environment or {})}
        try:
            return subprocess.run(
                command, input=stdin, capture_output=True, env=variables, timeout=_TIMEOUT, check=False
            )
        except FileNotFoundError as error:
            raise CouplerError("git is not installed", next_step="apt-get install git") from error
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(
                f"git did not finish within {_TIMEOUT} s", why=" ".join(command), next_step="check the network"
            ) from error


def _ref(branch: str) -> str:
    """Return where our copy keeps a branch of the remote."""
    return f"refs/remotes/published/{branch}"


def _cause(text: str) -> str:
    """Return the line of git's messages that tells why: what a server's hook says, else git's own error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for kind in ("remote: ", "fatal: ", "error: ") for line in lines if line.startswith(kind)]
    return next(iter([*causes, *reversed(lines)]), "git said nothing")
