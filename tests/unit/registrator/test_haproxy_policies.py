"""A policy never leaves its lines, and HAProxy takes every one that the model allows."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.unit.registrator.strategies import backends, values

from coupler.registrator.balancers.haproxy.config import Settings, backend_name, config_text, shape
from coupler.registrator.balancers.haproxy.policy import backend_lines, server_options
from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Endpoint, Mode, Offer, Policy, Route, TcpRoute

BASE = "defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
WORDS = {
    "mode",
    "balance",
    "retries",
    "option",
    "timeout",
    "cookie",
    "dynamic-cookie-key",
    "stick-table",
    "http-request",
}


@given(backends)
def test_every_line_is_one_line_of_words_that_are_ours(backend: Backend) -> None:
    lines = backend_lines(backend)
    assert {line.split(" ")[0] for line in lines} <= WORDS
    for line in [*lines, server_options(backend)]:
        assert line.isprintable()
        assert line.count("'") % 2 == 0
        for unquoted in line.split("'")[::2]:
            assert not set(unquoted) & set('"\\#;$')


@given(backends, backends)
def test_two_treatments_are_two_names(one: Backend, other: Backend) -> None:
    other = Backend(one.id, (), other.mode, other.policy)
    same = (backend_lines(one), server_options(one)) == (backend_lines(other), server_options(other))
    assert (backend_name(one) == backend_name(other)) is same


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink such a list takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(backends, min_size=10, max_size=30, unique_by=lambda backend: backend.id), values)
def test_haproxy_takes_them_all(made: list[Backend], value: str) -> None:
    endpoint = Endpoint("e", "::1", 80)
    offered = tuple(Backend(backend.id, (endpoint,), backend.mode, backend.policy) for backend in made)
    routes = tuple(
        Route(f"r{n}", backend.id, f"h{n}.test", headers=(("x", value),) if n % 3 else ())
        for n, backend in enumerate(offered)
        if backend.mode is Mode.HTTP
    )
    tcp = tuple(TcpRoute(f"t{n}", b.id, 1000 + n) for n, b in enumerate(offered) if b.mode is Mode.TCP)
    desired = merge([("t", Offer(offered, routes, tcp))])
    with tempfile.TemporaryDirectory() as name:
        own = Settings(Path(name) / "coupler.cfg", ("127.0.0.1:80",), "127.0.0.1", ("127.0.0.1:443",))
        outline = shape(desired, own)
        own.config.write_text(BASE + config_text(desired, outline))
        own.certificate_list.write_text("")
        for path in outline.maps:
            path.write_text("")
        done = subprocess.run(["haproxy", "-c", "-f", str(own.config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_not_set_is_left_to_haproxy() -> None:
    words = " ".join(backend_lines(Backend("b", policy=Policy())))
    assert not [word for word in ("timeout", "cookie", "httpchk", "stick-table", "413", "redirect ") if word in words]
