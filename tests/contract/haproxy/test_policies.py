"""Every part of a policy, seen by a client and by an instance behind a real HAProxy."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.certificates import certificate
from tests.contract.haproxy.moving import apply, site
from tests.contract.traffic import App, Load, eventually, free_port

from coupler.registrator.balancers.haproxy.config import backend_name
from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Balance, Endpoint, Mode, Offer, Policy, Redirect, TcpRoute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.contract.haproxy.echo import Echo
    from tests.contract.haproxy.world import Balancer

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


def seen(haproxy: Balancer, path: str = "/", **headers: str) -> dict[str, Any]:
    """Return what the instance got of a request."""
    status, body = haproxy.get(path, **headers)
    assert status == 200, body
    told: dict[str, Any] = json.loads(body)
    return told


def answer(haproxy: Balancer, method: str = "GET", path: str = "/", **request: Any) -> tuple[int, str | None]:
    """Return status and Location."""
    connection = HTTPConnection("127.0.0.1", haproxy.port, timeout=15)
    try:
        headers = {"Host": "shop.test"} | request.pop("headers", {})
        connection.request(method, path, headers=headers, **request)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Location")
    finally:
        connection.close()


def test_an_instance_is_told_who_asked_and_how(haproxy: Balancer, echoes: Callable[..., Echo]) -> None:
    apply(haproxy, site(echoes()))
    forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.test"}
    headers = seen(haproxy, **forged)["headers"]
    assert {name: headers[f"x-forwarded-{name}"] for name in ("for", "proto", "host")} == {
        "for": "127.0.0.1",
        "proto": "http",
        "host": "shop.test",
    }


KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
AWKWARD = 'a%b %[src] \\n "q" {$HOME} ${HOME} #x \\'


@pytest.mark.parametrize("haproxy", ["spawn-tls"], indirect=True)
def test_headers_are_set_and_removed_to_the_letter(haproxy: Balancer, echoes: Callable[..., Echo]) -> None:
    policy = {"set_headers": (("X-New", AWKWARD), ("X-Forwarded-Proto", "https")), "remove_headers": ("X-Old",)}
    apply(haproxy, site(echoes(), **policy))
    headers = seen(haproxy, **{"X-Old": "1", "X-New": "2"})["headers"]
    assert headers["x-new"] == AWKWARD
    assert headers["x-forwarded-proto"] == "https"
    assert "x-old" not in headers


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ("/a", "/b", {"/a": "/b", "/a/": "/b/", "/a/x?y=/a": "/b/x?y=/a", "/ab": "/ab", "/x/a": "/x/a"}),
        ("/a/", "/", {"/a": "/", "/a/x/y": "/x/y", "/ab": "/ab"}),
        ("/", "/b/", {"/": "/b/", "/x?q": "/b/x?q"}),
        ("/$.(+)", "/%d/%5B", {"/$.(+)/x": "/%d/%5B/x", "/$x(+)/x": "/$x(+)/x"}),
    ],
)
def test_a_prefix_is_replaced_in_whole_segments(
    haproxy: Balancer, echoes: Callable[..., Echo], old: str, new: str, paths: dict[str, str]
) -> None:
    apply(haproxy, site(echoes(), replace_prefix=(old, new)))
    assert {path: seen(haproxy, path)["path"] for path in paths} == paths


@pytest.mark.parametrize(
    ("redirect", "asked", "location"),
    [
        (Redirect(scheme="https"), ("shop.test:81", "/a?b=c"), "https://shop.test/a?b=c"),
        (Redirect(scheme="https", port=8443), ("shop.test:81", "/"), "https://shop.test:8443/"),
        (Redirect(host="other.test", status=301), ("shop.test:81", "/a"), "http://other.test:81/a"),
        (Redirect(host="other.test", status=307), ("shop.test", "/a"), "http://other.test/a"),
        (Redirect(port=80, status=308), ("shop.test:81", "/a"), "http://shop.test/a"),
        (Redirect(path="/new%20'"[:-1], status=303), ("shop.test", "/old?q=1"), "http://shop.test/new%20?q=1"),
    ],
)
def test_a_redirect_changes_what_it_names(
    haproxy: Balancer, apps: Callable[..., App], redirect: Redirect, asked: tuple[str, str], location: str
) -> None:
    adapter = apply(haproxy, site(apps("unused"), redirect=redirect))
    assert answer(haproxy, path=asked[1], headers={"Host": asked[0]}) == (redirect.status, location)
    assert adapter.reloads == 1
    assert [name for name in haproxy.servers() if name.startswith("coupler-")] == []


def test_a_redirect_takes_the_replaced_prefix(haproxy: Balancer) -> None:
    apply(haproxy, site(redirect=Redirect(host="other.test"), replace_prefix=("/old", "/new")))
    assert answer(haproxy, path="/old/x?y") == (302, "http://other.test/new/x?y")


@pytest.mark.parametrize("haproxy", ["spawn-tls"], indirect=True)
def test_a_body_is_limited_and_must_announce_its_length(haproxy: Balancer, echoes: Callable[..., Echo]) -> None:
    apply(haproxy, site(echoes(), max_body=100_000))
    assert answer(haproxy, "POST", body=b"x" * 100_000)[0] == 200
    assert answer(haproxy, "POST", headers={"Content-Length": "100001"})[0] == 413
    assert answer(haproxy, "POST", headers={"Content-Length": "9223372036854775807"})[0] == 413
    assert answer(haproxy, "POST", headers={"Transfer-Encoding": "chunked"})[0] == 411
    assert answer(haproxy)[0] == 200


def test_a_body_without_a_limit_may_be_of_any_length(haproxy: Balancer, echoes: Callable[..., Echo]) -> None:
    apply(haproxy, site(echoes()))
    assert answer(haproxy, "POST", body=b"x" * 300_000)[0] == 200


def test_a_client_that_asks_too_often_is_told_so(haproxy: Balancer, apps: Callable[..., App]) -> None:
    apply(haproxy, site(apps("one"), rate_limit=5))
    assert [haproxy.get()[0] for _ in range(5)] == [200] * 5
    eventually(lambda: haproxy.get()[0] == 429, "no request is too many")
    eventually(lambda: haproxy.get()[0] == 200, "a client that goes on is never let in again")


@pytest.mark.parametrize("check", [None, "/health"])
@pytest.mark.parametrize("proxy", [False, True])
def test_instances_are_spoken_to_over_tls(
    haproxy: Balancer, echoes: Callable[..., Echo], tmp_path: Path, check: str | None, proxy: bool
) -> None:
    pem = tmp_path / "instance.pem"
    pem.write_text(certificate("instance").pem)
    one, two = echoes(pem, proxy=proxy), echoes(pem, proxy=proxy)
    policy = {"tls": True, "send_proxy": proxy, "check_path": check}
    apply(haproxy, site(one, **policy))
    added = apply(haproxy, site(one, two, **policy))
    assert added.reloads == 0, "the second instance came with a reload"
    for server, gone in (("e-0", "e-1"), ("e-1", "e-0")):
        name = backend_name(site(**policy).backends["shop"])
        haproxy.ask(f"set server {name}/coupler-{server} state ready; set server {name}/coupler-{gone} state maint")
        eventually(lambda: haproxy.get()[0] == 200, "the instance is not well")
        told = seen(haproxy, Host="shop.test:8080")
        assert told["name"] == "shop.test"
        assert told.get("source") == ("127.0.0.1" if proxy else None)


def test_tcp_instances_are_spoken_to_over_tls_with_a_proxy_header(
    haproxy: Balancer, echoes: Callable[..., Echo], tmp_path: Path
) -> None:
    pem = tmp_path / "instance.pem"
    pem.write_text(certificate("instance").pem)
    port = free_port()
    policy = Policy(Balance.LEASTCONN, tls=True, send_proxy=True, tunnel_timeout=5, connect_timeout=1.5)
    backend = Backend("raw", (Endpoint("e", "127.0.0.1", echoes(pem, proxy=True).port),), Mode.TCP, policy)
    apply(haproxy, merge([("t", Offer((backend,), (), (TcpRoute("raw", "raw", port),)))]))
    status, body = haproxy.get(port=port)
    assert (status, json.loads(body)["source"]) == (200, "127.0.0.1")


@pytest.mark.parametrize("haproxy", ["spawn", "master"], indirect=True)
def test_an_upgraded_connection_outlives_its_instance_and_a_reload(
    haproxy: Balancer, echoes: Callable[..., Echo], apps: Callable[..., App]
) -> None:
    one, two = echoes(), apps("two")
    apply(haproxy, site(one, tunnel_timeout=60))
    with socket.create_connection(("127.0.0.1", haproxy.port), 10) as client, client.makefile("rb") as stream:
        client.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + KEY)
        assert b"101" in stream.readline()
        while stream.readline() != b"\r\n":
            pass
        done = asyncio.run(haproxy.adapter().apply(site(two, tunnel_timeout=60), None, remove=True))
        assert done.pending == {"shop"}, "a server with a connection was deleted"
        client.sendall(b"ping\n")
        assert stream.readline() == b"ping\n"
        assert haproxy.get() == (200, "two")
        assert asyncio.run(haproxy.adapter().apply(site(two), None, remove=True)).failed == {}
        client.sendall(b"pong\n")
        assert stream.readline() == b"pong\n"


def test_behind_another_balancer_the_client_is_the_one_it_names(haproxy: Balancer, echoes: Callable[..., Echo]) -> None:
    apply(haproxy, site(echoes()), accept_proxy=True)
    with socket.create_connection(("127.0.0.1", haproxy.port), 10) as client, client.makefile("rb") as stream:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        length = 0
        while (line := stream.readline()) != b"\r\n":
            length = int(line.split()[1]) if line.lower().startswith(b"content-length") else length
        assert json.loads(stream.read(length))["headers"]["x-forwarded-for"] == "192.0.2.7"


def test_each_algorithm_is_taken(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    with Load(haproxy.foreign_port) as foreign:
        for balance in Balance:
            apply(haproxy, site(one, balance=balance))
            assert haproxy.get() == (200, "one")
        foreign.more()
    assert foreign.failures == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_http_2_bodies_are_limited_too(haproxy: Balancer, echoes: Callable[..., Echo]) -> None:
    one = echoes()
    apply(haproxy, site(one, max_body=10))
    curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--http2-prior-knowledge"]
    curl += ["-H", "Host: shop.test", "-X", "POST", f"http://127.0.0.1:{haproxy.port}/"]
    for body in (["-T", "-"], ["-d", "x" * 11]):  # HAProxy may reset the stream before curl has read the answer
        refused = subprocess.run([*curl, *body], input=b"x" * 20, capture_output=True, check=False)
        assert refused.stdout.decode() in {"000 0", "411 2", "413 2"}
    assert one.served == 0
    none = subprocess.run(curl, capture_output=True, check=False)
    assert none.stdout.decode() == "200 2"
