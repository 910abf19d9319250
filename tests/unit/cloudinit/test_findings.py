"""`check`: each rule finds what it is for, at its place, and nothing in a sound document."""

import base64
import gzip
from pathlib import Path

import pytest

from coupler.cloudinit import check, check_data
from coupler.cloudinit.grammar import Lineage
from coupler.errors import Severity

_SERVICE = "      content: |\n        [Service]\n        ExecStart=/bin/true\n"
_UNIT = "coreos:\n  units:\n    - name: a.service\n"
_GOLDEN = Path(__file__).parents[2] / "golden" / "documents"
_KEY = "-----BEGIN RSA PRIVATE KEY-----"

SOUND = f"""#cloud-config
hostname: "node-1"
ssh_authorized_keys:
  - "ssh-ed25519 AAAAC3Nz ops@example.org"
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
{_SERVICE}        [Install]
        WantedBy=multi-user.target
"""

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
    "path-folder": ("write_files:\n  - path: /etc/a\n  - path: /etc/a/b\n", 4, 11),
    "decimal-permissions": ("write_files:\n  - path: /a\n    permissions: 420\n", 4, 18),
    "octal-prefix": ("write_files:\n  - path: /a\n    permissions: 0o644\n", 4, 18),
    "quoted-value": (f"{_UNIT}      enable: 'true'\n", 5, 15),
    "dos-line-ends": ("hostname: a\r\n", 2, 1),
    "no-final-newline": ("hostname: a\nusers: []", 3, 1),
    "hostname": ("hostname: a_b\n", 2, 11),
    "hosts-option": ("manage_etc_hosts: on\n", 2, 19),
    "user-name": ("users:\n  - name: -a\n", 3, 11),
    "user-field": ("users:\n  - name: a\n    homedir: b\n", 4, 14),
    "user-exists": ("users:\n  - name: core\n    shell: /bin/sh\n", 4, 5),
    "ssh-key": ("ssh_authorized_keys:\n  - no key\n", 3, 5),
    "unit-section": (f"{_UNIT}{_SERVICE}        [Socket]\n", 8, 9),
    "unit-line": (f"{_UNIT}{_SERVICE}        true\n", 8, 9),
    "unit-key": (f"{_UNIT}{_SERVICE}        Exec=true\n", 8, 9),
    "unit-value": (f"{_UNIT}{_SERVICE}        Type=one-shot\n", 8, 9),
    "missing-unit": (f"{_UNIT}{_SERVICE}        [Unit]\n        Requires=b.service\n", 9, 9),
    "missing-program": (f"{_UNIT}{_SERVICE}        ExecStop=/opt/bin/b\n", 8, 9),
    "enable-without-install": (f"{_UNIT}      enable: true\n{_SERVICE}", 5, 15),
    "template-unit": ("coreos:\n  units:\n    - name: a@.service\n      command: start\n", 5, 16),
    "unit-reload": (f"{_UNIT}      command: reload\n{_SERVICE}", 5, 16),
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


@pytest.mark.parametrize("path", sorted(_GOLDEN.glob("*.yaml")), ids=lambda path: path.name)
def test_documents_of_coupler_have_no_findings(path: Path) -> None:
    lineage = Lineage.COREOS if path.name.startswith("container-linux") else Lineage.FLATCAR
    found = check(path.read_text(), path.name, lineage)
    assert [finding.text() for finding in found if finding.code != "deprecated-key"] == []


@pytest.mark.parametrize(
    "secret",
    [
        "token: 0123456789abcdef.0123456789",
        "Authorization: Bearer abc0123456789defghi",
        f"password ghp_{'a1' * 18}",
        "key AKIAIOSFODNN7EXAMPLE",
        f"aws_secret_access_key = {'a1/+' * 10}",
        "https://user:pass1@example.org/x",
        f"client-key-data: {'QUJD' * 12}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "glpat-0123456789abcdefghij",
    ],
)
def test_secret_is_found_in_a_file(secret: str) -> None:
    found = check(f"#cloud-config\nwrite_files:\n  - path: /a\n    content: |\n      {secret}\n", "f")
    assert [(finding.code, finding.location.line) for finding in found] == [("secret", 5)]


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer $(cat /run/token-for-the-api)",
        "token=$(cat /run/secrets/token01234567)",
        "https://user:$PASSWORD@example.org/x",
        "https://<user>:<password>@example.org/",
        "tokenizer = abcdefghijklmnop",
        "token: /var/run/secrets/token-0123456789",
        "--initial-cluster-token=production-cluster-2026",
        "ETCD_INITIAL_CLUSTER_TOKEN=production-cluster-2026",
        "--token-auth-file=/etc/kubernetes/tokens.csv",
        "http://10.0.0.5:2379 ops@example.org",
    ],
)
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    assert check(f"#cloud-config\nwrite_files:\n  - path: /a\n    content: |\n      {text}\n", "f") == []


