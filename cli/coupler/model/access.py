"""How machines are reached: SSH to the nodes, and the git repository from which they pull."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from coupler.model.fields import Duration, DurationText, FilePath, GitUrl, Port, PublicKey, PushTarget, Signer, line_of
from coupler.model.problem import problem
from coupler.model.section import Section

MIN_INTERVAL = 10
"""Seconds between two looks at the git repository; less would be load without use."""


class HostKeys(StrEnum):
    """What to do with the key of a host that is not known yet. A changed key is always refused."""

    ACCEPT_NEW = "accept-new"
    STRICT = "strict"


def _user(value: object) -> str:
    text = line_of(value)
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", text):
        raise problem("invalid-user", f"`{text}` is not the name of a user (a-z, 0-9, `-` and `_`)")
    return text


def _branch(value: object) -> str:
    text = line_of(value)
    bad = re.search(r"[^A-Za-z0-9._/-]|\.\.|//|@\{|^[-./]|[./]$|\.lock$", text)
    if bad:
        raise problem("invalid-branch", f"`{text}` is not the name of a branch", "write a name such as `main`")
    return text


def _interval(value: Duration) -> Duration:
    if value.seconds < MIN_INTERVAL:
        raise problem("out-of-range", f"`{value}` is too short", f"write at least `{MIN_INTERVAL}s`")
    return value


User: TypeAlias = Annotated[str, BeforeValidator(_user)]
Branch: TypeAlias = Annotated[str, BeforeValidator(_branch)]


class Ssh(Section):
    """How the nodes are reached over SSH."""

    user: User = Field(default="core", description="The user on the nodes; needs passwordless sudo.")
    port: Port = Field(default=22, description="The port of sshd on the nodes.")
    private_key: FilePath | None = Field(
        default=None, description="Your private key, relative to cluster.yaml; without it, ssh's own defaults."
    )
    authorized_keys: tuple[PublicKey, ...] = Field(
        default=(), description="Public keys that may log in as this user; they become part of the cloud-config."
    )
    host_keys: HostKeys = Field(
        default=HostKeys.ACCEPT_NEW,
        description="accept-new: trust a host's key at first sight; strict: only known keys.",
    )
    known_hosts: FilePath | None = Field(
        default=None, description="More known host keys, a file in OpenSSH's format, relative to cluster.yaml."
    )


class Git(Section):
    """The repository that carries the cloud-config to the nodes."""

    repository: GitUrl = Field(
        description="What the nodes pull from, without credentials: a git://, https:// or http:// URL."
    )
    push: PushTarget | None = Field(
        default=None, description="Where you push to, a URL or a path; without it, `repository`."
    )
    branch: Branch = Field(default="main", description="The branch that the nodes follow.")
    allowed_signers: tuple[Signer, ...] = Field(
        default=(),
        description="Whose signed commits the nodes accept, as lines of ssh-keygen's ALLOWED SIGNERS format. "
        "Empty: they accept any commit.",
    )
    signing_key: FilePath | None = Field(
        default=None, description="The SSH key that signs your commits, relative to cluster.yaml."
    )
    interval: Annotated[DurationText, AfterValidator(_interval)] = Field(
        default=Duration("5m"), description=f"How often the nodes look for a new commit; at least {MIN_INTERVAL}s."
    )
    health_timeout: DurationText = Field(
        default=Duration("2m"),
        description="How long units may take to be well after a change, before the node goes back.",
    )
