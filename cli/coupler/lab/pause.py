"""The lab's own image for the sandbox of a pod, so that no machine needs a registry for it.

It is an archive in OCI's layout (github.com/opencontainers/image-spec, image-layout.md) of one layer with one file: an
ELF program for x86-64 without libraries, which waits until it is killed. The runtime stops a sandbox by SIGKILL.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from typing import Any, BinaryIO

REFERENCE = "coupler.local/pause:1"
_BASE = 0x400000
_CODE = bytes.fromhex(
    "b822000000"  # mov eax, 34: pause(2)
    "0f05"  # syscall
    "ebf7"  # jmp to the first instruction: a signal has been handled
)


def program() -> bytes:
    """Return the program: a header, one segment, which is the whole file, and 9 bytes of code (ELF-64, version 1)."""
    size = 64 + 56 + len(_CODE)
    identification = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + 64 + 56, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return identification + header + segment + _CODE


def write_image(target: BinaryIO) -> None:
    """Write the image as an archive; the same bytes each time."""
    layer = _tar({"pause": program()}, 0o755)
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "65535:65535", "Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    blobs = [layer, _json(configuration)]
    described = [
        _descriptor("application/vnd.oci.image.layer.v1.tar", blobs[0]),
        _descriptor("application/vnd.oci.image.config.v1+json", blobs[1]),
    ]
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = _json({"schemaVersion": 2, "mediaType": kind, "config": described[1], "layers": [described[0]]})
    names = {"io.containerd.image.name": REFERENCE, "org.opencontainers.image.ref.name": REFERENCE}
    index = {"schemaVersion": 2, "manifests": [{**_descriptor(kind, manifest), "annotations": names}]}
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in (*blobs, manifest)}
    target.write(_tar(files, 0o644))


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
