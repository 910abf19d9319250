"""What update_engine says of a node's updates: the answer of `update_engine_client -status`.

Source: https://github.com/flatcar/update_engine, update_engine_client.cc: lines NAME=VALUE, and com.coreos.update1's
names of what it is doing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "UPDATE_STATUS_"
_NEED_REBOOT = "UPDATED_NEED_REBOOT"
_NO_VERSION = ("", "0.0.0", "0.0.0.0")  # noqa: S104 - no address: what it says for 'none'


@dataclass(frozen=True)
class UpdateStatus:
    """What update_engine is doing (`IDLE`, `DOWNLOADING`, …), when it asked its server last, and for what version."""

    operation: str
    last_checked: datetime | None
    new_version: str | None

    @property
    def needs_reboot(self) -> bool:
        """Whether an update is in place and waits for a reboot."""
        return self.operation == _NEED_REBOOT


def update_status(lines: Iterable[str]) -> UpdateStatus | None:
    """Return what the lines of the answer say, None where there is no update_engine that answers."""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    operation = values.get("CURRENT_OP", "").removeprefix(_PREFIX)
    if not operation:
        return None
    seconds, version = values.get("LAST_CHECKED_TIME", "0"), values.get("NEW_VERSION", "")
    checked = datetime.fromtimestamp(int(seconds), UTC) if seconds.isdigit() and int(seconds) else None
    return UpdateStatus(operation, checked, None if version in _NO_VERSION else version)
