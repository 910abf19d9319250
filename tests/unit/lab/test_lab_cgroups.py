"""Where a machine's control groups go."""

from __future__ import annotations

from pathlib import Path

from coupler.lab import cgroups

MIXED_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
MIXED_GROUPS = "4:name=systemd:/user.slice\n3:memory:/a/b\n2:cpu,cpuacct:/\n1:hugetlb:/\n0::/user.slice\n"


def test_every_mounted_hierarchy_has_a_group() -> None:
    assert cgroups.own_groups(MIXED_GROUPS, MIXED_MOUNTS) == (
        Path("/sys/fs/cgroup/systemd/user.slice"),
        Path("/sys/fs/cgroup/memory/a/b"),
        Path("/sys/fs/cgroup/cpu,cpuacct"),
        Path("/sys/fs/cgroup/unified/user.slice"),
    )


def test_version_2_has_one_group() -> None:
    mounts = "25 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    assert cgroups.own_groups("0::/user.slice/session-3.scope\n", mounts) == (
        Path("/sys/fs/cgroup/user.slice/session-3.scope"),
    )


def test_in_a_container_the_mount_shows_only_the_own_part_of_the_tree() -> None:
    mounts = "25 20 0:22 /docker/ab /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
    assert cgroups.own_groups("5:pids:/docker/ab/c\n", mounts) == (Path("/sys/fs/cgroup/pids/c"),)
    assert cgroups.own_groups("5:pids:/docker/ab\n", mounts) == (Path("/sys/fs/cgroup/pids"),)


def test_killing_groups_that_are_gone_is_fine(tmp_path: Path) -> None:
    cgroups.kill([tmp_path / "gone"])
