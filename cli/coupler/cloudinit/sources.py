"""Where user-data comes from: a file, a URL, a config drive, the kernel's command line."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from coupler.cloudinit.node import NodeError

_TIMEOUT = 10.0
_ATTEMPTS = 8
_FIRST_PAUSE = 0.1
_SERVER_ERROR = 500
_URL_FLAG = "cloud-config-url"


@dataclass(frozen=True)
class Metadata:
    """What a source says about the machine itself."""

    hostname: str = ""
    keys: tuple[str, ...] = field(default=())


class Source(Protocol):
    """A source of user-data; `kind` is its name in the log."""

    kind: str

    def available(self) -> bool:
        """Return whether there is something to read."""

    def metadata(self) -> Metadata:
        """Return the metadata. Raises NodeError."""

    def userdata(self) -> bytes:
        """Return the user-data. Raises NodeError."""


class File:
    """A file."""

    kind = "local-file"

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def available(self) -> bool:
        """Return whether the file is there."""
        return self.path.exists()

    def metadata(self) -> Metadata:
        """Return no metadata."""
        return Metadata()

    def userdata(self) -> bytes:
        """Return the file's bytes."""
        return _read(self.path)


class Url:
    """A web address, http or https."""

    kind = "url"

    def __init__(self, url: str) -> None:
        self.url = url

    def available(self) -> bool:
        """Return whether the server answers, after several attempts."""
        try:
            get(self.url)
        except NodeError:
            return False
        return True

    def metadata(self) -> Metadata:
        """Return no metadata."""
        return Metadata()

    def userdata(self) -> bytes:
        """Return what the address serves."""
        return get(self.url)


class KernelCommandLine:
    """The address in `cloud-config-url=` (or with underscores) on the kernel's command line; the last one counts."""

    kind = "proc-cmdline"

    def __init__(self, path: str = "/proc/cmdline") -> None:
        self.path = Path(path)

    def _url(self) -> str | None:
        url = None
        for word in _read(self.path).decode(errors="replace").split():
            name, equals, value = word.partition("=")
            if name.replace("_", "-") == _URL_FLAG and equals:
                url = value
        return url

    def available(self) -> bool:
        """Return whether there is an address on the command line."""
        return self.path.exists() and self._url() is not None

    def metadata(self) -> Metadata:
        """Return no metadata."""
        return Metadata()

    def userdata(self) -> bytes:
        """Return what the address serves."""
        return get(self._url() or "")


class ConfigDrive:
    """A mounted OpenStack config drive: `openstack/latest/user_data` and `meta_data.json`."""

    kind = "cloud-drive"

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def available(self) -> bool:
        """Return whether the folder is there."""
        return self.root.exists()

    def metadata(self) -> Metadata:
        """Return the host's name and the keys of meta_data.json."""
        try:
            data = json.loads(self._latest("meta_data.json") or b"{}")
            return Metadata(str(data.get("hostname", "")), tuple((data.get("public_keys") or {}).values()))
        except (ValueError, AttributeError) as error:
            raise NodeError(f"meta_data.json: {error}") from error

    def userdata(self) -> bytes:
        """Return user_data, empty where there is none."""
        return self._latest("user_data")

    def _latest(self, name: str) -> bytes:
        path = self.root / "openstack" / "latest" / name
        return _read(path) if path.exists() else b""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NodeError(f"open {path}: {(error.strerror or '').lower()}") from error


def get(url: str) -> bytes:
    """Return what an http or https address serves, trying again while the server fails. Raises NodeError."""
    if not url.startswith(("http://", "https://")):
        raise NodeError(f"URL {url} is not http or https")
    from urllib.error import HTTPError
    from urllib.request import urlopen

    pause = _FIRST_PAUSE
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310 - the scheme is checked above
                return bytes(response.read())
        except HTTPError as error:
            if error.code < _SERVER_ERROR:  # asking again would change nothing
                raise NodeError(f"unable to fetch {url}: HTTP status code {error.code}") from error
            problem: Exception = error
        except OSError as error:
            problem = error
        if attempt < _ATTEMPTS:
            time.sleep(pause)
            pause *= 2
    raise NodeError(f"unable to fetch {url}: {problem}")
