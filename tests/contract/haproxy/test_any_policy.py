"""No policy that the model lets through makes a file that a real HAProxy refuses."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coupler.registrator.balancers.haproxy.config import Settings, config_text, shape
from coupler.registrator.model import Backend, Balance, Desired, Endpoint, Policy, Redirect

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")

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
    st.lists(st.tuples(_TOKENS, _TEXT.map(str.strip).filter(lambda text: text not in {"", "}"})), max_size=2).map(
        tuple
    ),
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
