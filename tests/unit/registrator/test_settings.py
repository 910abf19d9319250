"""The configuration file: what it may say, and where it is wrong.

Each file in `invalid/` begins with the code that it gives.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from coupler.errors import ConfigurationError
from coupler.registrator.settings import load

FILES = Path(__file__).parents[2] / "fixtures" / "registrator" / "settings"
PLACES = {
    "required-empty": "",
    "required-section": ":1:1",
    "required-key": ":3:5",
    "unknown-key": ":3:5",
    "twice": ":3:3",
    "type-mapping": ":1:10",
    "type-list": ":3:17",
    "type-text": ":3:18",
    "type-number": ":1:8",
    "yaml": ":2:13",
    "nothing-to-follow": ":1:1",
    "nothing-to-move": ":1:1",
    "choice-api": ":3:53",
}


def test_everything_that_a_file_says_is_read() -> None:
    settings = load(FILES / "valid" / "whole.yaml")
    assert (settings.listen, settings.audit) == ("[::1]:9102", 30.0)
    assert settings.precedence == ("announcements", "kubernetes")
    assert settings.sources.announcements is not None
    assert settings.sources.announcements.etcd.endpoints[1] == "https://10.0.0.2:2379"
    assert settings.sources.announcements.etcd.ca == Path("/etc/coupler/etcd-ca.pem")
    assert settings.sources.kubernetes is not None
    assert settings.sources.kubernetes.namespaces == ("shop", "1")
    assert settings.balancers.haproxy is not None
    assert settings.balancers.haproxy.http == ("*:80",)
    assert settings.balancers.nginx is not None
    assert settings.balancers.nginx.http == ("*:8080",)
    assert settings.balancers.vulcand is not None
    assert settings.balancers.vulcand.etcd.api == 2


def test_an_empty_selector_is_not_the_same_as_none() -> None:
    sources = load(FILES / "valid" / "ancestor.yaml").sources
    assert sources.kubernetes is not None
    assert sources.kubernetes.pods == ""
    assert sources.announcements is None


@pytest.mark.parametrize("file", sorted((FILES / "invalid").glob("*.yaml")), ids=lambda file: file.stem)
def test_what_is_wrong_is_found_with_its_place(file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    [finding] = caught.value.findings
    assert file.stem.startswith(finding.code)
    assert str(finding.location) == f"{file}{PLACES[file.stem]}"
    assert finding.message in str(caught.value.why)


def test_a_typo_gets_the_word_that_was_meant() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(FILES / "invalid" / "unknown-key.yaml")
    assert caught.value.findings[0].hint == "did you mean `namespaces`?"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"registrator\.yaml cannot be read"):
        load(tmp_path / "registrator.yaml")
