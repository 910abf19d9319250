"""The desired state: what is refused, how offers are merged, which route takes a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from coupler.registrator.merge import merge, refresh
from coupler.registrator.model import (
    Backend,
    Certificate,
    Endpoint,
    Host,
    Mode,
    ModelError,
    Offer,
    Policy,
    Problem,
    Redirect,
    Route,
    TcpRoute,
)
from coupler.registrator.names import safe_name
from coupler.registrator.routing import explain

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Endpoint("e", "web.example", 80), "no IP address"),
        (lambda: Endpoint("e", "fe80::1%eth0", 80), "has a zone"),
        (lambda: Endpoint("", "10.0.0.1", 80), "no uid"),
        (lambda: Endpoint("e", "10.0.0.1", 0), "no port"),
        (lambda: Endpoint("e", "10.0.0.1", 65536), "no port"),
        (lambda: Endpoint("e", "10.0.0.1", 80, weight=257), "weight 257"),
        (lambda: Backend(""), "no id"),
        (lambda: Backend("b", (Endpoint("e", "10.0.0.1", 80),) * 2), "share a uid"),
        (lambda: Policy(check_path="/a b"), "no path to check"),
        (lambda: Policy(check_path="/a'\n"), "no path to check"),
        (lambda: Policy(sticky_cookie="a b"), "no name for a cookie"),
        (lambda: Policy(read_timeout=0), "read timeout"),
        (lambda: Policy(connect_timeout=float("nan")), "connect timeout"),
        (lambda: Policy(tunnel_timeout=1e9), "tunnel timeout"),
        (lambda: Policy(max_body=0), "a body of at most 0 bytes"),
        (lambda: Policy(rate_limit=-1), "a rate of -1"),
        (lambda: Policy(replace_prefix=("/a", "b c")), "'b c' is no path"),
        (lambda: Policy(set_headers=(("X", "a\nb"),)), "no value of a header"),
        (lambda: Policy(remove_headers=("X:",)), "no name of a header"),
        (lambda: Redirect(status=200), "no status of a redirect"),
        (lambda: Redirect(scheme="ftp"), "no scheme"),
        (lambda: Backend("b", mode=Mode.TCP, policy=Policy(check_path="/")), "check-path is for HTTP"),
        (lambda: Backend("b", mode=Mode.TCP, policy=Policy(sticky_cookie="C")), "is TCP"),
        (lambda: Host("a b"), "no host name"),
        (lambda: Host("a", hsts=-1), "HSTS"),
        (lambda: Certificate("no PEM", "either"), "cannot be used"),
        (lambda: Route("r", "b", "exa mple"), "no host name"),
        (lambda: Route("r", "b", "a.*.b"), "no host name"),
        (lambda: Route("r", "b", path="relative"), "no path"),
        (lambda: Route("r", "b", path="/a?b=c"), "no path"),
        (lambda: Route("r", "b", path="/a\nbackend evil"), "no path"),
        (lambda: Route("r", "b", headers=(("X Y", "v"),)), "no name of a header"),
        (lambda: Route("r", "b", headers=(("X", "it's"),)), "no value"),
        (lambda: Route("r", "b", headers=(("X", "}"),)), "no value"),
        (lambda: TcpRoute("r", "b", -1), "no port"),
    ],
)
def test_what_no_balancer_could_carry_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        make()


def test_values_have_one_form() -> None:
    assert Endpoint("e", "2001:DB8:0:0::1", 80).address == "2001:db8::1"
    route = Route("r", "b", "WWW.Example.org.", "/a/", headers=(("X-B", "2"), ("X-A", "1")))
    assert route.match == ("www.example.org", "/a", False, (("x-a", "1"), ("x-b", "2")))
    assert Route("r", "b", path="/a/", exact=True).path == "/a/"
    assert Backend("b", (Endpoint("2", "::1", 1), Endpoint("1", "::1", 1))).endpoints[0].uid == "1"


def test_names_are_safe_stable_and_apart() -> None:
    texts = ["web", "web-2", "Web", "a/b", "a b", "a-b", "x" * 60, "x" * 61, "ü", "", "a-b-12345678", "..", "web:1"]
    names = [safe_name(text) for text in texts]
    assert len(set(names)) == len(texts)
    assert all(name.isascii() and not set(name) & set("/: \n;,#") and len(name) <= 48 for name in names)
    assert names[0] == "web"
    assert safe_name(safe_name("a/b")) != safe_name("a/b"), "a name that looks like ours could be another's"


def test_the_source_named_first_has_a_backend_whole() -> None:
    one, two = Backend("b", (Endpoint("1", "::1", 1),)), Backend("b", (Endpoint("2", "::1", 1),))
    desired = merge([("first", Offer((one,))), ("second", Offer((two,)))])
    assert desired.backends == {"b": one}
    assert desired.problems == (Problem("backend b of second", "first has it already"),)


def test_conflicting_routes_go_by_priority_then_source_then_id() -> None:
    backends = (Backend("b"), Backend("c"), Backend("t", mode=Mode.TCP))
    low, other = Route("a", "b", "h"), Route("z", "c", "h")
    urgent = Route("urgent", "c", "h", priority=1)
    assert merge([("s", Offer(backends, (other, low)))]).routes == (low,)
    assert merge([("s", Offer(backends, (other,))), ("t", Offer((), (low,)))]).routes == (other,)
    desired = merge([("s", Offer(backends, (low,))), ("t", Offer((), (urgent, other)))])
    assert desired.routes == (urgent,)
    assert desired.problems == (Problem("route a of s", "route urgent takes the same requests"),)
    tcp = (TcpRoute("y", "t", 5), TcpRoute("x", "t", 5))
    assert merge([("s", Offer(backends, (), tcp))]).tcp_routes == (tcp[1],)


def test_a_route_that_leads_nowhere_is_left_out_and_said() -> None:
    backends = (Backend("b"), Backend("t", mode=Mode.TCP))
    desired = merge([("s", Offer(backends, (Route("r", "gone"), Route("q", "t", "h")), (TcpRoute("p", "b", 1),)))])
    assert (desired.routes, desired.tcp_routes) == ((), ())
    assert {problem.subject for problem in desired.problems} == {"route r of s", "route q of s", "route p of s"}


def test_a_route_that_leads_nowhere_does_not_hide_one_that_does() -> None:
    good = Route("z", "b", "h")
    assert merge([("s", Offer((Backend("b"),), (Route("a", "gone", "h"), good)))]).routes == (good,)


def test_endpoints_are_refreshed_and_the_rest_stays_the_same_object() -> None:
    one, other = Backend("b"), Backend("c")
    before = merge([("s", Offer((one, other), (Route("r", "b"),)))])
    more = Backend("b", (Endpoint("1", "::1", 1),))
    after = refresh(before, [("s", Offer((more, other))), ("t", Offer((one,)))], {"b"})
    assert after is not None
    assert after.backends == {"b": more, "c": other}
    assert after.routes is before.routes


@pytest.mark.parametrize(
    "backends",
    [(), (Backend("b", mode=Mode.TCP),), (Backend("b", policy=Policy(rate_limit=1)),), (Backend("b"), Backend("new"))],
)
def test_more_than_endpoints_is_no_refresh(backends: tuple[Backend, ...]) -> None:
    before = merge([("s", Offer((Backend("b"),)))])
    assert refresh(before, [("s", Offer(backends))], {"b", "new"} & ({b.id for b in backends} | {"b"})) is None


def test_of_two_hosts_with_one_name_the_source_named_first_counts() -> None:
    offers = [("s", Offer(hosts=(Host("A.test", redirect=True),))), ("t", Offer(hosts=(Host("a.test"), Host("b"))))]
    desired = merge(offers)
    assert desired.hosts == (Host("a.test", redirect=True), Host("b"))
    assert desired.problems == (Problem("host a.test of t", "s says how it is served"),)


@pytest.mark.parametrize(
    ("host", "path", "headers", "taken"),
    [
        ("shop.test", "/", {}, "shop"),
        ("SHOP.test:8080", "/?a=/cart", {}, "shop"),
        ("shop.test", "/cart", {}, "cart"),
        ("shop.test", "/cart/1", {}, "cart"),
        ("shop.test", "/carts", {}, "shop"),
        ("shop.test", "/cart", {"x-canary": "yes"}, "canary"),
        ("shop.test", "/cart", {"X-Canary": "no"}, "cart"),
        ("shop.test", "/exact", {}, "exact"),
        ("shop.test", "/exact/", {}, "shop"),
        ("a.shop.test", "/", {}, "wild"),
        ("a.b.shop.test", "/", {}, None),
        ("other", "/any/x", {}, "any"),
    ],
)
def test_the_first_route_of_the_order_takes_the_request(
    host: str, path: str, headers: dict[str, str], taken: str | None
) -> None:
    routes = [
        Route("any", "b", path="/any"),
        Route("wild", "b", "*.shop.test"),
        Route("shop", "b", "shop.test"),
        Route("cart", "b", "shop.test", "/cart"),
        Route("canary", "b", "shop.test", "/cart", headers=(("X-Canary", "yes"),)),
        Route("exact", "b", "shop.test", "/exact", exact=True),
    ]
    considered = explain(routes, host, path, headers)
    assert [entry.takes for entry in considered[:-1]] == [False] * len(considered[:-1])
    assert (considered[-1].route.id if considered and considered[-1].takes else None) == taken
