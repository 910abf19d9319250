"""Annotations: what each may be, what is said of others, and that nothing is ever raised."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coupler.registrator.model import Balance, Policy
from coupler.registrator.sources.kubernetes.annotations import (
    ANNOTATIONS,
    INGRESS,
    OF_ANCESTOR,
    POD,
    ROUTE,
    SERVICE,
    Asked,
    read,
)

OURS = "coupler.io/"


def asked(on: str = SERVICE, **values: str) -> Asked:
    return read(tuple((OURS + name.replace("_", "-"), text) for name, text in values.items()), OURS, on)


GOOD = {
    "host": ({"host": "A.example., *.b.example"}, "hosts", ("a.example", "*.b.example")),
    "path": ({"path": "/a/"}, "path", "/a/"),
    "exact": ({"exact": "TRUE"}, "exact", True),
    "port": ({"port": "http"}, "port", "http"),
    "tcp-port": ({"tcp_port": "5432"}, "tcp_port", 5432),
    "weight": ({"weight": "0"}, "weight", 0),
    "priority": ({"priority": "-5"}, "priority", -5),
    "canary-percent": ({"canary_percent": "100"}, "canary_percent", 100),
    "canary-header": ({"canary_header": "X-Canary:  always "}, "canary_header", ("x-canary", "always")),
    "tls-secret": ({"tls_secret": "shop.tls"}, "tls_secret", "shop.tls"),
    "redirect-to-ssl": ({"redirect_to_ssl": "true"}, "redirect", True),
    "hsts": ({"hsts": "1h"}, "hsts", 3600),
    "scheme": ({"scheme": "HTTPS"}, "policy", Policy(tls=True)),
    "balance": ({"balance": "leastconn"}, "policy", Policy(balance=Balance.LEASTCONN)),
    "sticky-cookie": ({"sticky_cookie": "SID"}, "policy", Policy(sticky_cookie="SID")),
    "sticky-cookie-true": ({"sticky_cookie": "true"}, "policy", Policy(sticky_cookie="coupler")),
    "sticky-cookie-false": ({"sticky_cookie": "false"}, "policy", Policy()),
    "check-path": ({"check_path": "/up?a=b"}, "policy", Policy(check_path="/up?a=b")),
    "connect-timeout": ({"connect_timeout": "500ms"}, "policy", Policy(connect_timeout=0.5)),
    "dial-timeout": ({"dial_timeout": "2"}, "policy", Policy(connect_timeout=2.0)),
    "read-timeout": ({"read_timeout": "1.5s"}, "policy", Policy(read_timeout=1.5)),
    "tunnel-timeout": ({"tunnel_timeout": "2h"}, "policy", Policy(tunnel_timeout=7200.0)),
    "websocket": ({"websocket": "true"}, "policy", Policy(tunnel_timeout=3600.0)),
    "websocket-with-its-own-time": (
        {"websocket": "true", "tunnel_timeout": "10m"},
        "policy",
        Policy(tunnel_timeout=600.0),
    ),
    "max-body": ({"max_body": "10m"}, "policy", Policy(max_body=10 * 2**20)),
    "max-body-Gi": ({"max_body": "1Gi"}, "policy", Policy(max_body=2**30)),
    "max-body-bytes": ({"max_body": "512"}, "policy", Policy(max_body=512)),
    "rate-limit": ({"rate_limit": "50"}, "policy", Policy(rate_limit=50)),
    "proxy-protocol": ({"proxy_protocol": "true"}, "policy", Policy(send_proxy=True)),
}


@pytest.mark.parametrize(("values", "field", "wanted"), GOOD.values(), ids=GOOD)
def test_a_good_annotation_is_read(values: dict[str, str], field: str, wanted: object) -> None:
    found = asked(**values)
    assert (found.complaints, found.broken) == ((), False)
    assert getattr(found, field) == wanted


def test_every_annotation_has_a_good_example_above() -> None:
    on_pods = {"backend", "drain-seconds"}
    assert set(ANNOTATIONS) - on_pods <= set(GOOD)
    assert asked(POD, backend="web", drain_seconds="30") == Asked(backend="web", drain_seconds=30.0)


BAD = {
    "host": "a b",
    "path": "relative",
    "exact": "maybe",
    "port": "Not A Port",
    "tcp-port": "0",
    "weight": "257",
    "priority": "1e3",
    "canary-percent": "101",
    "canary-header": "no colon",
    "tls-secret": "other/secret",
    "redirect-to-ssl": "1",
    "hsts": "-1",
    "scheme": "ftp",
    "balance": "source",
    "sticky-cookie": "a b",
    "check-path": "up",
    "connect-timeout": "0",
    "dial-timeout": "5 parsecs",
    "read-timeout": "99999999h",
    "tunnel-timeout": "",
    "websocket": "yes",
    "max-body": "0",
    "rate-limit": "0",
    "proxy-protocol": "v2",
}


@pytest.mark.parametrize(("name", "text"), BAD.items(), ids=BAD)
def test_a_bad_annotation_is_told_with_what_is_allowed(name: str, text: str) -> None:
    found = read(((OURS + name, text),), OURS, SERVICE)
    assert len(found.complaints) == 1
    assert found.complaints[0].startswith(f"{OURS}{name}: {text!r} cannot be used: ")
    assert found.complaints[0].endswith(f"allowed is {ANNOTATIONS[name].allowed}")
    assert found.broken == ANNOTATIONS[name].decisive
    assert found == Asked(complaints=found.complaints, broken=found.broken)


def test_a_bad_one_leaves_the_good_ones() -> None:
    found = asked(host="a.example", read_timeout="soon", balance="first")
    assert (found.hosts, found.policy, found.broken) == (("a.example",), Policy(balance=Balance.FIRST), False)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("read-timout", "did you mean coupler.io/read-timeout"),
        ("hots", "did you mean coupler.io/hsts or coupler.io/host?"),
        ("zzz", "known are host, "),
    ],
)
def test_an_unknown_annotation_is_told_with_the_nearest(name: str, says: str) -> None:
    found = read(((OURS + name, "x"),), OURS, SERVICE)
    assert says in found.complaints[0]


def test_annotations_of_others_are_nobodys_business() -> None:
    assert read((("example.com/host", "a b"), ("host", "a b")), OURS, SERVICE) == Asked()


@pytest.mark.parametrize(
    ("on", "name", "text"),
    [(POD, "canary-percent", "5"), (SERVICE, "drain-seconds", "5"), (INGRESS, "host", "a"), (ROUTE, "hsts", "5")],
)
def test_an_annotation_without_meaning_there_is_told(on: str, name: str, text: str) -> None:
    found = read(((OURS + name, text),), OURS, on)
    assert found.complaints == (f"{OURS}{name}: {text!r} has no meaning on objects of kind {on}",)
    assert not found.of_http


def test_the_prefix_is_the_sites_own() -> None:
    assert read((("balance.site/host", "a"), ("coupler.io/host", "b")), "balance.site/", POD).hosts == ("a",)


def test_what_a_service_says_of_its_policy_holds_unless_said_otherwise() -> None:
    base = (
        (f"{OURS}balance", "leastconn"),
        (f"{OURS}read-timeout", "5s"),
        (f"{OURS}max-body", "?"),
        (f"{OURS}host", "a"),
    )
    found = read(((f"{OURS}read-timeout", "9s"),), OURS, INGRESS, base)
    assert found == Asked(policy=Policy(balance=Balance.LEASTCONN, read_timeout=9.0))


def test_middlewares_are_passed_on_as_they_are() -> None:
    found = read(((f"{OURS}middleware.limit", '{"Type": "ratelimit"}'), (f"{OURS}middleware.bad", "{")), OURS, POD)
    assert [(one.id, one.document) for one in found.middlewares] == [("limit", '{"Type": "ratelimit"}')]
    assert found.complaints[0].startswith(f"{OURS}middleware.bad: '{{' cannot be used")


def test_the_ancestors_ssl_is_done_by_the_secret_that_is_named() -> None:
    old = ("serviceloadbalancer/lb.sslTerm", "true")
    assert "named by tls-secret" in read((old,), OURS, SERVICE).complaints[0]
    assert read((old, (f"{OURS}tls-secret", "web")), OURS, SERVICE) == Asked(tls_secret="web")


names = st.sampled_from(
    [OURS + name for name in ANNOTATIONS]
    + ["serviceloadbalancer/" + name for name in OF_ANCESTOR]
    + [f"{OURS}middleware.x", f"{OURS}other", "other"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # nothing is timed
@given(
    st.dictionaries(names, st.text(max_size=12) | st.integers().map(str) | st.sampled_from(list(BAD.values()))),
    st.sampled_from((POD, SERVICE, INGRESS, ROUTE)),
)
def test_whatever_is_written_nothing_is_raised_and_a_complaint_names_its_annotation(
    annotations: dict[str, str], on: str
) -> None:
    found = read(tuple(sorted(annotations.items())), OURS, on)
    assert all(any(text.startswith(f"{name}: ") for name in annotations) for text in found.complaints)
