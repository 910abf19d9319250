"""`cluster mirror`: what the mirror has, and filling, checking and serving it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from coupler.errors import ConfigurationError, CouplerError, ExitCode, UsageError
from coupler.lab import shared_mirror
from coupler.mirror import archives
from coupler.mirror.fetching import Wanted, fetch
from coupler.mirror.fileserver import MirrorServer, RangeHandler
from coupler.mirror.folder import Folder, sha256_of
from coupler.mirror.naming import program_named, version_named
from coupler.mirror.programs import Offer
from coupler.mirror.survey import Entry, Have, Verdict, Verified, needs, others, verify
from coupler.model import find_cluster_file, load_cluster
from coupler.model.images import FOLDER, MirroredImage
from coupler.result import Json, Text, count, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coupler.model import Cluster

NEXT_AFTER_ADDING = "next: cluster init, for the nodes to fetch it"


@dataclass(frozen=True)
class Opened:
    """A mirror's folder, and the cluster that it is for, where there is one."""

    folder: Folder
    cluster: Cluster | None


def opened(mirror: Path | None, file: Path | None, here: Path, *, strict: bool = False) -> Opened:
    """Return the mirror that is meant: `mirror`, else cluster.yaml's, else the lab's.

    Where `mirror` is given, a cluster.yaml that is wrong counts as none, unless it is needed: `strict`.

    Raises:
        ConfigurationError: cluster.yaml is wrong, or there is none, and it is needed.
    """
    cluster = None
    if not file:
        try:
            file = find_cluster_file(here)
        except ConfigurationError:
            if strict:
                raise
    if file:
        try:
            cluster = load_cluster(file).cluster
        except ConfigurationError:
            if strict or not mirror:
                raise
    named = cluster.mirror.folder.path if cluster and cluster.mirror and cluster.mirror.folder else None
    return Opened(Folder((mirror or named or shared_mirror()).absolute()), cluster)


@dataclass(frozen=True)
class Listing:
    """What `cluster mirror list` answers."""

    folder: Path
    needed: tuple[Entry, ...] | None
    others: tuple[Entry, ...]
    images: tuple[tuple[MirroredImage, int | None], ...]
    pause: str | None
    exit_code: ExitCode = ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "folder": str(self.folder),
            "needed": None if self.needed is None else [_entry_data(entry) for entry in self.needed],
            "others": [_entry_data(entry) for entry in self.others],
            "images": [
                {"references": list(image.references), "arch": image.arch, "file": image.file, "size": octets}
                for image, octets in self.images
            ],
            "pause_image": self.pause,
        }

    def text(self) -> str:
        """Return the answer for a person."""
        parts = [f"mirror {self.folder}"]
        if self.needed is not None:
            rows = [(entry.name, entry.version or "-", size(entry.size), str(entry.have)) for entry in self.needed]
            parts += ["", table(("NEEDED", "VERSION", "SIZE", "IN THE MIRROR"), rows)]
        if self.others:
            rows = [(entry.name, entry.version, size(entry.size), str(entry.have)) for entry in self.others]
            title = "THERE" if self.needed is None else "ALSO THERE"
            parts += ["", table((title, "VERSION", "SIZE", "LISTED"), rows)]
        if self.images:
            named = [(name, image.arch, size(octets)) for image, octets in self.images for name in image.references]
            parts += ["", table(("IMAGE", "ARCH", "SIZE"), named)]
        missing = [entry for entry in self.needed or () if entry.have is Have.MISSING]
        if self.pause and not any(self.pause in image.references for image, _ in self.images):
            parts += ["", f"the image of a pod's sandbox, {self.pause}, is not in the mirror: nodes ask its registry"]
        if missing:
            parts += ["", *_how_to_get(missing)]
        return "\n".join(parts)


def _how_to_get(missing: list[Entry]) -> list[str]:
    lines = []
    if any(entry.source and entry.source.url and entry.sha256 for entry in missing):
        lines.append("next: cluster mirror pull, which downloads what upstream has")
    lines += [
        f"next: cluster mirror add {entry.name} FILE --version {entry.version or 'V'}"
        for entry in missing
        if not (entry.source and entry.source.url and entry.sha256)
    ]
    return lines


def _entry_data(entry: Entry) -> Json:
    return {
        "name": entry.name,
        "version": entry.version,
        "have": str(entry.have),
        "place": entry.place,
        "size": entry.size,
        "url": entry.source.url if entry.source else None,
        "sha256": entry.sha256,
    }


