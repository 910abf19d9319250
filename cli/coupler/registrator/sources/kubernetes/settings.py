"""What of a cluster is balanced, and by which names."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from coupler.errors import ConfigurationError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CONTROLLER = "coupler.io/registrator"
"""By this name classes of Ingress and Gateway say that they are ours."""


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """What is followed, and how what we write is signed.

    `pods` is a label selector ("" for all pods), None not to look at pods. `namespaces` are the only ones looked at;
    empty for all. `ingress_class` is a class that is ours also without an object IngressClass. Services of type
    LoadBalancer are taken if their class is `load_balancer_class` or, with `classless`, if they have none; they get
    addresses of `pool` (networks such as 192.0.2.0/28, ranges such as 192.0.2.10-192.0.2.20, addresses), or
    `published` where it is empty. `published` are the addresses (or names) at which the balancer is reached: they
    are written into the status of Ingresses and Gateways. `http_ports` and `https_ports` are where it listens.
    """

    pods: str | None = None
    namespaces: tuple[str, ...] = ()
    services: bool = True
    ingress: bool = True
    gateway: bool = True
    load_balancer: bool = True
    prefix: str = "coupler.io/"
    controller: str = CONTROLLER
    ingress_class: str = "coupler"
    load_balancer_class: str = CONTROLLER
    classless: bool = True
    pool: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    http_ports: frozenset[int] = frozenset((80,))
    https_ports: frozenset[int] = frozenset((443,))

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/") or self.prefix == "/":
            raise ConfigurationError(
                f"{self.prefix!r} is no prefix of annotations", None, "give a name and a slash, such as coupler.io/"
            )
        for text in self.pool:
            parse_range(text)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Return how annotations that concern us begin."""
        return self.prefix, "serviceloadbalancer/"

    def reached(self) -> list[dict[str, str]]:
        """Return `published` as a status.loadBalancer.ingress lists it."""
        return [{"ip" if is_address(text) else "hostname": text} for text in self.published]


def is_address(text: str) -> bool:
    """Return whether `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_range(text: str) -> tuple[Address, Address]:
    """Return the first and the last address of a network, a range or an address. Raises ConfigurationError."""
    try:
        first, dash, last = text.partition("-")
        if dash:
            start, end = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
        else:
            network = ipaddress.ip_network(text.strip())
            start, end = network[0], network[-1]
            # the first and the last of a network are not for hosts, where it has any others (RFC 950, RFC 3021)
            if isinstance(network, ipaddress.IPv4Network) and network.prefixlen <= _LAST_WITH_BROADCAST:
                start, end = network[1], network[-2]
        if start.version != end.version or int(start) > int(end):
            raise ValueError("the first address is not before the last")
    except ValueError as error:
        raise ConfigurationError(
            f"the pool has {text!r}", str(error), "write it as 192.0.2.0/28, 192.0.2.10-192.0.2.20 or 192.0.2.7"
        ) from None
    return start, end


_LAST_WITH_BROADCAST = 30
