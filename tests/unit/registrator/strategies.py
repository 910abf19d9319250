"""Policies of every kind that the model allows."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from coupler.registrator.model import MAX_TIMEOUT, Backend, Balance, Mode, Policy, Redirect

_PATH_LETTERS = string.ascii_letters + string.digits + "._~!$&()*+,;=:@%/-"
_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "'")

paths = st.text(_PATH_LETTERS, max_size=12).map(lambda text: f"/{text}")
check_paths = st.text(_PATH_LETTERS + "?", max_size=12).map(lambda text: f"/{text}")
tokens = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
values = st.builds(
    lambda first, rest: f"{first}{rest}".rstrip(), st.sampled_from(_VISIBLE), st.text(f"{_VISIBLE} ")
).filter(lambda value: value != "}")
hosts = st.from_regex(r"\A(\*\.)?[a-z0-9_]{1,9}(\.[a-z0-9]{1,5})?\Z")
seconds = st.none() | st.floats(1e-5, MAX_TIMEOUT)
counts = st.none() | st.integers(1, 2**70)
redirects = st.builds(
    Redirect,
    st.sampled_from([None, "http", "https"]),
    st.none() | hosts,
    st.none() | st.integers(1, 65535),
    st.none() | paths,
    st.sampled_from([301, 302, 303, 307, 308]),
)
for_tcp = {
    "balance": st.sampled_from(Balance),
    "connect_timeout": seconds,
    "read_timeout": seconds,
    "tunnel_timeout": seconds,
    "tls": st.booleans(),
    "send_proxy": st.booleans(),
}
policies = st.builds(
    Policy,
    check_path=st.none() | check_paths,
    sticky_cookie=st.none() | tokens,
    max_body=counts,
    rate_limit=counts,
    replace_prefix=st.none() | st.tuples(paths, paths),
    set_headers=st.lists(st.tuples(tokens, values), max_size=3).map(tuple),
    remove_headers=st.lists(tokens, max_size=3).map(tuple),
    redirect=st.none() | redirects,
    **for_tcp,
)
backends = st.builds(lambda id_, policy: Backend(id_, policy=policy), st.text(min_size=1, max_size=9), policies) | (
    st.builds(
        lambda id_, policy: Backend(id_, (), Mode.TCP, policy),
        st.text(min_size=1, max_size=9),
        st.builds(Policy, **for_tcp),
    )
)
