"""Rules about what the nodes trust: commits, certificates, keys and downloaded programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.catalogue import version_key
from coupler.model.fields import key_of
from coupler.model.rules.issue import Issue, error, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coupler.model.cluster import Cluster
    from coupler.model.source import KeyPath

OTHERS = 0o077
"""Permission bits of group and others; ssh refuses a private key that has any."""


def signed_commits(cluster: Cluster) -> Iterator[Issue]:
    """Nodes should take only commits that someone they know has signed."""
    git = cluster.git
    if not git.allowed_signers:
        message = "no allowed signers: nodes accept any commit, and whoever can write to the repository owns them"
        yield warning(
            "unsigned-git", ("git", "allowed_signers"), message, "add your line: `you@example.org ssh-ed25519 AAAA…`"
        )
    elif git.signing_key is None:
        message = "nodes accept signed commits only, and no signing key is set: they would refuse yours"
        yield warning("no-signing-key", ("git", "allowed_signers"), message, "set git.signing_key")
    else:
        own = _public_half(git.signing_key)
        allowed = {key_of(signer.split()) for signer in git.allowed_signers}
        if own and own not in allowed:
            message = "the public half of this key is not among allowed_signers: nodes would refuse your commits"
            yield warning("signer-not-allowed", ("git", "signing_key"), message, f"add `you@example.org {own}`")


def reading_without_a_key(cluster: Cluster) -> Iterator[Issue]:
    """Nodes read the repository without credentials: a key on every node would be one more secret to guard."""
    if cluster.git.repository.startswith("ssh://"):
        hint = "serve it read-only over git://, https:// or http://, and push over ssh: `push: ssh://…`"
        yield error(
            "repository-needs-key", ("git", "repository"), "the nodes have no key for an ssh:// repository", hint
        )


def private_keys(cluster: Cluster) -> Iterator[Issue]:
    """Private keys exist, and only you can read them."""
    for path, file in _private_keys(cluster):
        if not file.is_file():
            message = f"there is no file {file}"
            yield warning("key-missing", path, message, f"make one: ssh-keygen -t ed25519 -f {file}")
        elif file.suffix != ".pub" and file.stat().st_mode & OTHERS:
            message = f"others can read {file}, and ssh refuses such a key"
            yield warning("key-readable", path, message, f"chmod 600 {file}")


def _private_keys(cluster: Cluster) -> Iterator[tuple[KeyPath, Path]]:
    if cluster.ssh.private_key:
        yield ("ssh", "private_key"), cluster.ssh.private_key
    if cluster.git.signing_key:
        yield ("git", "signing_key"), cluster.git.signing_key


def _public_half(key: Path) -> str | None:
    public = key if key.suffix == ".pub" else key.with_name(key.name + ".pub")
    try:
        return key_of(public.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return None


def encrypted_etcd(cluster: Cluster) -> Iterator[Issue]:
    """etcd without TLS gives every secret of the cluster to the network."""
    if not cluster.etcd.tls:
        message = (
            "etcd without TLS: whoever reaches port 2379 reads and writes everything, Kubernetes' secrets included"
        )
        yield warning("etcd-without-tls", ("etcd", "tls"), message, "remove the key, or shield the network")


def known_checksums(cluster: Cluster) -> Iterator[Issue]:
    """A program is run only if it is the one that was meant."""
    unknown: dict[tuple[KeyPath, str], list[str]] = {}
    for artifact in cluster.artifacts_needed:
        if artifact.urls and artifact.sha256 is None:
            unknown.setdefault((version_key(cluster, artifact.name), artifact.version), []).append(artifact.name)
    for (key, version), names in unknown.items():
        message = f"no checksum is known for version {version} of {', '.join(names)}: nodes do not fetch it"
        keys = ", ".join(f"artifacts.{name}.sha256" for name in names)
        hint = f"set {keys}; or download it and run: cluster mirror add {names[0]} FILE --version {version}"
        yield warning("missing-checksum", key, message, hint)


def mirror_lists_checksums(cluster: Cluster) -> Iterator[Issue]:
    """A mirror's folder says what is in it."""
    folder = cluster.mirror.folder if cluster.mirror else None
    if folder and not folder.checksums:
        message = f"{folder.path} has no SHA256SUMS, so nothing in it is used in place of upstream's files"
        hint = f"index what is there: cluster mirror verify --index --mirror {folder.path}"
        yield warning("mirror-without-checksums", ("mirror", "folder"), message, hint)


RULES = (signed_commits, reading_without_a_key, private_keys, encrypted_etcd, known_checksums, mirror_lists_checksums)
