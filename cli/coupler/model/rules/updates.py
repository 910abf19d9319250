"""Rules about updates of the operating system, and the reboots that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.rules.issue import Issue, error, warning
from coupler.model.system import Channel, Distribution, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.cluster import Cluster

CHANNEL_NUMBERS = {0: Channel.ALPHA, 1: Channel.BETA, 2: Channel.STABLE, 3: Channel.LTS}
"""The second number of a Flatcar release says which channel it belongs to (Flatcar's release documentation)."""
QUORUM_MATTERS = 3
"""With fewer members, any reboot of one stops etcd."""


def reboot_window(cluster: Cluster) -> Iterator[Issue]:
    """A window, a group and a number of nodes mean something only where locksmith reboots."""
    reboot = cluster.os.reboot
    if reboot.window and reboot.strategy is Strategy.OFF:
        message = "nodes never reboot by themselves with the strategy off, so the window has no effect"
        yield warning(
            "window-without-reboots", ("os", "reboot", "window"), message, "remove it, or choose another strategy"
        )
    if reboot.strategy is not Strategy.ETCD_LOCK:
        for key in sorted({"group", "max_nodes"} & reboot.model_fields_set):
            message = f"`{key}` is about the lock in etcd, which the strategy {reboot.strategy} does not use"
            yield warning("lock-without-etcd-lock", ("os", "reboot", key), message, "remove it, or use etcd-lock")


def quorum_survives_reboots(cluster: Cluster) -> Iterator[Issue]:
    """So many nodes may reboot at a time that etcd keeps its quorum, whichever they are."""
    reboot, members = cluster.os.reboot, len(cluster.etcd_members)
    spare = (members - 1) // 2
    if reboot.strategy is Strategy.ETCD_LOCK and members >= QUORUM_MATTERS and reboot.max_nodes > spare:
        message = f"{reboot.max_nodes} of {members} etcd members could reboot at once, and {members - spare} must be up"
        yield error("reboots-break-quorum", ("os", "reboot", "max_nodes"), message, f"write at most {spare}")


def pinned_release(cluster: Cluster) -> Iterator[Issue]:
    """A pinned release does not update itself, and belongs to its channel."""
    system = cluster.os
    if system.version and system.update_server:
        message = f"os.version pins the release to {system.version} and turns updates off, so no update server is asked"
        yield warning("pinned-with-server", ("os", "update_server"), message, "remove one of the two keys")
    if system.version and system.distribution is Distribution.FLATCAR:
        channel = CHANNEL_NUMBERS.get(system.version.numbers[1])
        if channel and channel is not system.channel:
            message = f"{system.version} is a release of the channel {channel}, not of {system.channel}"
            yield error(
                "version-not-in-channel",
                ("os", "version"),
                message,
                f"add `channel: {channel}`, or pin another release",
            )


def channel_exists(cluster: Cluster) -> Iterator[Issue]:
    """CoreOS Container Linux had no LTS channel."""
    if cluster.os.distribution is Distribution.CONTAINER_LINUX and cluster.os.channel is Channel.LTS:
        yield error("no-such-channel", ("os", "channel"), "container-linux has no channel lts", "use stable")


RULES = (reboot_window, quorum_survives_reboots, pinned_release, channel_exists)
