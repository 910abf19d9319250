"""Publishing with the real git: commits on top of what is there, never instead of it."""

import subprocess

import pytest

from coupler.adapters.git import Repository
from coupler.errors import CouplerError, UnreachableError


def git(*arguments, cwd):
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def remote(tmp_path):
    path = tmp_path / "remote.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(path), cwd=tmp_path)
    return path


@pytest.fixture
def repository(tmp_path, remote):
    return Repository(tmp_path / "copy.git", str(remote), "main")


def publish(repository, files, message, parent):
    commit = repository.commit(files, message, parent)
    repository.push(commit)
    return commit


def test_first_commit_on_an_empty_branch(repository, remote):
    assert repository.published() is None
    commit = publish(repository, {"cloud-config.yaml": "a\n"}, "first", None)
    assert git("rev-parse", "main", cwd=remote) == commit == repository.published()
    assert repository.content(commit, "cloud-config.yaml") == b"a\n"


def test_files_of_other_people_stay(repository, remote):
    first = publish(repository, {"README": "theirs\n"}, "theirs", None)
    second = publish(repository, {"cloud-config.yaml": "a\n"}, "ours", first)
    assert repository.content(second, "README") == b"theirs\n"
    assert git("rev-parse", f"{second}^", cwd=remote) == first


def test_push_that_would_lose_a_commit_is_refused(repository, remote, tmp_path):
    first = publish(repository, {"f": "1\n"}, "first", None)
    other = Repository(tmp_path / "other.git", str(remote), "main")
    other.published()
    theirs = publish(other, {"f": "2\n"}, "theirs", first)
    with pytest.raises(CouplerError, match="refused") as caught:
        publish(repository, {"f": "3\n"}, "ours", first)
    assert caught.value.why == "somebody else has published in the meantime"
    assert git("rev-parse", "main", cwd=remote) == theirs


def test_commit_is_signed_and_verifies_against_the_allowed_signers(remote, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers = tmp_path / "allowed_signers"
    signers.write_text(f"ops@example.org {key.with_suffix('.pub').read_text()}")
    repository = Repository(tmp_path / "copy.git", str(remote), "main", signing_key=key)
    commit = publish(repository, {"f": "1\n"}, "signed", repository.published())
    git("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", commit, cwd=remote)


def test_key_that_cannot_sign_is_explained(remote, tmp_path):
    repository = Repository(tmp_path / "copy.git", str(remote), "main", signing_key=tmp_path / "none")
    with pytest.raises(CouplerError, match="could not be made and signed") as caught:
        publish(repository, {"f": "1\n"}, "signed", None)
    assert "git.signing_key" in caught.value.next_step


def test_remote_that_does_not_answer_is_explained(tmp_path):
    with pytest.raises(UnreachableError, match="cannot be read"):
        Repository(tmp_path / "copy.git", str(tmp_path / "nowhere"), "main").published()