@pytest.mark.parametrize(
    "fetched",
    [
        "[Unit]\n        ConditionFileIsExecutable=/opt/bin/tool",
        "[Unit]\n        ConditionPathExists=|/opt/bin/tool",
        "ExecStartPre=/usr/bin/curl -o /opt/bin/tool https://example.org/tool",
        "ExecStartPre=/usr/bin/tar -xzf /var/tmp/tools.tgz -C /opt/bin",
        "ExecStartPre=-/opt/bin/tool --version\n        X-From=/opt/bin/tool",
    ],
)
def test_program_that_is_guarded_or_fetched_is_not_missing(fetched: str) -> None:
    content = f"      content: |\n        [Service]\n        ExecStart=-/opt/bin/tool run\n        {fetched}\n"
    assert check(f"#cloud-config\n{_UNIT}{content}", "f") == []


def test_unit_that_the_document_writes_is_not_missing() -> None:
    units = (
        f"{_UNIT}{_SERVICE}        [Unit]\n        Requires=b@1.service c.service\n        BindsTo=dev-a.device\n"
        f"    - name: b@.service\n{_SERVICE}    - name: d.service\n{_SERVICE}        [Install]\n"
        "        Alias=c.service\n"
    )
    assert check(f"#cloud-config\n{units}", "f") == []


def test_merged_keys_are_seen() -> None:
    text = (
        "#cloud-config\nwrite_files:\n  - &base\n    path: /etc/a\n    permissions: '4755'\n"
        "  - <<: *base\n    content: b\n  - <<: [*base]\n    path: /etc/c\n"
    )
    found = [(finding.code, finding.location.line) for finding in check(text, "f")]
    assert found == [("path-conflict", 4), ("special-bits", 5)]


def test_timer_needs_the_service_of_its_name() -> None:
    text = "#cloud-config\ncoreos:\n  units:\n    - name: a.timer\n      content: |\n        [Timer]\n        {}\n"
    found = check(text.format("OnBootSec=1min"), "f")
    assert [(finding.code, finding.location.line) for finding in found] == [("missing-unit", 4)]
    assert check(text.format("OnBootSec=1min\n        Unit=fstrim.service"), "f") == []


def test_deadlock_by_way_of_another_unit_is_found() -> None:
    first = f"{_UNIT}      command: start\n{_SERVICE}        [Unit]\n        Wants=b.service\n        After=b.service\n"
    second = f"    - name: b.service\n{_SERVICE}        [Unit]\n        After=multi-user.target\n"
    found = check(f"#cloud-config\n{first}{second}", "f")
    assert [(finding.code, finding.location.line) for finding in found] == [("unit-deadlock", 5)]
    assert "by way of b.service" in found[0].message


def test_place_in_a_quoted_unit_is_that_of_its_content() -> None:
    unit = f'{_UNIT}      content: "[Service]\\nExecStart=/bin/true\\nExec=a\\n"\n'
    assert [(f.code, f.location.line) for f in check(f"#cloud-config\n{unit}", "f")] == [("unit-key", 5)]


def test_parts_of_a_multipart_message_are_examined_at_their_place() -> None:
    text = (
        'Content-Type: multipart/mixed; boundary="x"\n\n--x\nContent-Type: text/cloud-config\n\n'
        "#cloud-config\nhost-name: a\nhostname: b_c\n--x--\n"
    )
    found = check(text, "f")
    assert [(finding.code, finding.location.line) for finding in found] == [("unknown-key", 7), ("hostname", 8)]
    assert found[1].excerpt[-1] == (8, "hostname: b_c")


def test_dos_line_ends_of_a_script_are_said() -> None:
    found = check("#!/bin/sh\necho a\r\n", "f")
    assert [(finding.code, finding.location.line) for finding in found] == [
        ("nothing-to-check", 0),
        ("dos-line-ends", 2),
    ]


def test_large_user_data_is_said_by_platform() -> None:
    data = b"#cloud-config\n" + b"# padding\n" * 7000
    found = check_data(data, "f")
    assert [(finding.code, finding.severity) for finding in found] == [("user-data-size", Severity.INFO)]
    assert "EC2 16 KiB" in found[0].message
    assert "OpenStack" in found[0].message
    assert check_data(gzip.compress(data), "f") == []


def test_what_a_terminal_must_not_see_is_not_shown() -> None:
    found = check("#cloud-config\nhost\x7f: \x1b[31m\n" + "x" * 500 + ": y\n", "f")
    assert found
    assert all(c.isprintable() or c in "\n\t" for finding in found for c in finding.text())
    assert max(len(line) for finding in found for line in finding.text().split("\n")) < 600


@pytest.mark.parametrize("user", ['name: "a\\0"', 'name: a\n    gecos: "\\0"'])
def test_nul_in_a_user_is_found(user: str) -> None:
    assert {f.severity for f in check(f"#cloud-config\nusers:\n  - {user}\n", "f")} == {Severity.ERROR}


def test_place_where_the_parser_stopped_is_said() -> None:
    found = check("#cloud-config\nhostname: [a\n", "f")
    assert [(finding.code, finding.location.line, finding.hint) for finding in found] == [
        ("yaml-syntax", 1, "the parser stopped in line 3, column 1")
    ]


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
