"""What a policy says is what a real HAProxy does; and no policy makes a file that it refuses."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.certificates import get
from tests.contract.haproxy.test_balancer import apply
from tests.contract.traffic import App, free_port

from coupler.registrator.balancers.haproxy.config import Settings, config_text, shape
from coupler.registrator.merge import merge
from coupler.registrator.model import (
    Backend,
    Balance,
    Desired,
    Endpoint,
    Mode,
    Offer,
    Policy,
    Redirect,
    Route,
    TcpRoute,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.contract.haproxy.world import Balancer

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


def site(*apps: App, path: str = "/", **policy: Any) -> Desired:
    endpoints = tuple(Endpoint(app.app_name, "127.0.0.1", app.port) for app in apps)
    backend = Backend("shop", endpoints, policy=Policy(**policy))
    return merge([("t", Offer((backend,), (Route("shop", "shop", "shop.test", path),)))])


def test_a_client_that_asks_too_often_is_told_so(haproxy: Balancer, apps: Callable[..., App]) -> None:
    apply(haproxy, site(apps("one"), rate_limit=5))
    answers = [haproxy.get()[0] for _ in range(20)]
    assert answers[:5] == [200] * 5
    assert 429 in answers


def test_a_body_that_is_too_large_or_of_unknown_length_is_refused(haproxy: Balancer, apps: Callable[..., App]) -> None:
    apply(haproxy, site(apps("one"), max_body=100))

    def post(head: str, body: str) -> bytes:
        with socket.create_connection(("127.0.0.1", haproxy.port), timeout=10) as client:
            client.sendall(f"POST / HTTP/1.1\r\nHost: shop.test\r\n{head}\r\n\r\n{body}".encode())
            return client.recv(1000)[:12]

    assert post("Content-Length: 100", "x" * 100) == b"HTTP/1.1 200"
    assert post("Content-Length: 101", "x" * 101) == b"HTTP/1.1 413"
    assert post("Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n") == b"HTTP/1.1 411"


def test_path_and_headers_change_on_their_way(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    policy = {
        "replace_prefix": ("/shop", "/v2"),
        "set_headers": (("X-Kind", "100% 'new'".replace("'", '"')),),
        "remove_headers": ("X-Secret",),
    }
    apply(haproxy, site(one, path="/shop", **policy))
    status, _, _ = get(haproxy.port, "shop.test", "/shop/cart?a=1", tls=False, headers={"X-Secret": "s"})
    assert (status, one.path) == (200, "/v2/cart?a=1")
    assert one.headers["x-kind"] == '100% "new"'
    assert "x-secret" not in one.headers
    assert (one.headers["x-forwarded-for"], one.headers["x-forwarded-proto"]) == ("127.0.0.1", "http")
    get(haproxy.port, "shop.test", "/shop", tls=False)
    assert one.path == "/v2"


@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        (Redirect("https", status=301), "https://shop.test/a?b=1"),
        (Redirect("https", port=8443), "https://shop.test:8443/a?b=1"),
        (Redirect(host="new.test", path="/b", port=80), "http://new.test/b?b=1"),
    ],
)
def test_a_redirect_answers_in_place_of_instances(haproxy: Balancer, redirect: Redirect, location: str) -> None:
    apply(haproxy, site(redirect=redirect))
    status, headers, _ = get(haproxy.port, "shop.test", "/a?b=1", tls=False)
    assert (status, headers["location"]) == (redirect.status, location)


def test_a_cookie_keeps_a_client_with_its_instance_even_while_it_drains(
    haproxy: Balancer, apps: Callable[..., App]
) -> None:
    apply(haproxy, site(apps("one"), apps("two"), apps("three"), sticky_cookie="INSTANCE"))
    _, headers, name = get(haproxy.port, "shop.test", tls=False)
    cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
    assert {get(haproxy.port, "shop.test", tls=False, headers=cookie)[2] for _ in range(9)} == {name}


def test_an_upgraded_connection_goes_both_ways(haproxy: Balancer, apps: Callable[..., App]) -> None:
    apply(haproxy, site(apps("one"), tunnel_timeout=60))
    with socket.create_connection(("127.0.0.1", haproxy.port), timeout=10) as client:
        head = "Host: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
        client.sendall(f"GET /ws HTTP/1.1\r\n{head}\r\nSec-WebSocket-Key: eCBjb3VwbGVyIGNoZWNrcw==\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 101")
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_an_instance_is_told_who_asks_by_the_proxy_protocol(haproxy: Balancer) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("raw", "127.0.0.1", listener.getsockname()[1])
        backend = Backend("raw", (endpoint,), Mode.TCP, Policy(send_proxy=True))
        apply(haproxy, merge([("t", Offer((backend,), (), (TcpRoute("raw", "raw", port),)))]))
        listener.settimeout(10)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"hello")
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                data = b""
                while len(data) < 28 + 5:
                    data += connection.recv(100)
    assert data.startswith(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11")
    assert data.endswith(b"hello")


_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="'"), min_size=1, max_size=12)
_PATHS = st.from_regex(r"/[A-Za-z0-9._~!$&()*+,;=:@%/-]{0,12}", fullmatch=True)
_TOKENS = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
_SECONDS = st.none() | st.floats(0.001, 86400)
_REDIRECTS = st.builds(
    Redirect,
    st.sampled_from((None, "http", "https")),
    st.sampled_from((None, "a.test")),
    st.none() | st.integers(1, 65535),
    st.none() | _PATHS,
    st.sampled_from((301, 302, 303, 307, 308)),
)
_POLICIES = st.builds(
    Policy,
    st.sampled_from(Balance),
    st.none() | _PATHS,
    _SECONDS,
    _SECONDS,
    _SECONDS,
    st.none() | _TOKENS,
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(1, 2**40),
    st.none() | st.integers(1, 2**30),
    st.none() | st.tuples(_PATHS, _PATHS),
    st.lists(st.tuples(_TOKENS, _TEXT.map(str.strip).filter(bool)), max_size=2).map(tuple),
    st.lists(_TOKENS, max_size=2).map(tuple),
    st.none() | _REDIRECTS,
)


@given(st.lists(_POLICIES, min_size=20, max_size=20))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_policy_makes_a_file_that_haproxy_refuses(tmp_path: Path, policies: list[Policy]) -> None:
    endpoint = Endpoint("e", "127.0.0.1", 1)
    backends = {str(n): Backend(str(n), (endpoint,), policy=policy) for n, policy in enumerate(policies)}
    desired, own = Desired(backends), Settings(tmp_path / "coupler.cfg")
    own.config.write_text(config_text(desired, shape(desired, own)))
    base = tmp_path / "base.cfg"
    base.write_text(
        "defaults\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
        "frontend theirs\n  mode http\n  bind 127.0.0.1:1\n"
    )
    argv = ["haproxy", "-c", "-f", str(base), "-f", str(own.config)]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_drift_is_found_in_pieces_and_nothing_is_changed(haproxy: Balancer, apps: Callable[..., App]) -> None:
    desired = site(apps("one"), apps("two"))

    async def run() -> None:
        adapter = haproxy.adapter()
        await adapter.apply(desired, None, remove=True)
        assert await adapter.drift(desired) == frozenset()
        [name] = [name for name in haproxy.servers() if name.startswith("coupler-")]
        haproxy.ask(f"set server {name}/coupler-one state maint")
        assert await adapter.drift(desired) == {"shop"}
        assert await adapter.drift(desired) == {"shop"}, "to look repairs nothing"
        await adapter.apply(desired, frozenset({"shop"}), remove=True)
        assert await adapter.drift(desired) == frozenset()
        haproxy.config.write_text(haproxy.config.read_text() + "# edited\n")
        drifted = await adapter.drift(desired)
        assert drifted
        done = await adapter.apply(desired, drifted, remove=True)
        assert not done.failed, drifted
        assert "edited" not in haproxy.config.read_text()
        haproxy.ask(f"clear map {haproxy.settings().map_path('prefix')}")
        drifted = await adapter.drift(desired)
        assert drifted
        await adapter.apply(desired, drifted, remove=True)
        assert haproxy.get()[0] == 200
        await adapter.close()

    asyncio.run(run())
