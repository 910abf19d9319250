"""What is pure in TLS for vulcand: key pairs sealed and opened, the file of the key, certificates, redirects."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.certificates import certificate
from tests.fakes.vulcand_tls import open_pair

from coupler.errors import ConfigurationError
from coupler.registrator.balancers.vulcand.certificates import covers, pair_of, served_names
from coupler.registrator.balancers.vulcand.redirects import Redirects, but_for
from coupler.registrator.balancers.vulcand.sealing import Pair, Sealer, read_key
from coupler.registrator.model import ACME_PATH, Host, ModelError, Route

RECORDING = json.loads((Path(__file__).parents[2] / "fixtures" / "vulcand" / "35-hosts.v3.json").read_text())
KEY = bytes(range(32))


def test_what_vctl_sealed_is_opened() -> None:
    value = json.loads(RECORDING["writes"][0]["value"])
    pair = Sealer(bytes.fromhex(RECORDING["seal_key"])).open(value["Settings"]["KeyPair"])
    assert pair is not None
    assert served_names(pair.chain) == {"a.example"}
    assert load_pem_private_key(pair.key, None)


def test_a_pair_is_sealed_as_vulcand_opens_it_and_never_twice_alike() -> None:
    pair = Pair(b"chain", b"key")
    sealed = {Sealer(KEY).seal(pair) for _ in range(10)}
    assert len(sealed) == 10
    for text in sealed:
        assert open_pair(text, KEY) == (b"chain", b"key")
        assert Sealer(KEY).open(text) == pair
        assert Sealer(bytes(32)).open(text) is None
    recorded = json.loads(base64.b64decode(json.loads(RECORDING["writes"][0]["value"])["Settings"]["KeyPair"]))
    ours = json.loads(base64.b64decode(sealed.pop()))
    assert ours.keys() == recorded.keys()
    assert ours["Value"].keys() == recorded["Value"].keys()
    assert len(base64.b64decode(ours["Value"]["Nonce"])) == len(base64.b64decode(recorded["Value"]["Nonce"])) == 24


def test_what_is_no_sealed_pair_is_not_opened() -> None:
    whole = json.loads(base64.b64decode(Sealer(KEY).seal(Pair(b"chain", b"key"))))
    wrong: list[object] = [None, 7, "", "x", "ü", {}, whole]
    damaged = [
        {**whole, "Encryption": "secretbox.v2"},
        {**whole, "Value": {**whole["Value"], "Nonce": "AAAA"}},
        {**whole, "Value": {**whole["Value"], "Val": "AAAA"}},
        {**whole, "Value": {"Val": whole["Value"]["Val"]}},
        {**whole, "Value": 7},
        {"Value": whole["Value"]},
        [whole],
    ]
    wrong += [base64.b64encode(json.dumps(each).encode()).decode() for each in damaged]
    assert [Sealer(KEY).open(each) for each in wrong] == [None] * len(wrong)


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("00" * 31, 0o600, "64 hexadecimal digits"),
        ("00" * 33, 0o600, "64 hexadecimal digits"),
        ("zz" * 32, 0o600, "64 hexadecimal digits"),
        ("", 0o600, "64 hexadecimal digits"),
        ("ü" * 64, 0o600, "no text"),
        ("00" * 32, 0o644, "0644"),
        ("00" * 32, 0o660, "0660"),
        (None, 0o600, "No such file"),
    ],
)
def test_a_file_that_is_no_key_or_open_to_others_is_refused(
    tmp_path: Path, text: str | None, mode: int, why: str
) -> None:
    path = tmp_path / "key"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        read_key(path)
    assert why in str(caught.value.why)
    assert str(path) in caught.value.what
    assert re.search(r"vctl secret new_key|chmod", str(caught.value.next_step))
    path.write_text("")
    path.chmod(0o640)
    path.write_text(f"{KEY.hex()}\n")
    assert read_key(path) == KEY


def keyed(made: object) -> str:
    return made.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()  # type: ignore[attr-defined]


def test_a_certificate_comes_in_one_form() -> None:
    made = certificate("a.test", "*.b.test")
    key = load_pem_private_key(made.key.encode(), None)
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    old = dataclasses.replace(
        made,
        chain=f"Bag Attributes: none\n{made.chain}".replace("BEGIN C", "BEGIN X509 C").replace("END C", "END X509 C"),
        key=parameters + keyed(key),
    )
    assert pair_of(old) == pair_of(made)
    names = served_names(pair_of(made).chain)
    assert names == {"a.test", "*.b.test"}
    assert [covers(names, name) for name in ("a.test", "x.b.test", "*.b.test", "b.test", "x.y.b.test")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("key", "read"),
    [
        (ec.generate_private_key(ec.SECP384R1()), True),
        (rsa.generate_private_key(65537, 2048), True),
        (ec.generate_private_key(ec.SECP256K1()), False),
        (ed25519.Ed25519PrivateKey.generate(), False),
    ],
    ids=["P-384", "RSA", "secp256k1", "Ed25519"],
)
def test_keys_that_some_vulcand_does_not_read_are_refused(key: object, read: bool) -> None:
    made = certificate("a.test", key=key)
    if read:
        assert served_names(pair_of(made).chain) == {"a.test"}
    else:
        with pytest.raises(ModelError, match="the key"):
            pair_of(made)


NAMES = st.sampled_from(
    ["", "a.test", "ab.test", "b.test", "*.test", "*.a.test", "b.a.test", "c-d.a.test", "test", "a"]
)
ASKED = [
    "a.test",
    "A.Test",
    "ab.test",
    "b.test",
    "abc.test",
    "x.test",
    "test",
    "a",
    "b",
    "b.a.test",
    "bb.a.test",
    "[::1]",
]
ASKED += [
    "x.a.test",
    "y.x.a.test",
    "d.a.test",
    "-d.a.test",
    "cc-d.a.test",
    "a.test.x",
    "atest",
    "other.invalid",
    "127.0.0.1",
]


@given(
    st.dictionaries(NAMES, st.booleans(), max_size=8),
    NAMES,
    st.sampled_from(ASKED),
    st.sampled_from(["", ":80", ":8080"]),
    st.sampled_from(["/", "/x?y", "/{{.Request}}", "//x/", f"{ACME_PATH}x", ACME_PATH[:-1], f"/x{ACME_PATH}"]),
    st.sampled_from(["", "http://whole.test"]),
)
def test_plain_requests_go_to_tls_as_their_host_wants(
    wanted: dict[str, bool], routed: str, host: str, port: str, path: str, whole: str
) -> None:
    name = host.lower()
    wild = "*." + name.partition(".")[2]
    if routed not in {"", name, wild}:
        return  # such a request does not come to the route
    hosts = [Host(each, redirect=way) for each, way in wanted.items()]
    to_tls = Redirects(hosts, 8443).of(Route("r", "b", routed))
    way = next((wanted[each] for each in (name, wild, "") if each in wanted), False)
    expected = way and not path.startswith(ACME_PATH)
    for scheme in ("http", "https"):
        url = f"{scheme}://{host}{port}{whole}{path}"
        found = re.fullmatch(to_tls["Regexp"], url) if to_tls else None
        assert bool(found) == (expected and scheme == "http")
        if found and to_tls:
            made = to_tls["Replacement"].replace("${1}", found[1])
            assert made == f"https://{host}:8443{{{{.Request.URL.RequestURI}}}}"


def test_a_route_whose_hosts_want_none_has_no_redirect() -> None:
    hosts = [Host("a.test", redirect=True), Host("b.test"), Host("", redirect=False)]
    assert Redirects(hosts).of(Route("r", "b", "b.test")) is None
    assert Redirects(hosts).of(Route("r", "b", "*.x.test")) is None
    assert Redirects(hosts).of(Route("r", "b", "c.test")) is None
    usual = Redirects(hosts).of(Route("r", "b", ""))
    assert usual is not None
    assert usual["Replacement"] == "https://${1}{{.Request.URL.RequestURI}}"


@given(st.text("/ab-.", min_size=1, max_size=5), st.text("/ab-.", max_size=8))
def test_all_but_a_beginning_is_spelled_out(start: str, text: str) -> None:
    assert bool(re.fullmatch(but_for(start), text)) is not text.startswith(start)
