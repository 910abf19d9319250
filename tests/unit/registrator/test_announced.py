"""What the values of announcements mean, and what is refused."""

from __future__ import annotations

import pytest

from coupler.registrator.model import Balance, Endpoint, Host, Mode, ModelError, Policy, Route, State, TcpRoute
from coupler.registrator.sources.announced import endpoint_of, service_of


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        (b"10.0.0.1:80", Endpoint("k", "10.0.0.1", 80)),
        (b" [fd00::1]:80\n", Endpoint("k", "fd00::1", 80)),
        (b'{"address": "10.0.0.1", "port": 80}', Endpoint("k", "10.0.0.1", 80)),
        (b'{"address": "::1", "port": 1, "weight": 7, "state": "drain"}', Endpoint("k", "::1", 1, State.DRAIN, 7)),
    ],
)
def test_an_instance_is_an_address_with_a_port(value: bytes, endpoint: Endpoint) -> None:
    assert endpoint_of("k", value) == endpoint


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "no address:port"),
        (b"10.0.0.1", "no address:port"),
        (b"web.example:80", "no IP address"),
        (b"10.0.0.1:99999", "no port"),
        (b"{", "no JSON"),
        (b'{"address": "10.0.0.1"}', "lacks port"),
        (b'{"address": "10.0.0.1", "port": "80"}', "port must be a whole number"),
        (b'{"address": "10.0.0.1", "port": true}', "port must be a whole number"),
        (b'{"address": "10.0.0.1", "port": 80, "state": "up"}', "state must be one of ready, drain, down"),
        (b"\xff\xfe:80", "no IP address"),
    ],
)
def test_what_is_no_instance_is_refused_with_the_reason(value: bytes, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        endpoint_of("k", value)
    assert says in f"{caught.value.what}: {caught.value.why}"


def test_a_service_is_served_under_its_name() -> None:
    assert service_of("shop", b"", "").routes == (Route("shop", "shop", "shop"),)
    assert service_of("shop", b"", "example.org").routes == (Route("shop", "shop", "shop.example.org"),)


def test_a_document_says_where_and_how() -> None:
    document = (
        b'{"host": "www.example.org", "path": "/shop", "exact": true, "priority": 2, "redirect-to-tls": true,'
        b' "hsts": 60, "balance": "leastconn", "check-path": "/health", "read-timeout": 5, "max-body": 9, "tls": true}'
    )
    service = service_of("shop", document, "")
    assert service.routes == (Route("shop", "shop", "www.example.org", "/shop", exact=True, priority=2),)
    assert service.host == Host("www.example.org", redirect=True, hsts=60)
    assert service.policy == Policy(Balance.LEASTCONN, "/health", read_timeout=5, max_body=9, tls=True)


def test_a_service_with_a_port_is_tcp() -> None:
    service = service_of("db", b'{"tcp-port": 5432, "send-proxy": true}', "")
    assert (service.mode, service.routes, service.tcp_routes) == (Mode.TCP, (), (TcpRoute("db", "db", 5432),))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"[]", "no JSON object"),
        (b'{"chek-path": "a"}', "did you mean 'check-path'?"),
        (b'{"tcp-port": 1, "path": "/"}', "path is for HTTP"),
        (b'{"balance": "best"}', "balance must be one of"),
        (b'{"path": "a"}', "no path"),
        (b'{"redirect": {}}', "there is no key 'redirect'"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_with_the_reason(document: bytes, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        service_of("shop", document, "")
    assert says in f"{caught.value.what}: {caught.value.why}"
