"""What the tests of the adapter share: small sites, and applying one until nothing is pending."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Desired, Endpoint, Host, Offer, Policy, Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.contract.haproxy.world import Balancer

    from coupler.registrator.balancers import Applied
    from coupler.registrator.balancers.haproxy.adapter import HAProxy


def site(*apps: Any, hosts: Iterable[Host] = (), name: str = "shop.test", **policy: Any) -> Desired:
    """Return one backend with these instances (anything with a port), and the route to it."""
    endpoints = tuple(Endpoint(getattr(app, "app_name", f"e-{n}"), "127.0.0.1", app.port) for n, app in enumerate(apps))
    backend = Backend("shop", endpoints, policy=Policy(**policy))
    return merge([("test", Offer((backend,), (Route("shop", "shop", name),), hosts=tuple(hosts)))])


async def settle(adapter: HAProxy, desired: Desired) -> Applied:
    """Apply until nothing is pending."""
    async with asyncio.timeout(15):
        while (done := await adapter.apply(desired, None, remove=True)).pending:
            await asyncio.sleep(0.02)
    assert not done.failed
    return done


def apply(haproxy: Balancer, desired: Desired, **settings: Any) -> HAProxy:
    """Apply with an adapter of its own, and return it."""
    adapter = haproxy.adapter(**settings)

    async def run() -> None:
        await settle(adapter, desired)
        await adapter.close()

    asyncio.run(run())
    return adapter
