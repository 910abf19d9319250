"""What a backend's policy asks for, held to a real nginx."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.certificates import certificate
from tests.contract.nginx.test_balancer import apply, endpoint, site
from tests.contract.nginx.world import PatientLoad
from tests.contract.traffic import DEADLINE, eventually

from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Desired, Endpoint, Offer, Policy, Redirect, Route, State
from coupler.registrator.names import digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.contract.nginx.world import Balancer, Mirror
    from tests.contract.traffic import App

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

EVERYTHING = Policy(
    connect_timeout=1.5,
    read_timeout=0.0004,
    tunnel_timeout=600,
    sticky_cookie="A-b_c",
    max_body=10,
    rate_limit=1,
    replace_prefix=("/a$b(", "/$c"),
    set_headers=(("X-Odd", 'a "quoted" $host; } \\n \\'), ("Host", "other.test"), ("X" * 64, "v")),
    remove_headers=("Accept",),
)


def of(mirror: Mirror, **settings: Any) -> Desired:
    return site(Endpoint("m", "127.0.0.1", mirror.port), **settings)


def test_policies_change_without_a_failure(nginx: Balancer, apps: Callable[..., App]) -> None:
    one = endpoint(apps("one"))
    apply(nginx, site(one))
    with PatientLoad(nginx.port) as load:
        for settings in ({"sticky_cookie": "SRV"}, {"read_timeout": 3.5, "max_body": 10}, {"rate_limit": 100_000}, {}):
            apply(nginx, site(one, **settings))
            load.more(20)
    assert load.failures == []


def test_nginx_takes_every_policy_with_the_oddest_texts(nginx: Balancer) -> None:
    backend = Backend('Odd "$x" {;}', (Endpoint("e", "::1", 1), Endpoint("f", "::1", 1)), policy=EVERYTHING)
    twin = Backend('odd "$x" {;}', (), policy=EVERYTHING)
    routes = (Route("o", backend.id, "*.odd.test"), Route("t", twin.id, "odd.test"))
    apply(nginx, merge([("t", Offer((backend, twin), routes))]))
    assert nginx.ask(host="x.odd.test").status == 502
    assert nginx.ask(host="odd.test").status == 503


def test_an_instance_is_told_for_whom_it_works(nginx: Balancer, mirrors: Callable[..., Mirror]) -> None:
    apply(nginx, of(mirrors()))
    answer = nginx.ask("/a/./b%2F?q=1&r=%20", "Shop.test:81", **{"X-Forwarded-For": "192.0.2.1", "Upgrade": "h2c"})
    assert answer.seen["path"] == "/a/./b%2F?q=1&r=%20"
    headers = answer.seen["headers"]
    assert headers["host"] == headers["x-forwarded-host"] == "Shop.test:81"
    assert headers["x-forwarded-for"] == "192.0.2.1, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert not {"upgrade", "connection"} & headers.keys()


def test_headers_are_set_and_removed(nginx: Balancer, mirrors: Callable[..., Mirror]) -> None:
    odd = 'a "b" $host; } \\n \\'
    changed = {"set_headers": (("X-Set", odd), ("host", "inner.test")), "remove_headers": ("X-Gone", "x-forwarded-for")}
    apply(nginx, of(mirrors(), **changed))
    headers = nginx.ask(**{"X-Set": "mine", "X-Gone": "1", "X-Stays": "2"}).seen["headers"]
    assert (headers["x-set"], headers["host"], headers["x-stays"]) == (odd, "inner.test", "2")
    assert headers["x-forwarded-proto"] == "http"
    assert not {"x-gone", "x-forwarded-for"} & headers.keys()


@pytest.mark.parametrize(
    ("replaced", "paths"),
    [
        (
            ("/api", "/v1/x"),
            {"/api": "/v1/x", "/api/": "/v1/x/", "/api/a?b": "/v1/x/a?b", "/apis": "/apis", "/api?q=/": "/v1/x?q=/"},
        ),
        (
            ("/api/", "/"),
            {"/api": "/", "/api/": "/", "/api/a%2Fb": "/a%2Fb", "/api?q": "/?q", "/": "/", "/x/api/": "/x/api/"},
        ),
        (("/", "/$v"), {"/": "/$v/", "/a?b": "/$v/a?b"}),
    ],
)
def test_a_prefix_of_the_path_is_replaced(
    nginx: Balancer, mirrors: Callable[..., Mirror], replaced: tuple[str, str], paths: dict[str, str]
) -> None:
    apply(nginx, of(mirrors(), replace_prefix=replaced))
    assert {path: nginx.ask(path).seen["path"] for path in paths} == paths


@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        (Redirect(scheme="https"), "https://shop.test/a?b=$c"),
        (Redirect(scheme="https", port=8443, status=307), "https://shop.test:8443/a?b=$c"),
        (Redirect(scheme="https", port=443, status=308), "https://shop.test/a?b=$c"),
        (Redirect(host="new.test", status=301), "http://new.test:8080/a?b=$c"),
        (Redirect(path="/$new", status=303), "http://shop.test:8080/$new?b=$c"),
    ],
)
def test_a_redirect_answers_in_place_of_instances(nginx: Balancer, redirect: Redirect, location: str) -> None:
    apply(nginx, site(redirect=redirect))
    answer = nginx.ask("/a?b=$c", "shop.test:8080")
    assert (answer.status, answer.headers["location"]) == (redirect.status, location)


def test_a_body_is_limited(nginx: Balancer, mirrors: Callable[..., Mirror]) -> None:
    apply(nginx, of(mirrors(), max_body=1000))
    assert nginx.ask(method="POST", body=b"x" * 1000).seen["body"] == 1000
    assert nginx.ask(method="POST", body=b"x" * 1001).status == 413


def test_requests_of_one_client_are_limited_for_that_backend_alone(nginx: Balancer, apps: Callable[..., App]) -> None:
    one = endpoint(apps("one"))
    shop = site(one, rate_limit=5)
    free = Backend("free", (one,))
    offer = Offer((*shop.backends.values(), free), (*shop.routes, Route("free", "free", "free.test")))
    apply(nginx, merge([("t", offer)]))
    statuses = [nginx.ask().status for _ in range(30)]
    assert statuses[:5] == [200] * 5
    assert 429 in statuses[5:]
    assert {nginx.ask(host="free.test").status for _ in range(30)} == {200}
    eventually(lambda: nginx.ask().status == 200, "the limit never lets up")


def test_a_slow_answer_is_given_up(nginx: Balancer, apps: Callable[..., App]) -> None:
    slow = apps("slow")
    slow.delay = 3.0
    apply(nginx, site(endpoint(slow), read_timeout=0.2))
    assert nginx.ask(method="GET").status == 504


def test_a_connection_is_upgraded_and_may_be_silent_for_its_own_time(
    nginx: Balancer, mirrors: Callable[..., Mirror]
) -> None:
    apply(nginx, of(mirrors(), read_timeout=0.3, tunnel_timeout=30))
    request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    with socket.create_connection(("127.0.0.1", nginx.port), DEADLINE) as client:
        client.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(1024)
        assert answer.startswith(b"HTTP/1.1 101 ")
        client.settimeout(1.0)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(DEADLINE)
        apply(nginx, of(mirrors()))
        client.sendall(b"still there")
        received = b""
        while len(received) < 11:
            received += client.recv(1024)
        assert received == b"still there"


def test_a_cookie_keeps_a_client_with_its_instance(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, two, three = apps("one"), apps("two"), apps("three")
    apply(nginx, site(endpoint(one), endpoint(two), sticky_cookie="S-id"))
    first = nginx.ask()
    assert first.headers["set-cookie"] == f"S-id={digest(first.body)}; Path=/; HttpOnly"
    cookie = {"Cookie": f"other=1; S-id={digest('two')}; x=y"}
    answers = [nginx.ask(**cookie) for _ in range(10)]
    assert {answer.body for answer in answers} == {"two"}
    assert not any("set-cookie" in answer.headers for answer in answers)
    draining = site(endpoint(one), endpoint(two, state=State.DRAIN), endpoint(three), sticky_cookie="S-id")
    apply(nginx, draining)
    assert {nginx.ask(**cookie).body for _ in range(10)} == {"two"}
    assert {nginx.ask().body for _ in range(20)} == {"one", "three"}
    assert nginx.ask(Cookie=f"s-id={digest('two')}").body != "two"
    apply(nginx, site(endpoint(two, state=State.DRAIN), sticky_cookie="S-id"))
    assert nginx.ask(**cookie).body == "two"
    assert nginx.ask().status == 503
    apply(nginx, site(endpoint(one), endpoint(two, state=State.DOWN), sticky_cookie="S-id"))
    moved = nginx.ask(**cookie)
    assert (moved.body, moved.headers["set-cookie"]) == ("one", f"S-id={digest('one')}; Path=/; HttpOnly")


def test_a_client_of_an_instance_that_fails_moves_to_another(nginx: Balancer, apps: Callable[..., App]) -> None:
    gone, one = apps("gone"), apps("one")
    apply(nginx, site(endpoint(gone), endpoint(one), sticky_cookie="SRV"))
    gone.stop()
    answer = nginx.ask(Cookie=f"SRV={digest('gone')}")
    assert (answer.status, answer.body) == (200, "one")
    assert answer.headers["set-cookie"].startswith(f"SRV={digest('one')};")


def test_instances_may_speak_tls(nginx: Balancer, mirrors: Callable[..., Mirror], tmp_path: Path) -> None:
    pem = tmp_path / "instance.pem"
    pem.write_text(certificate("instance.test").pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    mirror = mirrors(context)
    apply(nginx, of(mirror, tls=True))
    assert nginx.ask("/x?y").seen["path"] == "/x?y"
    apply(nginx, of(mirror, tls=True, sticky_cookie="SRV"))
    assert nginx.ask("/x?y", Cookie=f"SRV={digest('m')}").seen["path"] == "/x?y"


def test_an_answer_does_not_lead_into_another_backend(nginx: Balancer, apps: Callable[..., App]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        apply(nginx, site(Endpoint("e", *server.getsockname())))
        with socket.create_connection(("127.0.0.1", nginx.port), DEADLINE) as client:
            client.sendall(b"GET / HTTP/1.0\r\nHost: shop.test\r\n\r\n")
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(4096)
                accepted.sendall(
                    b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: /coupler-other\r\nContent-Length: 4\r\n\r\nmine"
                )
                assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"\r\n\r\nmine")


def test_what_an_instance_sends_goes_on_at_once(nginx: Balancer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        apply(nginx, site(Endpoint("e", *server.getsockname())))
        with socket.create_connection(("127.0.0.1", nginx.port), DEADLINE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(4096)
                accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
                received = b""
                while b"data: 1" not in received:
                    received += client.recv(4096)


def test_drift_is_none_with_every_policy(nginx: Balancer, apps: Callable[..., App]) -> None:
    desired = site(endpoint(apps("one")), sticky_cookie="SRV", rate_limit=3, replace_prefix=("/a", "/b"))
    adapter = apply(nginx, desired)
    assert asyncio.run(adapter.drift(desired)) == frozenset()
    assert asyncio.run(adapter.plan(desired)) == []
