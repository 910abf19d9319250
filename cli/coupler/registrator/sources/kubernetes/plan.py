"""What translations have in common: which endpoints a backend has, where routes lead, what holds for hosts.

Objects are translated into plans, and plans into backends. So a change of endpoints touches no object: the plans that
use them are looked up and carried out again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from coupler.registrator.model import Mode, ModelError, Policy, Route, TcpRoute
from coupler.registrator.sources.kubernetes.objects import Complaint

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.registrator.sources.kubernetes.objects import Key, Reference, Wish


class Group(NamedTuple):
    """Endpoints that are alike: a port (its name, "" for the unnamed one) of a Service, or pods of one name."""

    kind: str
    namespace: str
    name: str
    port: str = ""

    @property
    def owner(self) -> Group:
        """Return the group without its port: what changes of endpoints are told of."""
        return Group(self.kind, self.namespace, self.name)


OF_SERVICE, OF_PODS = "Service", "Pods"


@dataclass(frozen=True, slots=True)
class Part:
    """A share of a backend's requests, relative to the others, and who takes it; None for nobody that exists."""

    share: int
    group: Group | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A backend before its endpoints are known. `weight` is the one of each endpoint, where its pod has no own one."""

    id: str
    parts: tuple[Part, ...]
    mode: Mode = Mode.HTTP
    policy: Policy = field(default_factory=Policy)
    weight: int = 100


@dataclass(frozen=True, slots=True)
class Claim:
    """A route that an object asks for. Of two claims to the same requests the higher priority, then the older one wins.

    With `percent`, it takes that part of the requests of another object's claim, of the same namespace.
    """

    about: Reference
    created: str
    route: Route | TcpRoute
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class HostClaim:
    """What an object asks for a host: the Secret (namespace, name) with its certificate, `redirect` to TLS."""

    about: Reference
    created: str
    name: str
    secret: Key | None = None
    redirect: bool = False
    hsts: int | None = None


@dataclass(slots=True)
class Translation:
    """What objects come to, while they are gone through."""

    plans: dict[str, Plan] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    hosts: list[HostClaim] = field(default_factory=list)
    complaints: dict[Complaint, None] = field(default_factory=dict)
    wishes: list[Wish] = field(default_factory=list)

    def complain(self, about: Reference, message: str) -> None:
        """Say what is wrong with an object, once."""
        self.complaints.setdefault(Complaint(about, message))

    def claim(self, about: Reference, created: str, make: Callable[[], Route | TcpRoute], percent: int | None) -> bool:
        """Add the route that `make` returns, and complain where it cannot be; return whether it can."""
        try:
            self.claims.append(Claim(about, created, make(), percent))
        except ModelError as error:
            self.complain(about, error.what)
            return False
        return True

    def plan(self, plan: Plan) -> str:
        """Add a backend, and return its id. The same id means the same plan: ids are made of what plans are."""
        self.plans.setdefault(plan.id, plan)
        return plan.id
