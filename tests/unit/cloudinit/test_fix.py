"""Mending a document: what is mended, what stays, and when nothing is touched."""

import pytest

from coupler.cloudinit import check
from coupler.cloudinit.fix import UnfixableError, edited, fix
from coupler.cloudinit.grammar import Lineage
from coupler.errors import Edit, Severity

BROKEN = """\
#cloud-config
# kept: write-files: 0644 yes
write-files:   # a comment: off
  - path: /etc/a-b
    permissions: 0640  # unquoted
  - {path: /etc/c, permissions: '0o600'}
coreos:
  update:
    reboot-strategy:   off
  units:
    - name: docker.service
      enable: yes
      command: start
    - name: sshd.socket
      mask: "true"
"""
MENDED = """\
#cloud-config
# kept: write-files: 0644 yes
write_files:   # a comment: off
  - path: /etc/a-b
    permissions: "0640"  # unquoted
  - {path: /etc/c, permissions: "0600"}
coreos:
  update:
    reboot_strategy:   "off"
  units:
    - name: docker.service
      enable: true
      command: start
    - name: sshd.socket
      mask: true
"""


def test_everything_that_can_be_mended_is_and_the_rest_stays() -> None:
    fixed = fix(BROKEN, "f", Lineage.FLATCAR)
    assert fixed.text == MENDED
    assert fixed.left == ()
    assert {finding.code for finding in fixed.mended} == {
        "hyphenated-key",
        "unquoted-permissions",
        "octal-prefix",
        "boolean-word",
        "quoted-value",
    }


@pytest.mark.parametrize("lineage", Lineage)
@pytest.mark.parametrize("text", [BROKEN, BROKEN.replace("\n", "\r\n"), BROKEN.removesuffix("\n")])
def test_mended_twice_it_is_as_mended_once(text: str, lineage: Lineage) -> None:
    fixed = fix(text, "f", lineage)
    again = fix(fixed.text, "f", lineage)
    assert (again.text, again.mended) == (fixed.text, ())
    assert fixed.text == MENDED


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("write_files: []\nwrite-files: []\n", "two keys would become one"),
        ("write-files:\n  - path: [a]\n", "a key that was ignored would make Flatcar refuse the document"),
        ("coreos:\n  update:\n    reboot_strategy: &a off\n", "an anchor stands between key and value"),
        ("hostname: $private_ipv4\n", "nobody knows what was meant"),
        ("write_files:\n  - path: /a\n    permissions: 420\n", "nobody knows what was meant"),
    ],
)
def test_what_would_change_more_than_it_mends_stays(body: str, why: str) -> None:
    text = f"#cloud-config\n{body}"
    assert check(text, "f")
    assert fix(text, "f", Lineage.FLATCAR).text == text, why


def test_one_harmful_edit_does_not_keep_the_others_back() -> None:
    text = "#cloud-config\nwrite-files:\n  - path: [a]\ncoreos:\n  update:\n    reboot-strategy: off\n"
    fixed = fix(text, "f", Lineage.FLATCAR)
    assert fixed.text == text.replace("reboot-strategy: off", 'reboot_strategy: "off"')
    assert [finding.code for finding in fixed.left if finding.severity is Severity.ERROR] == ["hyphenated-key"]


@pytest.mark.parametrize(
    "text", ["", "#!/bin/sh\r\n", "hostname: a", "#cloud-config\n\tx: yes", "#cloud-config\n- [", "{}"]
)
def test_what_cannot_be_read_is_not_touched(text: str) -> None:
    with pytest.raises(UnfixableError):
        fix(text, "f", Lineage.FLATCAR)


def test_edits_never_overlap() -> None:
    assert edited("abcdef", [Edit(0, 1, "x"), Edit(3, 5, ""), Edit(2, 4, "no"), Edit(6, 6, "!")]) == "xbnoef!"
