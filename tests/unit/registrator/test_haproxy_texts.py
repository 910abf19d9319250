"""What is written for HAProxy, and what is read of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coupler.registrator.balancers.haproxy.config import Settings, backend_name, config_text, shape
from coupler.registrator.balancers.haproxy.maps import map_fills, parse_map
from coupler.registrator.balancers.haproxy.servers import (
    Proxies,
    Server,
    moves,
    parse_proxies,
    parse_servers,
    refused,
)
from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Endpoint, Offer, Policy, Route, State

SETTINGS = Settings(Path("/etc/haproxy/coupler.cfg"), ("*:80",))
COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port"
)
STATE = f"""1
# {COLUMNS}
2 theirs 1 a 127.0.0.1 2 0 1 1 1 1 0 2 0 0 0 0 - 81 - 0 0 - - 0
4 coupler-web:1 1 coupler-x 10.0.0.1 0 1 10 10 0 8 2 0 6 0 0 0 - 82 - 0 0 - - 0
4 coupler-web:1 2 coupler-y ::1 2 8 9 7 0 1 0 0 0 0 0 0 - 83 - 0 0 - - 0
"""


def test_servers_are_read_with_state_weight_and_check() -> None:
    assert parse_servers(STATE) == {
        "theirs": {"a": Server("127.0.0.1", 81, State.READY, 1, checked=False)},
        "coupler-web:1": {
            "coupler-x": Server("10.0.0.1", 82, State.DOWN, 10, checked=True),
            "coupler-y": Server("::1", 83, State.DRAIN, 9, checked=False),
        },
    }
    assert parse_servers("Can't find backend.") == {}


def test_proxies_and_maps_are_read() -> None:
    frontends = "# pxname,svname\ntheirs,FRONTEND,,\ncoupler-http:1,FRONTEND,,\n"
    backends = "# name\ntheirs\ncoupler-http:2\n"
    assert parse_proxies(backends, frontends) == Proxies(frozenset({"coupler-http:1"}), frozenset({"coupler-http:2"}))
    entries = asyncio.run(parse_map("0x1 shop.test/ coupler-web:1\n0x2 */a/ x\n"))
    assert entries == {"shop.test/": "coupler-web:1", "*/a/": "x"}


def upserts(backend: Backend, observed: dict[str, Server]) -> list[str]:
    return [command for commands in moves(backend, observed) for command in commands]


def test_commands_are_the_difference() -> None:
    backend = Backend("web", (Endpoint("x", "10.0.0.1", 82, weight=10), Endpoint("y", "::1", 84, State.DRAIN, 9)))
    name = backend_name(backend)
    observed = parse_servers(STATE)["coupler-web:1"]
    assert upserts(backend, observed) == [
        f"set server {name}/coupler-x state ready",
        f"set server {name}/coupler-y addr ::1 port 84",
    ]
    assert upserts(backend, {}) == [
        f"add server {name}/coupler-x 10.0.0.1:82 weight 10 pool-purge-delay 500ms",
        f"set server {name}/coupler-x state ready",
        f"add server {name}/coupler-y [::1]:84 weight 9 pool-purge-delay 500ms",
        f"set server {name}/coupler-y state drain",
    ]


def test_a_checked_server_gets_traffic_after_its_check_is_enabled() -> None:
    commands = upserts(Backend("web", (Endpoint("x", "10.0.0.1", 82),), policy=Policy(check_path="/h")), {})
    assert [command.split()[0] for command in commands] == ["add", "enable", "set"]


def test_what_was_looked_at_is_taken_out_of_what_is_there() -> None:
    server = Server("127.0.0.1", 1, State.READY, 1, checked=False)
    have = {"coupler-x": server, "coupler-old": server, "guest": server}
    assert len(upserts(Backend("web", (Endpoint("x", "::1", 1), Endpoint("y", "::1", 1))), have)) == 4
    assert set(have) == {"coupler-old", "guest"}


def test_only_settings_change_the_name_of_a_backend() -> None:
    bare = Backend("web")
    assert backend_name(bare) == backend_name(Backend("web", (Endpoint("x", "::1", 1),)))
    others = [Policy(sticky_cookie="C"), Policy(check_path="/"), Policy(read_timeout=1)]
    assert (
        len({backend_name(backend) for backend in [bare, *(Backend("web", policy=policy) for policy in others)]}) == 4
    )


def test_the_file_is_whole_and_stable() -> None:
    endpoints = (
        Endpoint("x", "10.0.0.1", 82),
        Endpoint("y", "::1", 84, State.DRAIN),
        Endpoint("z", "::1", 8, State.DOWN),
    )
    desired = merge([("t", Offer((Backend("web", endpoints),), (Route("r", "web", "shop.test", "/a"),)))])
    outline = shape(desired, SETTINGS)
    name = backend_name(desired.backends["web"])
    text = config_text(desired, outline)
    assert text == config_text(desired, shape(desired, SETTINGS))
    assert text.endswith(
        f"\nbackend {name}\n  mode http\n  balance roundrobin\n  retries 3\n  option redispatch 1\n"
        "  http-request set-header X-Forwarded-For %[src]\n"
        "  http-request set-header X-Forwarded-Host %[req.hdr(host)]\n"
        "  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }\n"
        "  http-request set-header X-Forwarded-Proto https if { ssl_fc }\n"
        "  server coupler-x 10.0.0.1:82 weight 100 pool-purge-delay 500ms\n"
        "  server coupler-y [::1]:84 weight 0 pool-purge-delay 500ms\n"
        "  server coupler-z [::1]:8 weight 100 pool-purge-delay 500ms disabled\n"
    )
    assert outline.maps == {
        Path("/etc/haproxy/coupler-exact.map"): {},
        Path("/etc/haproxy/coupler-prefix.map"): {"shop.test/a/": name},
    }


def test_a_large_map_is_filled_in_pieces_that_fit() -> None:
    entries = {f"host-{n}.test/": "coupler-web:12345678" for n in range(1000)}
    fills = map_fills(Path("/m"), "7", entries)
    assert len(fills) > 1
    assert all(len(fill) < 16_000 for fill in fills)
    assert "".join(fill.partition("<<\n")[2] for fill in fills).count("\n") == 1000
    assert map_fills(Path("/m"), "7", {}) == []


def test_an_answer_says_whether_it_was_done() -> None:
    done = [
        ("add server b/s ::1:1", "New server registered."),
        ("del server b/s", "Server deleted."),
        ("set server b/s state ready", ""),
        (
            "set server b/s addr ::1 port 1",
            "no need to change the addr, port changed from '1' to '2' by 'stats socket'",
        ),
    ]
    assert not [pair for pair in done if refused(*pair)]
    not_done = [
        ("add server b/s ::1:1", "Already exists a server with the same name in backend."),
        ("del server b/s", "Server still has connections attached to it, cannot remove it."),
        ("set server b/s state ready", "No such server."),
        ("set server b/s addr ::1 port 1", "Invalid addr format"),
    ]
    assert [pair for pair in not_done if refused(*pair)] == not_done