def mirror_list(where: Opened) -> Listing:
    """Say what the cluster needs and whether the mirror has it; without a cluster, what is there."""
    folder, cluster = where.folder, where.cluster
    needed = needs(folder, cluster) if cluster else None
    images = []
    for image in folder.images():
        path = folder.path / image.place
        images.append((image, path.stat().st_size if path.is_file() else None))
    pause = cluster.pause_image if cluster and cluster.kubernetes.enabled else None
    return Listing(folder.path, needed, others(folder, needed or ()), tuple(images), pause)


@dataclass(frozen=True)
class Pulled:
    """What `cluster mirror pull` did, or would do: files that came, were there, and could not be had."""

    folder: Path
    dry_run: bool
    fetched: tuple[Wanted, ...]
    unchanged: int
    lacking: tuple[tuple[str, str], ...]

    @property
    def exit_code(self) -> ExitCode:
        """Done where the mirror has all that the cluster needs."""
        return ExitCode.FAILED if self.lacking and not self.dry_run else ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "folder": str(self.folder),
            "dry_run": self.dry_run,
            "fetched": [vars(wanted) for wanted in self.fetched],
            "unchanged": self.unchanged,
            "lacking": [{"what": what, "next_step": hint} for what, hint in self.lacking],
        }

    def text(self) -> str:
        """Return the answer for a person."""
        done = "would fetch" if self.dry_run else "fetched"
        lines = [f"{done} {wanted.url}" for wanted in self.fetched]
        lines += [line for what, hint in self.lacking for line in (what, f"  next: {hint}")]
        number = len(self.fetched)
        lines.append(f"mirror {self.folder}: {done} {count(number, 'file')}, {self.unchanged} unchanged")
        if number and not self.dry_run and not self.lacking:
            lines.append(NEXT_AFTER_ADDING)
        return "\n".join(lines)


def mirror_pull(where: Opened, tell: Callable[[str], None], *, dry_run: bool) -> Pulled:
    """Download what the cluster needs and the mirror lacks, or has in a broken state."""
    if where.cluster is None:
        raise UsageError("what is needed follows from a cluster.yaml, and there is none", next_step="cluster new NAME")
    lacking: list[tuple[str, str]] = []
    wanted: dict[str, Wanted] = {}
    sound: set[str] = set()
    for entry in needs(where.folder, where.cluster):
        if entry.have is Have.ELSEWHERE or entry.place in sound:
            continue
        if entry.place and entry.have is not Have.UNLISTED and _is_sound(where.folder, entry.place):
            sound.add(entry.place)
            continue
        source, called = entry.source, f"{entry.name} {entry.version}".rstrip()
        add = f"cluster mirror add {entry.name} FILE --version {entry.version or 'V'}"
        if source is None or source.url is None:
            lacking.append((f"{called}: its project publishes no build", add))
        elif not entry.sha256:
            key = f"artifacts.{entry.name}.sha256 in cluster.yaml"
            lacking.append((f"{called}: its SHA-256 is not known", f"set {key}, or download {source.url} and: {add}"))
        else:
            wanted[source.url] = Wanted(source.url, entry.sha256, source.place)
    fetched = []
    for file in wanted.values():
        try:
            if not dry_run:
                tell(f"fetching {file.url}")
                fetch(where.folder, file, tell)
            fetched.append(file)
        except CouplerError as error:
            otherwise = "download it, and: cluster mirror add NAME FILE --version V"
            lacking.append((error.summary, error.next_step or otherwise))
    return Pulled(where.folder.path, dry_run, tuple(fetched), len(sound), tuple(lacking))


def _is_sound(folder: Folder, place: str) -> bool:
    return sha256_of(folder.path / place) == folder.checksums().get(place)


def mirror_add(where: Opened, name: str, file: Path, version: str | None, arch: str | None) -> Text:
    """Put a local program, or the archive that it comes in, into the mirror."""
    name = program_named(name)
    expected = str(where.cluster.os.arch) if where.cluster else None
    added = Offer(name, file, version_named(name, version), arch, expected).examine()
    folder, source = where.folder, added.source
    before = folder.checksums().get(added.place)
    target, digest = folder.put(added.place, added.fill, added.mode)
    folder.list_program(added.place, digest)
    lines = [f"{'unchanged' if before == digest else 'added'} {target}", f"sha256 {digest}"]
    if source.sha256 and source.member_at(added.place) == source.member:
        as_published = digest == source.sha256
        lines.append(f"this is {'the file' if as_published else 'NOT the file'} that upstream published")
    if added.note:
        lines.append(added.note)
    first = source.within(folder.checksums())
    if first and first != added.place:
        lines.append(f"{name} {source.version} is also there as {first}, which nodes take instead: delete that one")
    data = {"name": name, "version": source.version, "arch": source.arch, "place": added.place, "sha256": digest}
    return Text("\n".join([*lines, NEXT_AFTER_ADDING]), {**data, "changed": before != digest})


