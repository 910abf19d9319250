"""One run of the program: fetch, validate, then apply, in the order of each lineage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.decode import CloudConfig, decode_strong
from coupler.cloudinit.decoder import zero
from coupler.cloudinit.golang import DecodeError, decode_content, to_bytes, to_text
from coupler.cloudinit.grammar import CLOUD_CONFIG, Lineage
from coupler.cloudinit.node import NodeError
from coupler.cloudinit.operations import Fail, Operation, RunScript
from coupler.cloudinit.parse import parse
from coupler.cloudinit.plan import MAX_HOSTNAME, core_keys, harm_in, plan_access, plan_config
from coupler.cloudinit.substitute import substitute
from coupler.cloudinit.userdata import Format, PartsError, decompress, format_of, parts_of
from coupler.cloudinit.verdict import validate
from coupler.cloudinit.yamlport import YamlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coupler.cloudinit.apply import Applier
    from coupler.cloudinit.sources import Metadata, Source


class UnreadableError(Exception):
    """User-data that cannot be applied; the text is the real program's."""


@dataclass(frozen=True)
class Piece:
    """A part of user-data that was read: a typed document, a script, or something that is left alone."""

    format: Format
    name: str
    config: CloudConfig | None = None
    script: str = ""


@dataclass
class Session:
    """The program's run on one node. `say` writes to standard output, where the older program has some messages."""

    applier: Applier
    lineage: Lineage
    values: Mapping[str, str]
    label: str
    say: Callable[[str], None]
    ignore_failure: bool = False

    def check(self, source: Source) -> int:
        """Validate what a source holds; return the exit code."""
        if self.lineage is Lineage.FLATCAR:
            self._fetch_metadata(source)
        text, _ = self._fetch(source)
        return self._validate(text)

    def apply(self, source: Source) -> int:
        """Apply what a source holds; return the exit code."""
        return self._apply_classic(source) if self.lineage is Lineage.COREOS else self._apply_flatcar(source)

    def _fetch(self, source: Source) -> tuple[str, bool]:
        """Return (the text, whether something went wrong with it)."""
        log = self.applier.log
        log(f'Fetching user-data from datasource of type "{source.kind}"')
        try:
            data, problem = decompress(source.userdata())
        except NodeError as error:
            log(f"Failed fetching user-data from datasource: {error}. Continuing...")
            return "", True
        if problem is not None:
            log(f"Failed decompressing user-data from datasource: {problem}. Continuing...")
        return to_text(data), problem is not None

    def _fetch_metadata(self, source: Source) -> Metadata:
        self.applier.log(f'Fetching meta-data from datasource of type "{source.kind}"')
        return source.metadata()

    def _validate(self, text: str) -> int:
        report = validate(text, self.lineage)
        for line in report.text():
            self.applier.log(line)
        return report.exit_code

    def _apply_classic(self, source: Source) -> int:
        log = self.applier.log
        text, failed = self._fetch(source)
        self._validate(text)
        metadata = self._fetch_metadata(source)
        piece = Piece(Format.EMPTY, "")
        try:
            piece = self._read_classic(substitute(text, self.values))
        except UnreadableError as error:
            self.say(f"Failed to parse user-data: {error}\nContinuing...\n")
            failed = True
        if piece.format is Format.IGNITION:
            self.say("Detected an Ignition config. Exiting...")
            return 0
        log("Merging cloud-config from meta-data and user-data")
        config = piece.config or zero(CLOUD_CONFIG)
        config["hostname"] = config["hostname"] or metadata.hostname
        config["ssh_authorized_keys"] = [*config["ssh_authorized_keys"], *metadata.keys]
        try:
            self.applier.run(self._plan(config))
        except NodeError as error:
            log(f"Failed to apply cloud-config: {error}")
            return 1
        if piece.format is Format.SCRIPT:
            try:
                self.applier.run([RunScript(piece.script)])
            except NodeError as error:
                log(f"Failed to run script: {error}")
                return 1
        return 1 if failed and not self.ignore_failure else 0

    def _read_classic(self, text: str) -> Piece:
        match format_of(text, self.lineage):
            case Format.EMPTY:
                return Piece(Format.EMPTY, "")
            case Format.SCRIPT:
                self.applier.log("Parsing user-data as script")
                return Piece(Format.SCRIPT, "", script=text)
            case Format.CLOUD_CONFIG:
                self.applier.log("Parsing user-data as cloud-config")
                return Piece(Format.CLOUD_CONFIG, "", config=read_config(text, self.lineage))
            case Format.IGNITION:
                return Piece(Format.IGNITION, "")
        raise UnreadableError("Unrecognized user-data format")

    def _apply_flatcar(self, source: Source) -> int:
        log = self.applier.log
        metadata = self._fetch_metadata(source)
        text, failed = self._fetch(source)
        self._validate(text)
        pieces: list[Piece] = []
        try:
            pieces = self._pieces(text)
        except (PartsError, UnreadableError) as error:
            log(f"Failed to parse user-data: error parsing user-data: {error}\nContinuing...")
            failed = True
        configs = [piece.config for piece in pieces if piece.config is not None]
        if not self._access(configs, metadata):
            return 1
        for piece in [] if failed else pieces:
            log(f'Running part "{piece.name}" ({piece.format})')
            try:
                self._run(piece)
            except NodeError as error:
                log(f'Failed to run part "{piece.name}": {error}')
                failed = True
        return 1 if failed and not self.ignore_failure else 0

    def _pieces(self, text: str) -> list[Piece]:
        if not text:
            return []
        pieces = []
        for part in parts_of(text):
            body = substitute(part.text, self.values)
            if part.format is Format.CLOUD_CONFIG:
                try:
                    pieces.append(Piece(part.format, part.name, read_config(body, self.lineage)))
                except UnreadableError as error:
                    raise UnreadableError(f"error parsing cloud-config: {error}") from error
            else:
                pieces.append(Piece(part.format, part.name, script=body))
        return pieces

    def _access(self, configs: list[CloudConfig], metadata: Metadata) -> bool:
        """Set the host's name and the keys of `core`; both are tried, so that a failure leaves a way in."""
        log = self.applier.log
        name = next((config["hostname"] for config in configs if config["hostname"]), metadata.hostname).split(".")[0]
        if len(to_bytes(name)) > MAX_HOSTNAME:
            cut = to_text(to_bytes(name)[:MAX_HOSTNAME])
            log(f"Hostname too long. Truncating hostname {name} to {MAX_HOSTNAME} bytes ({cut})")
            name = cut
        good = True
        try:
            self.applier.run(plan_access(name, ()))
        except NodeError as error:
            log(f"Failed to set hostname: error setting hostname: {error}")
            good = False
        try:
            self.applier.run(plan_access("", [*core_keys(configs), *metadata.keys], self.label))
        except NodeError as error:
            log(f"Failed to apply SSH keys: {error}")
            good = False
        return good

    def _run(self, piece: Piece) -> None:
        if piece.format is Format.SCRIPT:
            self.applier.run([RunScript(piece.script)])
        elif piece.config is not None:
            try:
                self.applier.run(self._plan(piece.config))
            except NodeError as error:
                raise NodeError(f"error applying cloud-config: {error}") from error
        else:
            self.applier.log(f"ignoring part of type {piece.format}")

    def _plan(self, config: CloudConfig) -> list[Operation]:
        if not self.applier.faithful and (harm := harm_in(config)) is not None:
            return [Fail(harm)]
        return plan_config(config, self.lineage, self.values, self.label)


def read_config(text: str, lineage: Lineage) -> CloudConfig:
    """Return a typed document with the contents of its files decoded. Raises UnreadableError."""
    try:
        config = decode_strong(parse(text, lineage), lineage)
    except YamlError as error:
        raise UnreadableError(error.text(lineage)) from error
    try:
        for file in config["write_files"]:
            file["content"] = decode_content(file["content"], file["encoding"])
            file["encoding"] = ""
    except DecodeError as error:
        raise UnreadableError(str(error)) from error
    return config
