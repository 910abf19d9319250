"""The operating system of the nodes: distribution, release, updates and reboots."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, WithJsonSchema

from coupler.model.fields import Duration, DurationText, Name, VersionText, WebUrl, count_of, line_of
from coupler.model.problem import problem
from coupler.model.section import Section


class Distribution(StrEnum):
    """Which programs the image ships, and so which dialect of cloud-config the nodes get."""

    FLATCAR = "flatcar"
    CONTAINER_LINUX = "container-linux"


class Channel(StrEnum):
    """The release channel that the nodes follow."""

    STABLE = "stable"
    BETA = "beta"
    ALPHA = "alpha"
    LTS = "lts"


class Arch(StrEnum):
    """The processor architecture of the nodes, as Go and Kubernetes call it."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Strategy(StrEnum):
    """What locksmithd does when an update waits for a reboot."""

    ETCD_LOCK = "etcd-lock"
    REBOOT = "reboot"
    OFF = "off"


def _window_start(value: object) -> str:
    text = line_of(value)
    if not re.fullmatch(r"((Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?([01][0-9]|2[0-3]):[0-5][0-9]", text):
        message = f"`{text}` is not the start of a reboot window"
        raise problem("invalid-window-start", message, "write `Thu 04:00`, or `04:00` for every day")
    return text


def _window_length(value: object) -> Duration:
    text = Duration(line_of(value))
    if not re.fullmatch(r"([1-9][0-9]?[0-9]?h)?([1-9][0-9]?[0-9]?m)?", text):
        raise problem("invalid-duration", f"`{text}` is not the length of a window", "write `1h`, `90m` or `1h30m`")
    return text


WindowStart: TypeAlias = Annotated[str, BeforeValidator(_window_start)]
WindowLength: TypeAlias = Annotated[DurationText, BeforeValidator(_window_length), WithJsonSchema({"type": "string"})]


class Window(Section):
    """When nodes may reboot for an update."""

    start: WindowStart = Field(
        description="Day and time, `Thu 04:00`, or the time alone for every day; UTC unless the nodes' zone is another."
    )
    length: WindowLength = Field(description="How long the window stays open: `1h`, `90m`, `1h30m`.")


class Reboot(Section):
    """How a node reboots into an update (locksmithd)."""

    strategy: Strategy = Field(
        default=Strategy.ETCD_LOCK,
        description="etcd-lock: one after another, by a lock in etcd; reboot: at once; off: never by itself.",
    )
    window: Window | None = Field(default=None, description="When nodes may reboot; without it, at any time.")
    group: Name | None = Field(default=None, description="Nodes of a group share one lock; without it, all nodes do.")
    max_nodes: Annotated[int, Field(ge=1, le=1000), BeforeValidator(count_of)] = Field(
        default=1, description="How many nodes may hold the reboot lock at a time."
    )


class System(Section):
    """The operating system: distribution, release, updates and reboots."""

    distribution: Distribution = Field(
        default=Distribution.FLATCAR,
        description="flatcar, or container-linux for images that ship etcd2, flannel and fleet.",
    )
    channel: Channel = Field(default=Channel.STABLE, description="The release channel that the nodes follow.")
    version: VersionText | None = Field(
        default=None, description="Pins the release, such as `4593.2.5`: nodes then do not update themselves."
    )
    arch: Arch = Field(default=Arch.AMD64, description="The processor architecture of all nodes.")
    update_server: WebUrl | None = Field(
        default=None, description="The update server (Omaha protocol); without it, the distribution's own."
    )
    reboot: Reboot = Field(default_factory=Reboot, description="How nodes reboot into an update.")
