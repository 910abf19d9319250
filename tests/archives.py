"""Archives for tests: of files, and of images as `docker save` writes them."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def tar(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    """Return an archive of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def docker_files(
    tags: Sequence[str], configuration: Mapping[str, Any], layers: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the files of an image with these layers by their names, the lowest first."""
    manifest = [{"Config": "c.json", "RepoTags": list(tags) or None, "Layers": list(layers)}]
    return {"c.json": json.dumps(configuration).encode(), **layers, "manifest.json": json.dumps(manifest).encode()}
