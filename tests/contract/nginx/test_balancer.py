"""The nginx adapter, held to a real nginx under a load of real requests."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.nginx.world import PatientLoad
from tests.contract.traffic import DEADLINE, App, eventually, free_port

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.nginx.adapter import WHOLE
from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Balance, Desired, Endpoint, Mode, Offer, Policy, Route, State, TcpRoute
from coupler.registrator.routing import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.nginx.world import Balancer

    from coupler.registrator.balancers import Applied
    from coupler.registrator.balancers.nginx.adapter import Nginx

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


def endpoint(app: App, **settings: Any) -> Endpoint:
    return Endpoint(app.app_name, "127.0.0.1", app.port, **settings)


def site(*endpoints: Endpoint, **settings: Any) -> Desired:
    backend = Backend("shop", endpoints, policy=Policy(**settings))
    return merge([("test", Offer((backend,), (Route("shop", "shop", "shop.test"),)))])


def together(*parts: Desired) -> Desired:
    return merge(
        [
            (str(number), Offer(tuple(part.backends.values()), part.routes, part.tcp_routes, part.hosts))
            for number, part in enumerate(parts)
        ]
    )


def tcp(app: App, port: int, **settings: Any) -> Desired:
    backend = Backend("raw", (endpoint(app),), Mode.TCP, Policy(**settings))
    return merge([("t", Offer((backend,), (), (TcpRoute("raw", "raw", port),)))])


def apply(nginx: Balancer, desired: Desired, failed: dict[str, str] | None = None) -> Nginx:
    adapter = nginx.adapter()
    done = asyncio.run(adapter.apply(desired, None, remove=True))
    assert done.failed == (failed or {})
    assert not done.pending
    return adapter


def test_a_new_backend_is_served_after_one_reload_and_nothing_else_is_disturbed(
    nginx: Balancer, apps: Callable[..., App]
) -> None:
    one, two = endpoint(apps("one")), endpoint(apps("two"))
    with PatientLoad(nginx.foreign_port) as foreign:
        assert nginx.ask().status == 404
        assert apply(nginx, site(one)).reloads == 1
        assert (nginx.ask().status, nginx.ask().body) == (200, "one")
        assert apply(nginx, site(one)).reloads == 0
        apply(nginx, site(one, two))
        assert {nginx.ask().body for _ in range(20)} == {"one", "two"}
        foreign.more()
    assert foreign.failures == []
    assert set(foreign.answers) == {"theirs-0", "theirs-1"}


def test_no_request_fails_however_often_nginx_reloads(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, two, three = (endpoint(apps(name)) for name in ("one", "two", "three"))
    apply(nginx, site(one))
    adapter = nginx.adapter()
    with PatientLoad(nginx.port, clients=6) as load:
        for desired in (
            site(one, two),
            site(two),
            site(two, three),
            site(three, balance=Balance.LEASTCONN),
            site(one),
        ) * 2:
            assert asyncio.run(adapter.apply(desired, None, remove=True)).changes == 1
            load.more(10)
    assert adapter.reloads == 10
    assert load.failures == []
    assert set(load.answers) == {"one", "two", "three"}


def test_an_instance_that_goes_finishes_its_requests(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, two = apps("one"), apps("two")
    apply(nginx, site(endpoint(one), endpoint(two)))
    two.delay = 0.5
    with PatientLoad(nginx.port) as load:
        eventually(lambda: two.served > 0, "no request reaches the second instance")
        apply(nginx, site(endpoint(one)))
        before = two.served
        load.more()
        assert two.served == before
    assert load.failures == []
    assert load.answers["two"] == two.served


@pytest.mark.parametrize("change", [{"state": State.DRAIN}, {"state": State.DOWN}, {"weight": 0}])
def test_what_drains_or_is_not_ready_gets_no_new_request(
    nginx: Balancer, apps: Callable[..., App], change: dict[str, Any]
) -> None:
    one, two = apps("one"), apps("two")
    both = site(endpoint(one), endpoint(two))
    apply(nginx, both)
    with PatientLoad(nginx.port) as load:
        apply(nginx, site(endpoint(one), endpoint(two, **change)))
        load.more(5)
        before = two.served
        load.more()
        assert two.served == before
        apply(nginx, both)
        eventually(lambda: two.served > before, "the instance does not come back")
    assert load.failures == []


def test_weights_share_out_requests_and_first_takes_all(nginx: Balancer, apps: Callable[..., App]) -> None:
    gone, one, two = apps("gone"), apps("one"), apps("two")
    apply(nginx, site(endpoint(one, weight=3), endpoint(two, weight=1)))
    assert len([1 for _ in range(80) if nginx.ask().body == "one"]) in range(54, 67)
    apply(nginx, site(endpoint(one), endpoint(two), balance=Balance.FIRST))
    assert {nginx.ask().body for _ in range(10)} == {"one"}
    gone.stop()
    apply(nginx, site(endpoint(gone), endpoint(two), balance=Balance.FIRST))
    assert {nginx.ask().body for _ in range(10)} == {"two"}


def test_a_backend_without_an_instance_is_unavailable(nginx: Balancer, apps: Callable[..., App]) -> None:
    apply(nginx, site())
    assert nginx.ask().status == 503
    apply(nginx, site(endpoint(apps("one"), state=State.DOWN), sticky_cookie="SRV"))
    assert nginx.ask().status == 503
    assert nginx.ask(host="elsewhere.test").status == 404


def test_a_request_that_may_be_repeated_goes_to_another_instance(nginx: Balancer, apps: Callable[..., App]) -> None:
    gone, one = apps("gone"), apps("one")
    apply(nginx, site(endpoint(gone), endpoint(one)))
    gone.stop()
    with PatientLoad(nginx.port) as load:
        load.more()
    assert load.failures == []
    assert set(load.answers) == {"one"}


def test_a_port_that_is_taken_harms_its_own_route_alone(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, other = apps("one"), apps("other")
    apply(nginx, site(endpoint(one)))
    with PatientLoad(nginx.port) as load:
        both = together(site(endpoint(one), read_timeout=5), tcp(one, other.port))
        apply(nginx, both, {"raw": f"cannot listen on 127.0.0.1:{other.port}: Address already in use"})
        load.more()
        other.stop()
        apply(nginx, both)
        assert nginx.ask(port=other.port).body == "one"
        assert apply(nginx, both).reloads == 0
    assert load.failures == []


def test_a_reload_that_nginx_gives_up_is_rolled_back(nginx: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    apply(nginx, site(endpoint(one)))
    text, generation = nginx.text(), nginx.generation()
    adapter = nginx.adapter(binds=(f"127.0.0.1:{nginx.port}", f"127.0.0.1:{apps('other').port}"), patience=4.0)
    with PatientLoad(nginx.port) as load:
        done = asyncio.run(adapter.apply(site(endpoint(one)), None, remove=True))
        load.more()
    assert list(done.failed) == [WHOLE]
    assert load.failures == []
    assert nginx.text() == text
    assert nginx.generation() == generation
    assert apply(nginx, site(endpoint(one))).reloads == 0


def test_a_configuration_that_nginx_refuses_is_never_in_place(nginx: Balancer, apps: Callable[..., App]) -> None:
    apply(nginx, site(endpoint(apps("one"))))
    text = nginx.text()
    main = nginx.main.read_text()
    nginx.main.write_text(main + "nonsense here;\n")
    with pytest.raises(BalancerError) as caught:
        apply(nginx, site(endpoint(apps("two"))))
    assert 'unknown directive "nonsense"' in str(caught.value.why)
    assert nginx.text() == text
    nginx.main.write_text(main.replace("include ours/coupler-http.conf;", ""))
    with pytest.raises(BalancerError, match="does not include"):
        apply(nginx, site(endpoint(apps("three"))))
    assert nginx.text() == text
    assert nginx.ask().body == "one"


def test_a_backend_that_nginx_refuses_is_left_out_alone(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, bad = apps("one"), apps("bad")
    backend = Backend("bad", (endpoint(bad),), policy=Policy(set_headers=(("X-Long", "x" * 5000),)))
    routes = (Route("bad", "bad", "bad.test"), Route("long", "shop", "a.test", "/" + "y" * 5000))
    shop = site(endpoint(one))
    desired = merge([("t", Offer((*shop.backends.values(), backend), (*shop.routes, *routes)))])
    adapter = nginx.adapter()
    done = asyncio.run(adapter.apply(desired, None, remove=True))
    assert done.failed.keys() == {"bad", "shop"}
    assert all("too long parameter" in why for why in done.failed.values())
    assert nginx.ask().body == "one"
    assert nginx.ask(host="bad.test").status == 503
    assert asyncio.run(adapter.drift(desired)) == frozenset()
    again = asyncio.run(adapter.apply(desired, frozenset(("bad",)), remove=True))
    assert (again.changes, again.failed) == (0, done.failed)


def test_what_nginx_cannot_do_fails_alone(nginx: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    told = Backend("told", (endpoint(one),), policy=Policy(send_proxy=True))
    routes = (
        Route("told", "told", "told.test"),
        Route("blurred", "shop", "shop.test", "/b", headers=(("X_Who", "a"),)),
        Route("deep", "deep", "shop.test", "/x" * 25),
    )
    deep = Backend("deep", (endpoint(one),))
    shop = site(endpoint(one))
    desired = merge([("t", Offer((*shop.backends.values(), told, deep), (*shop.routes, *routes)))])
    done = asyncio.run(nginx.adapter().apply(desired, None, remove=True))
    assert {name: why.partition(":")[0] for name, why in done.failed.items()} == {
        "told": "nginx does not speak the PROXY protocol to servers of HTTP",
        "shop": "route blurred",
        "deep": "route deep",
    }
    assert nginx.ask(host="told.test").status == 503
    assert nginx.ask("/b", **{"X-Who": "a"}).body == "one"


def test_tcp_goes_through_its_own_port(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, port = apps("one"), free_port()
    apply(nginx, tcp(one, port))
    assert nginx.ask(port=port).body == "one"
    apply(nginx, Desired())
    with pytest.raises(OSError, match="refused"):
        nginx.ask(port=port)


def test_instances_of_tcp_are_told_who_asks(nginx: Balancer) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:
        backend = Backend("raw", (Endpoint("e", *server.getsockname()),), Mode.TCP, Policy(send_proxy=True))
        apply(nginx, merge([("t", Offer((backend,), (), (TcpRoute("raw", "raw", port),)))]))
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
            client.sendall(b"hello")
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(DEADLINE)
                received = b""
                while not received.endswith(b"hello"):
                    received += accepted.recv(1024)
    assert received.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")


def test_a_tcp_backend_without_an_instance_closes_connections(nginx: Balancer) -> None:
    port = free_port()
    empty = merge([("t", Offer((Backend("raw", (), Mode.TCP),), (), (TcpRoute("raw", "raw", port),)))])
    apply(nginx, empty)
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize("nginx", ["accept-proxy"], indirect=True)
def test_who_connects_may_say_for_whom(nginx: Balancer, mirrors: Callable[..., Any]) -> None:
    mirror, port = mirrors(), free_port()
    raw = Backend("raw", (Endpoint("m", "127.0.0.1", mirror.port),), Mode.TCP)
    shop = site(Endpoint("m", "127.0.0.1", mirror.port))
    offer = Offer((*shop.backends.values(), raw), shop.routes, (TcpRoute("raw", "raw", port),))
    apply(nginx, merge([("t", offer)]))
    for asked, chain in ((nginx.port, "192.0.2.7"), (port, None)):
        with socket.create_connection(("127.0.0.1", asked), DEADLINE) as client:
            client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\nGET / HTTP/1.0\r\nHost: shop.test\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert b" 200 OK" in answer
        assert (b"192.0.2.7" in answer) is (chain is not None)


ROUTES = (
    ("any", {}),
    ("any-deep", {"path": "/deep/er"}),
    ("any-exact", {"path": "/x", "exact": True}),
    ("wild", {"host": "*.shop.test"}),
    ("wild-x", {"host": "*.shop.test", "path": "/x", "exact": True}),
    ("shop-a", {"host": "shop.test", "path": "/a"}),
    ("shop-A", {"host": "shop.test", "path": "/A"}),
    ("shop-Up", {"host": "shop.test", "path": "/Up"}),
    ("Shop-Exact", {"host": "shop.test", "path": "/Exact", "exact": True}),
    ("shop-ab", {"host": "shop.test", "path": "/a/b/"}),
    ("shop-ab-exact", {"host": "shop.test", "path": "/a/b/", "exact": True}),
    ("shop-money", {"host": "shop.test", "path": "/$host/(.*)+"}),
    ("shop-coded", {"host": "shop.test", "path": "/a%2Fb"}),
    ("shop-double", {"host": "shop.test", "path": "/a//b"}),
    ("shop-long", {"host": "shop.test", "path": f"/{'long' * 400}"}),
    ("canary", {"host": "shop.test", "path": "/a/b/c", "headers": (("X-Canary", "yes"),)}),
    ("canary-two", {"host": "shop.test", "path": "/a/b/c", "headers": (("X-Canary", "yes"), ("X-Who", "its"))}),
    ("canary-odd", {"host": "shop.test", "path": "/a/b/c", "headers": (("X-Canary", 'a$b"\\E\\d.'),), "priority": 1}),
    ("head", {"host": "head.test", "headers": (("X-Canary", "yes"),)}),
    ("wild-head", {"host": "*.shop.test", "path": "/deep", "headers": (("X-Canary", "no; drop"),)}),
)  # fmt: skip
HOSTS = ("shop.test", "SHOP.test:80", "a.shop.test", "a.b.shop.test", "other", "head.test")
PATHS = (
    "/", "/a", "/A", "/A/b", "/ab", "/a/b", "/a/b/", "/A/B/", "/a/b/c/d?q=/x", "/x", "/X", "/x/", "/deep", "/deep/er/",
    "/deep?/er", "/up", "/Up/x", "/UP", "/Exact", "/exact", "/$host/(.*)+/x", "/$host/", "/a%2Fb/c", "/a%2fb", "/a//b",
    "//a", "/a/./b", "/%61", f"/{'long' * 400}/x", f"/{'long' * 400}x",
)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"X-Canary": "yes"},
    {"x-canary": "YES"},
    {"X-Canary": "yes", "X-Who": "its"},
    {"X-Canary": 'a$b"\\E\\d.'},
    {"X-Canary": "no; drop"},
)


def test_nginx_routes_as_explain_says(nginx: Balancer, apps: Callable[..., App]) -> None:
    started = {name: apps(name) for name, _ in ROUTES}
    backends = tuple(Backend(name, (endpoint(app),)) for name, app in started.items())
    offer = Offer(backends, tuple(Route(name, name, **match) for name, match in ROUTES))  # type: ignore[arg-type]
    desired = merge([("t", offer)])
    assert desired.problems == ()
    apply(nginx, desired)
    taken, wrong = set(), []
    connection = HTTPConnection("127.0.0.1", nginx.port, timeout=DEADLINE)
    for host in HOSTS:
        for path in PATHS:
            for headers in HEADERS:
                said = explain(desired.routes, host, path, headers)
                assert said[-1].takes
                connection.request("GET", path, headers={"Host": host} | headers)
                answer = connection.getresponse()
                got = (answer.status, answer.read().decode())
                if got != (200, said[-1].route.backend):
                    wrong.append((host, path, headers, said[-1].route.backend, got))
                taken.add(said[-1].route.id)
    connection.close()
    assert wrong == []
    assert taken == {name for name, _ in ROUTES}


def test_many_routes_of_one_path_are_told_apart_by_their_headers(nginx: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    routes = tuple(Route(f"r{n}", "shop", "shop.test", "/x", headers=(("X-N", str(n)),)) for n in range(120))
    desired = merge([("t", Offer((Backend("shop", (endpoint(one),)),), routes))])
    apply(nginx, desired)
    assert nginx.ask("/x", **{"X-N": "119"}).body == "one"
    assert nginx.ask("/x", **{"X-N": "120"}).status == 404
    assert nginx.ask("/").status == 404


def test_many_routes_and_servers_are_moved_in_one_piece(nginx: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    endpoints = tuple(Endpoint(f"e-{n}", "127.0.0.1", one.port) for n in range(300))
    routes = tuple(Route(f"r-{n}", "shop", "shop.test", f"/some/long/path/number/{n}") for n in range(800))
    names = tuple(Route(f"h-{n}", f"b-{n}", f"h{n}.test") for n in range(1000))
    others = tuple(Backend(f"b-{n}", (endpoint(one),)) for n in range(1000))
    first = site(endpoints[0])
    apply(nginx, first)
    many = merge([("t", Offer((Backend("shop", endpoints), *others), (*routes, *first.routes, *names)))])
    with PatientLoad(nginx.port) as load:
        assert apply(nginx, many).reloads == 1
        load.more()
    assert load.failures == []
    assert nginx.ask(host="h999.test").body == "one"
    assert nginx.ask("/some/long/path/number/799/x").body == "one"
    assert asyncio.run(nginx.adapter().plan(many)) == []


def test_without_leave_to_remove_nothing_goes(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, two = endpoint(apps("one")), endpoint(apps("two"))
    apply(nginx, site(one, two))
    text, generation = nginx.text(), nginx.generation()
    adapter = nginx.adapter()
    for desired in (site(one), Desired()):
        done = asyncio.run(adapter.apply(desired, None, remove=False))
        assert done.pending == {WHOLE}
    asyncio.run(adapter.prepare(Desired()))
    assert not asyncio.run(adapter.apply(site(one, two), None, remove=False)).pending
    assert (nginx.text(), nginx.generation(), adapter.reloads) == (text, generation, 0)


def test_a_file_that_was_edited_is_drift_and_is_written_again(nginx: Balancer, apps: Callable[..., App]) -> None:
    desired = site(endpoint(apps("one")))
    adapter = apply(nginx, desired)
    assert asyncio.run(adapter.drift(desired)) == frozenset()
    text = nginx.text()
    nginx.settings().http.write_text(text + "# mine\n")
    assert asyncio.run(adapter.drift(desired)) == {WHOLE}
    assert "-# mine" in asyncio.run(adapter.plan(desired))
    assert asyncio.run(adapter.apply(desired, None, remove=True)).failed == {}
    assert nginx.text() == text
    assert asyncio.run(adapter.drift(desired)) == frozenset()


def test_a_process_that_runs_something_else_is_drift_and_is_reloaded(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, two = endpoint(apps("one")), endpoint(apps("two"))
    adapter = apply(nginx, site(one))
    old = nginx.text()
    asyncio.run(adapter.apply(site(two), None, remove=True))
    new = nginx.text()
    nginx.settings().http.write_text(old)
    assert nginx.process is not None
    nginx.process.send_signal(1)
    eventually(lambda: nginx.ask().body == "one", "nginx does not reload by somebody else's hand")
    nginx.settings().http.write_text(new)
    assert asyncio.run(adapter.drift(site(two))) == {WHOLE}
    assert asyncio.run(adapter.apply(site(two), None, remove=True)).changes == 1
    assert {nginx.ask().body for _ in range(10)} == {"two"}


def test_an_nginx_that_starts_again_is_another_one_with_the_same_state(
    nginx: Balancer, apps: Callable[..., App]
) -> None:
    one, two = endpoint(apps("one")), endpoint(apps("two"))
    adapter = apply(nginx, site(one))
    before = asyncio.run(adapter.identity())
    assert before is not None
    nginx.stop()
    assert asyncio.run(adapter.identity()) is None
    with pytest.raises(BalancerError, match="nginx is not running"):
        asyncio.run(adapter.apply(site(two), None, remove=True))
    nginx.start()
    assert asyncio.run(adapter.identity()) not in {None, before}
    assert nginx.ask().body == "two"
    assert asyncio.run(adapter.apply(site(two), None, remove=True)).changes == 0


def test_no_other_process_is_ever_told_to_reload(nginx: Balancer, apps: Callable[..., App]) -> None:
    adapter = apply(nginx, site(endpoint(apps("one"))))
    pid_file = nginx.settings().pid_file
    text = pid_file.read_text()
    pid_file.write_text(str(threading.get_native_id()))  # this very process: SIGHUP would end it
    assert asyncio.run(adapter.identity()) is None
    with pytest.raises(BalancerError, match="nginx is not running"):
        asyncio.run(adapter.apply(Desired(), None, remove=True))
    pid_file.write_text(text)
    assert asyncio.run(adapter.apply(Desired(), None, remove=True)).changes == 1


def test_moves_at_the_same_time_come_one_after_the_other(nginx: Balancer, apps: Callable[..., App]) -> None:
    one, two = endpoint(apps("one")), endpoint(apps("two"))
    adapter = nginx.adapter()

    async def both() -> list[Applied]:
        moves = (adapter.apply(site(e), None, remove=True) for e in (one, two))
        return await asyncio.gather(*moves)

    assert [done.changes for done in asyncio.run(both())] == [1, 1]
    assert {nginx.ask().body for _ in range(10)} == {"two"}
