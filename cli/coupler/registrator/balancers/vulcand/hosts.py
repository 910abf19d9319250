"""Hosts with certificates: which keys there ought to be, and the writes that lead there. Pure.

To vulcand, the name of a host with a key pair is a name only: certificates are chosen by the names in them. So ours are
named like our backends, and everything that is not named so is somebody else's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from coupler.registrator.balancers.vulcand.certificates import covers, pair_of, served_names
from coupler.registrator.balancers.vulcand.diff import HOSTS, Drop, Put, drop
from coupler.registrator.balancers.vulcand.ids import host_id, is_ours
from coupler.registrator.model import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Set

    from coupler.registrator.balancers.vulcand.diff import Entry, Observed
    from coupler.registrator.balancers.vulcand.sealing import Pair, Sealer
    from coupler.registrator.model import Host

_ANY = "(any)"


@dataclass(frozen=True, slots=True)
class Served:
    """A host that is to be served over TLS. `default`: for names that no certificate has."""

    id: str
    name: str
    default: bool
    pair: Pair

    @property
    def subject(self) -> str:
        """Return what it is called among what fails."""
        return f"host {self.name or _ANY}"


@dataclass(slots=True)
class Hosts:
    """The hosts that are wanted. `kept` are ours that stay as they are: they cannot be written as they should be."""

    served: list[Served] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, more: Hosts) -> None:
        """Take in more hosts."""
        self.served += more.served
        self.kept |= more.kept
        self.failed |= more.failed


@dataclass(frozen=True, slots=True)
class Strangers:
    """What of other people's hosts matters to ours: see `strangers`."""

    locked: str | None
    default: str | None
    names: Mapping[str, str]


def wanted(owner: str, hosts: Iterable[Host]) -> Hosts:
    """Return the hosts that have a certificate; one that cannot be used spoils its own host alone."""
    found = Hosts()
    for host in hosts:
        if host.certificate is None:
            continue
        id_ = host_id(owner, host.name)
        try:
            served = Served(id_, host.name, not host.name, pair_of(host.certificate))
            if host.name and not covers(served_names(served.pair.chain), host.name):
                raise ModelError("its certificate is for other names, and vulcand goes by those")
            found.served.append(served)
        except ModelError as error:
            found.kept.add(id_)
            found.failed[f"host {host.name or _ANY}"] = error.summary
    return found


def strangers(owner: str, observed: Observed, sealer: Sealer) -> Strangers:
    """Return, of hosts that are not ours: one that our key does not open, the default, and by name who is served."""
    locked, default, names = None, None, dict[str, str]()
    for name, keys in observed.hosts.items():
        settings = {} if is_ours(owner, name) else _settings(keys.get("host"))
        if not settings.get("KeyPair"):
            continue
        pair = sealer.open(settings["KeyPair"])
        if pair is None:
            locked = name
            continue
        default = name if settings.get("Default") else default
        names |= dict.fromkeys(served_names(pair.chain), name)
    return Strangers(locked, default, names)


def settle(hosts: Hosts, others: Strangers) -> Hosts:
    """Return what of `hosts` can be written beside those of others, and complain of the rest."""
    settled = Hosts([], set(hosts.kept), dict(hosts.failed))
    for host in hosts.served:
        shared = sorted(served_names(host.pair.chain) & others.names.keys())
        if others.locked:
            why = f"{HOSTS}/{others.locked} is sealed with another key: is seal-key-file the -sealKey of vulcand?"
            settled.failed[host.subject] = why
        elif host.default and others.default:
            settled.failed[host.subject] = f"{HOSTS}/{others.default}, which is not ours, is the default already"
        elif shared:
            rival = f"{HOSTS}/{others.names[shared[0]]}"
            settled.failed[host.subject] = f"{rival}, which is not ours, has a certificate for {shared[0]} too"
        else:
            settled.served.append(host)
            continue
        settled.kept.add(host.id)
    return settled


def upserts(hosts: Iterable[Served], observed: Observed, sealer: Sealer) -> Iterator[tuple[str, Put]]:
    """Yield what each host lacks. One whose key pair is what it should be is not sealed anew."""
    for host in hosts:
        settings = _settings(observed.hosts.get(host.id, {}).get("host"))
        if settings.get("Default", False) is host.default and sealer.open(settings.get("KeyPair")) == host.pair:
            continue
        document = {"Name": host.id, "Settings": {"Default": host.default, "KeyPair": sealer.seal(host.pair)}}
        yield host.subject, Put(f"{HOSTS}/{host.id}/host", orjson.dumps(document).decode())


def orphans(owner: str, hosts: Hosts, observed: Observed) -> list[Drop]:
    """Return the deletion of hosts of ours that nobody wants."""
    wanted_ids: Set[str] = {host.id for host in hosts.served} | hosts.kept
    return [
        drop(HOSTS, name, keys)
        for name, keys in observed.hosts.items()
        if name not in wanted_ids and is_ours(owner, name)
    ]


def _settings(entry: Entry | None) -> Mapping[str, Any]:
    document = entry.document if entry is not None else None
    settings = document.get("Settings") if isinstance(document, dict) else None
    return settings if isinstance(settings, dict) else {}
