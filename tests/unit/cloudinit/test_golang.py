"""Go's ways with text that the documents' meaning hangs on."""

import gzip

import pytest

from coupler.cloudinit.golang import (
    DecodeError,
    clean_path,
    decode_base64,
    decode_content,
    format_float,
    gunzip,
    is_request_uri,
    join_path,
    quote,
    to_bytes,
    to_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (1.5, "1.5"),
        (-0.25, "-0.25"),
        (999999.0, "999999"),
        (1000000.0, "1e+06"),
        (123456789.0, "1.23456789e+08"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1e100, "1e+100"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_float_is_printed_as_go_prints_it(value: float, text: str) -> None:
    assert format_float(value) == text


@pytest.mark.parametrize(
    ("path", "clean"),
    [("", "."), ("/", "/"), ("//a//b/", "/a/b"), ("a/../..", ".."), ("/../a", "/a"), ("./a/.", "a")],
)
def test_path_is_cleaned_by_text_alone(path: str, clean: str) -> None:
    assert clean_path(path) == clean


def test_joined_path_never_climbs_over_the_root() -> None:
    assert join_path("/", "../../etc/x") == "/etc/x"


def test_bytes_that_are_no_text_survive() -> None:
    assert to_bytes(to_text(b"a\xff\xc3\xa9")) == b"a\xff\xc3\xa9"


def test_quoting_escapes_what_is_not_printable() -> None:
    assert quote('a"\n\x01é\u2028\udcff') == '"a\\"\\n\\x01é\\u2028\\xff"'


@pytest.mark.parametrize(
    ("content", "position"),
    [("%", 0), ("QUJD%", 4), ("QQ", 0), ("QQ=", 3), ("QQ=A", 2), ("QQ==A", 4), ("QUI=\nQ", 5), ("=", 0)],
)
def test_bad_base64_is_refused_at_its_place(content: str, position: int) -> None:
    with pytest.raises(DecodeError, match=f"input byte {position}"):
        decode_base64(content)


def test_base64_may_be_broken_into_lines() -> None:
    assert decode_base64("QU\r\nJD\n") == b"ABC"


def test_truncated_gzip_gives_what_can_be_read() -> None:
    data = gzip.compress(b"a" * 1000 + b"b" * 1000)
    plain, problem = gunzip(data[:-9])
    assert problem == "unexpected EOF"
    assert plain is not None
    assert plain.startswith(b"a" * 1000)


def test_gzip_members_are_joined() -> None:
    assert gunzip(gzip.compress(b"a") + gzip.compress(b"b")) == (b"ab", None)


def test_unknown_encoding_is_refused() -> None:
    with pytest.raises(DecodeError, match='Unsupported encoding "rot13"'):
        decode_content("a", "rot13")


@pytest.mark.parametrize(
    "text", ["https://a.example/x", "http://10.0.0.1:80", "/path", "mailto:a", "http://[::1]:2379/"]
)
def test_request_uri_is_taken(text: str) -> None:
    assert is_request_uri(text)


@pytest.mark.parametrize("text", ["", "nowhere", "http://a b/", "http://a:port/", "a\nb", "http://a/%zz", ":a"])
def test_what_is_no_request_uri_is_refused(text: str) -> None:
    assert not is_request_uri(text)
