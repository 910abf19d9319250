"""Downloads into the mirror: resumed where they broke off, put in place once their checksum is right.

Proxies are those of the environment: http_proxy, https_proxy and no_proxy, also in capitals.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from coupler.errors import CouplerError
from coupler.mirror.folder import Folder, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ATTEMPTS = 4
_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 30
_BLOCK = 1 << 18
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True)
class Wanted:
    """A file to download: where it is, the checksum that it must have, where it belongs in the mirror."""

    url: str
    sha256: str
    place: str


def fetch(folder: Folder, wanted: Wanted, tell: Callable[[str], None]) -> int:
    """Download a file into the mirror and list it; return its size in bytes.

    What came of an interrupted try stays beside the file's place, and the next one goes on from there.

    Raises:
        CouplerError: no attempt brought all of it, or it has another checksum.
    """
    target = folder.path / wanted.place
    draft = target.with_name(f".{target.name}.part")
    with folder.writing():
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(wanted, draft, tell)
        size = draft.stat().st_size
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        draft.chmod(0o644)
        draft.replace(target)
    folder.list_program(wanted.place, wanted.sha256)
    return size


def _download(wanted: Wanted, draft: Path, tell: Callable[[str], None]) -> None:
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
            tell(f"{wanted.url}: {problem}; trying again")
        begun = draft.exists()
        try:
            _go_on(wanted.url, draft)
        except urllib.error.HTTPError as error:
            problem = f"the server says {error.code} {error.reason}"
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _PASSING:
                break
            continue
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", None) or error)
            continue
        found = sha256_of(draft)
        if found == wanted.sha256:
            return
        draft.unlink()  # it is not the file that was meant, or it goes on something else
        problem = f"what it has is another file: its SHA-256 is {found}, not {wanted.sha256}"
        if not begun:
            break
    raise CouplerError(
        f"{wanted.url} could not be had",
        why=problem,
        next_step="run the same command again: it goes on where it stopped" if draft.exists() else None,
    )


def _go_on(url: str, draft: Path) -> None:
    """Add to `draft` what it lacks. Raises OSError, HTTPError and HTTPException."""
    have = draft.stat().st_size if draft.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        answer = urllib.request.build_opener().open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if have and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is lacking; the checksum tells
        raise
    with answer:
        begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        goes_on = answer.status == HTTPStatus.PARTIAL_CONTENT and begins is not None and int(begins[1]) == have
        expected = int(answer.headers.get("Content-Length") or -1)
        with draft.open("ab" if goes_on else "wb") as stream:
            while block := answer.read(_BLOCK):
                stream.write(block)
                expected -= len(block)
        if expected > 0:
            raise ConnectionError(f"the line broke with {expected} bytes to come")
