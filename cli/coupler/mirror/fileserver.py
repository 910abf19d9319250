"""The mirror: a folder served over HTTP, with ranges so that an interrupted download can go on.

Run by path, not as a module: `python fileserver.py ADDRESS PORT FOLDER`. It imports nothing of the project and so is
there within a moment.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO
from urllib.parse import unquote

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files, whole or one range of bytes of them (RFC 9110, section 14); what begins with a dot is not there."""

    protocol_version = "HTTP/1.1"
    _left: int | None = None
    """How many bytes of the opened file the answer still has, None for all."""

    def send_head(self) -> BinaryIO | None:
        """Send the status line and headers; return the file, set to the first byte to send."""
        self._left = None
        if "/." in unquote(self.path):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        path = self.translate_path(self.path)
        if asked is None or not os.path.isfile(path):  # noqa: PTH113 - translate_path returns a string
            return super().send_head()
        stream = open(path, "rb")  # noqa: PTH123, SIM115 - do_GET closes it
        size = os.fstat(stream.fileno()).st_size
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
        if first > last:
            stream.close()
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self._left = last - first + 1
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(self._left))
        self.end_headers()
        stream.seek(first)
        return stream

    def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:  # type: ignore[override]
        """Send the file, or as much of it as the range has."""
        if self._left is None:
            shutil.copyfileobj(source, outputfile)
        while self._left:
            chunk = source.read(min(self._left, 1 << 16))
            if not chunk:
                break
            self._left -= len(chunk)
            outputfile.write(chunk)


class MirrorServer(ThreadingHTTPServer):
    """Answers many machines at once; they all ask in the same moment."""

    request_queue_size = 128


def serve(address: str, port: int, folder: str) -> None:
    """Serve `folder` until the process is killed."""
    MirrorServer((address, port), partial(RangeHandler, directory=folder)).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
