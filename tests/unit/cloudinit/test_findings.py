"""`check`: each rule finds what it is for, at its place, and nothing in a sound document."""

import base64

import pytest

from coupler.cloudinit import check
from coupler.cloudinit.grammar import Lineage
from coupler.errors import Severity

_SERVICE = "      content: |\n        [Service]\n        ExecStart=/bin/true\n"
_UNIT = "coreos:\n  units:\n    - name: a.service\n"
_KEY = "-----BEGIN RSA PRIVATE KEY-----"

SOUND = f"""#cloud-config
hostname: "node-1"
ssh_authorized_keys:
  - "ssh-ed25519 AAAA ops@example.org"
write_files:
  - path: "/etc/example.conf"
    permissions: "0640"
    owner: "root:root"
    content: |
      listen = 0.0.0.0
coreos:
  update:
    reboot_strategy: "etcd-lock"
  units:
    - name: "example.service"
      enable: true
      command: "start"
{_SERVICE}"""

CASES = {
    "hyphenated-key": ("write-files: []\n", 2, 1),
    "unquoted-permissions": ("write_files:\n  - path: /a\n    permissions: 0644\n", 4, 18),
    "special-bits": ('write_files:\n  - path: /a\n    permissions: "4755"\n', 4, 18),
    "boolean-word": ("coreos:\n  update:\n    reboot_strategy: off\n", 4, 22),
    "duplicate-key": ("hostname: a\nhostname: b\n", 3, 1),
    "empty-substitution": ("hostname: a-$private_ipv4\n", 2, 13),
    "missed-substitution": ("hostname: $private_ipv4$public_ipv4\n", 2, 24),
    "unit-name": ("coreos:\n  units:\n    - name: docker\n", 4, 13),
    "unit-path": ("coreos:\n  units:\n    - name: ../a.service\n", 4, 13),
    "drop-in-name": (f"{_UNIT}      drop_ins:\n        - name: 10-a\n          content: x\n", 6, 17),
    "unit-text": (f"{_UNIT}      content: |\n        [Service]\n        Type=oneshot\n", 5, 16),
    "masked-content": (f"{_UNIT}      mask: true\n{_SERVICE}", 6, 16),
    "masked-start": (f"{_UNIT}      mask: true\n      command: start\n", 6, 16),
    "unit-deadlock": (
        f"{_UNIT}      command: start\n      content: |\n        [Unit]\n        After=user-config.target\n"
        "        [Service]\n        ExecStart=/bin/true\n",
        5,
        16,
    ),
    "path-missing": ("write_files:\n  - content: a\n", 3, 5),
    "path-conflict": ("manage_etc_hosts: localhost\nwrite_files:\n  - path: /etc/hosts\n", 2, 19),
    "secret": (f"write_files:\n  - path: /a\n    content: |\n      {_KEY}\n", 5, 7),
    "empty-value": ("hostname:\n", 2, 1),
    "unknown-key": ("runcmd: []\n", 2, 1),
    "deprecated-key": ("coreos:\n  etcd2:\n    name: a\n", 3, 3),
    "wrong-type": ("coreos:\n  units:\n    - name: a.service\n      enable: yes\n", 5, 7),
    "invalid-value": ("coreos:\n  update:\n    reboot_strategy: nightly\n", 4, 5),
    "undecodable-content": ("write_files:\n  - path: /a\n    encoding: b64\n    content: '%'\n", 5, 5),
    "read-only-path": ("write_files:\n  - path: /usr/bin/a\n", 3, 3),
    "refused": ("users: 5\n", 2, 1),
    "yaml-syntax": ("coreos:\n\tunits: []\n", 3, 2),
    "discovery-url": ("coreos:\n  etcd:\n    discovery: nowhere\n", 4, 5),
    "misplaced-write-files": ("coreos:\n  write_files: []\n", 3, 3),
}


def test_sound_document_has_no_findings() -> None:
    assert check(SOUND, "cloud-config.yaml") == []


@pytest.mark.parametrize("code", CASES)
def test_rule_finds_its_fault_at_its_place(code: str) -> None:
    body, line, column = CASES[code]
    found = [finding for finding in check(f"#cloud-config\n{body}", "f.yaml") if finding.code == code]
    assert [(finding.location.line, finding.location.column) for finding in found] == [(line, column)]
    assert found[0].excerpt[-1][0] == line or line > body.count("\n") + 1


def test_no_cloud_config_at_all_is_said() -> None:
    assert [finding.code for finding in check("hostname: a\n", "f.yaml")] == ["unknown-format"]


def test_hyphens_are_an_error_on_flatcar_and_a_warning_on_classic_coreos() -> None:
    text = "#cloud-config\nmanage-etc-hosts: localhost\n"
    severities = {lineage: [finding.severity for finding in check(text, "f", lineage)] for lineage in Lineage}
    assert severities == {Lineage.FLATCAR: [Severity.ERROR], Lineage.COREOS: [Severity.WARNING]}


def test_silent_duplicate_on_classic_coreos_is_found() -> None:
    found = check("#cloud-config\nhostname: a\nhostname: b\n", "f", Lineage.COREOS)
    assert [(finding.code, finding.location.line) for finding in found] == [("duplicate-key", 3)]


def test_private_key_in_encoded_content_is_found() -> None:
    content = base64.b64encode(_KEY.encode()).decode()
    found = check(f"#cloud-config\nwrite_files:\n  - path: /a\n    encoding: b64\n    content: {content}\n", "f")
    assert [(finding.code, finding.location.line) for finding in found] == [("secret", 5)]


def test_escaped_variable_is_left_alone() -> None:
    assert check("#cloud-config\nhostname: \\$private_ipv4\n", "f") == []


def test_strategy_off_with_a_start_of_locksmithd_is_found() -> None:
    text = (
        '#cloud-config\ncoreos:\n  update:\n    reboot_strategy: "off"\n'
        "  units:\n    - name: locksmithd.service\n      command: start\n"
    )
    assert [(finding.code, finding.location.line) for finding in check(text, "f")] == [("masked-start", 7)]