def mirror_add_image(where: Opened, file: Path, name: str | None) -> Text:
    """Put an archive of images into the mirror; nodes bring it to their containerd."""
    archive = archives.examine(file, name)
    arch = str(where.cluster.os.arch) if where.cluster else None
    if arch and arch not in archive.references:
        raise CouplerError(
            f"{file} holds an image for {', '.join(archive.references)}, and the cluster's nodes are {arch}",
            next_step=f"pull it for them: docker pull --platform linux/{arch} NAME:TAG, then save it",
        )
    wanted = arch or next(iter(archive.references))
    stored = archives.file_name(archive.references[wanted][0], "-".join(archive.references))
    folder = where.folder
    _, digest = folder.put(f"{FOLDER}/{stored}", partial(archives.copy, file, archive), 0o644)
    images = [MirroredImage(stored, digest, each, names) for each, names in archive.references.items()]
    changed = not set(images) <= set(folder.images())
    folder.list_image(images)
    names = list(dict.fromkeys(reference for image in images for reference in image.references))
    lines = [f"{'added' if changed else 'unchanged'} {reference} as {FOLDER}/{stored}" for reference in names]
    data = {"references": names, "file": stored, "sha256": digest, "changed": changed}
    return Text("\n".join([*lines, "next: cluster init, for the nodes to import it"]), data)


@dataclass(frozen=True)
class Checked:
    """What `cluster mirror verify` found."""

    folder: Path
    files: tuple[Verified, ...]
    indexed: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """Done where every listed file is there as it is listed, and nothing else lies about."""
        bad = {Verdict.CORRUPT, Verdict.HALF, Verdict.GONE}
        return ExitCode.FAILED if any(file.verdict in bad for file in self.files) else ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        files = [{"place": file.place, "verdict": str(file.verdict), "text": file.text} for file in self.files]
        return {"folder": str(self.folder), "files": files, "indexed": self.indexed}

    def text(self) -> str:
        """Return the answer for a person: what is not right, then the sum of it."""
        lines = [f"listed {place}" for place in self.indexed]
        odd = [file for file in self.files if file.verdict is not Verdict.GOOD]
        lines += [f"{file.verdict}: {file.place}: {file.text}" for file in odd]
        good = len(self.files) - len(odd)
        lines.append(f"mirror {self.folder}: {count(good, 'file')} as listed, {len(odd)} not")
        verdicts = {file.verdict for file in odd}
        if verdicts & {Verdict.CORRUPT, Verdict.HALF, Verdict.GONE}:
            lines.append("next: cluster mirror pull downloads it again; or add it anew: cluster mirror add")
        elif Verdict.UNLISTED in verdicts:
            lines.append("next: cluster mirror verify --index lists what is whole")
        return "\n".join(lines)


def mirror_verify(where: Opened, *, index: bool) -> Checked:
    """Hold every file of the mirror to its checksum; with `index` list first what was put there by hand."""
    indexed = where.folder.index() if index else {}
    return Checked(where.folder.path, verify(where.folder), indexed)


def mirror_serve(where: Opened, address: str, port: int, tell: Callable[[str], None]) -> Text:
    """Serve the mirror over HTTP until the command is interrupted."""
    folder = where.folder.path
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", next_step="cluster mirror pull fills one")
    try:
        server = MirrorServer((address, port), partial(RangeHandler, directory=str(folder)))
    except OSError as error:
        raise CouplerError(
            f"nothing can listen on {address}:{port}", why=str(error), next_step="give others: --address, --port"
        ) from error
    with server:
        host, number = server.server_address[:2]
        tell(f"serving {folder} at http://{host!s}:{number}; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return Text("stopped", {"folder": str(folder), "address": str(host), "port": number})
    return Text("stopped", {"folder": str(folder)})


def size(octets: int | None) -> str:
    """Return a size in bytes as people write it."""
    if octets is None:
        return "-"
    amount = float(octets)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:  # noqa: PLR2004 - KiB in a MiB
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
