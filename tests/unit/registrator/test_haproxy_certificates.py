"""Certificates on their way into HAProxy: nothing but PEM gets through, and the difference is what is sent."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.certificates import certificate

from coupler.registrator.balancers.haproxy.certificates import (
    Entry,
    Observed,
    delisting,
    entries,
    fingerprint,
    list_text,
    listed_well,
    loading,
    outdated,
    parse_fingerprint,
    parse_list,
    pem,
    surplus,
)
from coupler.registrator.model import Certificate, Host

OWN, OTHER = certificate("own.test"), certificate("other.test")
FOLDER = Path("/c")
LIST = Path("/list")


@pytest.fixture
def entry() -> Entry:
    return Entry("own.test", FOLDER / "own.test.pem", OWN)


@given(st.lists(st.sampled_from(["\n", "\n\n", "show info\n", "# x\n", " \n", "\r\n", "-----BEGIN X-----\n"])))
def test_only_certificates_and_their_key_get_through(noise: list[str]) -> None:
    text = "".join(noise)
    noisy = object.__new__(Certificate)
    object.__setattr__(noisy, "chain", text + OWN.chain.replace("\n", "\r\n") + text + OTHER.chain + text)
    object.__setattr__(noisy, "key", f"{text}{OWN.key}{text}{OTHER.key}")
    assert pem(noisy) == OWN.chain + OTHER.chain + OWN.key
    assert "" not in pem(noisy).splitlines()


def test_a_blank_line_inside_a_block_ends_nothing() -> None:
    spread = object.__new__(Certificate)
    object.__setattr__(spread, "chain", OWN.chain.replace("\n", "\n\n"))
    object.__setattr__(spread, "key", OWN.key.replace("\n", "\n \n\n"))
    assert pem(spread) == OWN.pem


def test_the_fingerprint_is_that_of_the_servers_own_certificate() -> None:
    chain = Certificate(OWN.chain + OTHER.chain, OWN.key)
    expected = hashlib.sha1(ssl.PEM_cert_to_DER_cert(OWN.chain)).hexdigest().upper()
    assert fingerprint(chain) == expected
    assert parse_fingerprint(f"Status: Used\nSHA1 FingerPrint: {expected}\nSubject: /CN=x") == expected


def test_the_default_comes_first_and_answers_for_no_name_of_its_own() -> None:
    hosts = (Host("a.test", OWN), Host("*.a.test", OWN), Host("", OTHER), Host("bare.test"))
    listed = list_text(entries(hosts, FOLDER).values()).splitlines()
    assert [line.split(" ")[1] for line in listed] == ["!*", "*.a.test", "a.test"]
    assert len({line.split(" ")[0] for line in listed}) == 3
    assert all("*" not in line.split(" ")[0] for line in listed)


def test_a_list_is_read_with_its_lines() -> None:
    text = "# /list\n/c/default.pem:1 !*\n/c/a.pem:2 a.test\n/c/a.pem:4 b.test\n/c/n.pem:5\n"
    assert parse_list(text) == {
        "/c/default.pem": ((1, "!*"),),
        "/c/a.pem": ((2, "a.test"), (4, "b.test")),
        "/c/n.pem": ((5, ""),),
    }
    assert parse_list("didn't find the specified filename") is None


def test_what_differs_is_loaded_anew(entry: Entry) -> None:
    path, print_ = str(entry.path), fingerprint(OWN)
    same = Observed({path: ((1, "own.test"),)}, {path: print_}, {path: OWN.pem})
    assert not outdated(entry, same)
    assert listed_well(entry, same)
    assert outdated(entry, Observed(same.listed, {path: fingerprint(OTHER)}, same.stored))
    assert outdated(entry, Observed(same.listed, same.loaded, {}))
    assert [command.split(" ")[0] for command in loading(entry, same)] == ["set", "commit"]
    assert [command.split(" ")[0] for command in loading(entry, Observed())] == ["new", "set", "commit"]
    twice = Observed({path: ((1, "own.test"), (2, "own.test"), (3, "x.test"))}, same.loaded, same.stored)
    assert not listed_well(entry, twice)
    assert delisting({path: entry}, twice, FOLDER, LIST) == [
        f"del ssl crt-list {LIST} {path}:1",
        f"del ssl crt-list {LIST} {path}:3",
    ]


def test_what_is_not_ours_stays(entry: Entry) -> None:
    listed = {"/theirs.pem": ((1, "x"),), "/c/gone.pem": ((2, "y"),)}
    observed = Observed(listed, {"/theirs.pem": "F", "/c/old.pem": "F"})
    assert surplus({str(entry.path): entry}, observed, FOLDER) == ["/c/gone.pem", "/c/old.pem"]
    assert delisting({}, observed, FOLDER, LIST) == [f"del ssl crt-list {LIST} /c/gone.pem:2"]
