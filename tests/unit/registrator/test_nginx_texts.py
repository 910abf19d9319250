"""What is written for nginx, and how a line of it leads back to who wants it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coupler.registrator.balancers.nginx.config import NginxSettings, impossible, listening, render
from coupler.registrator.balancers.nginx.files import Files
from coupler.registrator.balancers.nginx.text import Subject, literal, name_of, quoted, regex, variable
from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Desired, Endpoint, Mode, Offer, Policy, Route, State, TcpRoute

SETTINGS = NginxSettings(
    Path("/etc/nginx/coupler"), Path("/etc/nginx/nginx.conf"), Path("/run/nginx.pid"), ("*:80",), tcp_address="::1"
)
WEB = Backend(
    "web",
    (
        Endpoint("b", "10.0.0.2", 80, weight=7),
        Endpoint("a", "fd00::1", 80),
        Endpoint("c", "10.0.0.3", 80, State.DRAIN),
        Endpoint("d", "10.0.0.4", 80, State.DOWN),
        Endpoint("e", "10.0.0.5", 80, weight=0),
    ),
)
DATABASE = Backend("db", (Endpoint("x", "10.0.0.9", 5432),), Mode.TCP, Policy(send_proxy=True, tunnel_timeout=60))
OFFER = Offer(
    (WEB, DATABASE, Backend("other", policy=Policy(rate_limit=3))),
    (Route("web", "web", "shop.test", "/A/b"), Route("other", "other", "*.shop.test", headers=(("X-A", "v"),))),
    (TcpRoute("db", "db", 5432),),
)


def desired(offer: Offer = OFFER) -> Desired:
    return merge([("t", offer)])


def part(text: str, head: str) -> list[str]:
    """Return the stripped lines of the block that begins with `head`."""
    lines = text.splitlines()
    start = lines.index(f"{head} {{")
    return [line.strip() for line in lines[start + 1 : lines.index("}", start)]]


def test_an_upstream_has_the_instances_that_are_ready() -> None:
    text = render(desired(), SETTINGS).texts().http
    assert part(text, "upstream coupler-web") == [
        "server [fd00::1]:80 weight=100 fail_timeout=2s;",
        "server 10.0.0.2:80 weight=7 fail_timeout=2s;",
        "keepalive 32;",
        "keepalive_timeout 1s;",
    ]
    assert "upstream coupler-other" not in text


def test_a_tcp_route_is_a_server_of_its_own() -> None:
    text = render(desired(), SETTINGS).texts().stream
    assert part(text, "server") == [
        "listen [::1]:5432;",
        "proxy_pass coupler-db;",
        "proxy_timeout 60000ms;",
        "proxy_protocol on;",
    ]
    assert listening(text) == {5432}
    proxied = render(desired(), replace(SETTINGS, accept_proxy=True, tcp_address="*")).texts().stream
    assert "listen *:5432 proxy_protocol;" in part(proxied, "server")
    assert listening(proxied) == {5432}


def test_the_files_do_not_depend_on_the_order_in_which_things_are_offered() -> None:
    backwards = Offer(OFFER.backends[::-1], OFFER.routes[::-1], OFFER.tcp_routes)
    texts = render(desired(), SETTINGS).texts()
    assert render(desired(backwards), SETTINGS).texts() == texts
    assert texts.generation in texts.http
    fewer = Offer((replace(WEB, endpoints=WEB.endpoints[:1]), *OFFER.backends[1:]), OFFER.routes, OFFER.tcp_routes)
    assert render(desired(fewer), SETTINGS).texts().generation != texts.generation
    without_tcp = Offer(OFFER.backends, OFFER.routes)
    assert render(desired(without_tcp), SETTINGS).texts().generation != texts.generation


def test_without_a_bind_for_http_nothing_is_served_there() -> None:
    text = render(desired(), replace(SETTINGS, http_binds=())).texts().http
    assert [line.partition(" ")[0] for line in text.splitlines()] == ["#", "server"]


def test_a_line_leads_to_who_wants_it_and_goes_with_them() -> None:
    rendered = render(desired(), SETTINGS)
    lines = rendered.texts().http.splitlines()
    entry = lines.index('    "shop.test/A/b" "/A/b coupler-web";') + 1
    route = rendered.blamed(entry, None)
    assert route == Subject("route web", ("web",))
    zone = next(number for number, line in enumerate(lines, 1) if line.startswith("limit_req_zone"))
    backend = rendered.blamed(zone, None)
    assert backend == Subject("backend other", ("other",))
    assert rendered.blamed(None, 3) == Subject("backend db", ("db",))
    assert rendered.blamed(1, None) is None
    assert rendered.blamed(len(lines) + 1, None) is None
    kept = rendered.without({route, backend}).texts().http
    assert "/A/b coupler-web" not in kept
    assert "limit_req" not in kept
    assert kept.count("{") == kept.count("}")


def test_what_cannot_be_is_named() -> None:
    told = Backend("told", policy=Policy(send_proxy=True))
    routes = (Route("u", "u", headers=(("A_B", "c"),)), Route("deep", "deep", path="/x" * 25))
    backends = (told, Backend("u"), Backend("deep"))
    assert impossible(desired(Offer(backends, routes))).keys() == {"told", "u", "deep"}
    exact = Route("deep", "deep", path="/x" * 25, exact=True)
    assert impossible(desired(Offer(backends[2:], (exact,)))) == {}


def test_names_differ_in_more_than_case() -> None:
    names = [name_of(text) for text in ("Web", "web", "WEB", "web-1", "web.1", "web_1", "web 1", name_of("Web")[8:])]
    assert len({name.lower() for name in names}) == len(names)
    assert all(name == name.lower() for name in names)
    assert len({variable("uri", name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (quoted('a"b\\n'), '"a\\"b\\\\n"'),
        (quoted(literal("$host")), '"${coupler_dollar}host"'),
        (regex("a.b$"), '"~^a\\\\.b\\\\$$"'),
    ],
)
def test_words_are_quoted(written: str, text: str) -> None:
    assert written == text


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("include /etc/nginx/coupler/coupler-http.conf;", True),
        ('http { include "coupler/coupler-http.conf" ; }', True),
        ("include coupler/coupler-http.conf.off;", False),
        ("# include coupler/coupler-http.conf;", False),
        ("include coupler/*.conf;", False),
    ],
)
def test_an_include_is_found_by_its_name(tmp_path: Path, line: str, found: bool) -> None:
    main = tmp_path / "nginx.conf"
    main.write_text(f"events {{}}\n{line.replace('/etc/nginx', str(tmp_path))}\n")
    settings = replace(SETTINGS, folder=tmp_path / "coupler", main=main)
    assert Files(settings).included(settings.http) is found
