"""Whatever text comes: no crash; what the checker accepts the applier can plan; what it refuses changes nothing."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from coupler.cloudinit import check
from coupler.cloudinit.__main__ import main
from coupler.cloudinit.golang import to_bytes, to_text
from coupler.cloudinit.grammar import CLOUD_CONFIG, Kind, Lineage, Type
from coupler.cloudinit.parse import YamlError, parse
from coupler.cloudinit.plan import plan_config
from coupler.cloudinit.session import UnreadableError, read_config
from coupler.cloudinit.verdict import validate

_SCALARS = st.one_of(
    st.sampled_from(
        [
            *("~", "true", "off", "yes", "0644", "0o644", "420", "1.5", ".inf", "1_000", "2024-02-30", "2024-01-01"),
            *("''", "'on'", "!!binary aGk=", "!!int x", "14:00", "&a", "*a"),
        ]
    ),
    st.text("abc/.$-_: #'\"\\%é\t", max_size=12),
)
_LINEAGES = st.sampled_from(list(Lineage))


def _values(wanted: Type) -> st.SearchStrategy[str]:
    """Return flow-style YAML for a type, now and then of another type."""
    if wanted.kind is Kind.STRUCT:
        pairs = [st.tuples(st.just(key.name), st.deferred(lambda key=key: _values(key.type))) for key in wanted.keys]
        odd = st.tuples(st.sampled_from(["x", "drop-ins", "reboot-strategy", "<<", "~", "1"]), _SCALARS)
        section = st.lists(st.one_of(*pairs, odd), max_size=4)
        right = section.map(lambda found: "{" + ", ".join(f"{name}: {value}" for name, value in found) + "}")
    elif wanted.element is not None:
        right = st.lists(_values(wanted.element), max_size=3).map(lambda found: f"[{', '.join(found)}]")
    else:
        right = _SCALARS
    return st.one_of(right, right, right, _SCALARS)


def _block(section: dict[str, str]) -> str:
    return "#cloud-config\n" + "".join(f"{name}: {value}\n" for name, value in section.items())


def _sound(wanted: Type) -> st.SearchStrategy[object]:
    """Return values of a type, as JSON has them, which is YAML too."""
    if wanted.kind is Kind.STRUCT:
        return st.fixed_dictionaries(
            {}, optional={key.name: st.deferred(lambda key=key: _sound(key.type)) for key in wanted.keys}
        )
    if wanted.element is not None:
        return st.lists(_sound(wanted.element), max_size=3)
    words = st.one_of(
        st.text(max_size=8), st.sampled_from(["start", "off", "0644", "base64", "/etc/x", "core", "a.service"])
    )
    kinds = {Kind.STRING: words, Kind.BOOL: st.booleans(), Kind.INT: st.integers(), Kind.FLOAT: st.floats(0, 1e9)}
    return kinds[wanted.kind]


_SOUND = _sound(CLOUD_CONFIG).map(lambda value: f"#cloud-config\n{json.dumps(value)}\n")
_DOCUMENTS = st.one_of(
    _SOUND,
    st.fixed_dictionaries({}, optional={key.name: _values(key.type) for key in CLOUD_CONFIG.keys}).map(_block),
    st.text(max_size=60).map(lambda text: f"#cloud-config\n{text}"),
    st.binary(max_size=60).map(lambda data: to_text(b"#cloud-config\n" + data)),
    st.binary(max_size=60).map(to_text),
)


@settings(max_examples=300, deadline=None)
@given(text=_DOCUMENTS, lineage=_LINEAGES)
def test_checker_answers_about_any_text(text: str, lineage: Lineage) -> None:
    assert validate(text, lineage).exit_code in (0, 1)
    for finding in check(text, "user-data", lineage):
        assert finding.text()


@settings(max_examples=300, deadline=None)
@given(text=_DOCUMENTS, lineage=_LINEAGES)
def test_what_the_checker_accepts_can_be_planned(text: str, lineage: Lineage) -> None:
    if not text.startswith("#cloud-config\n") or validate(text, lineage).exit_code:
        return
    assert plan_config(read_config(text, lineage), lineage, {})


@settings(max_examples=150, deadline=None)
@given(text=_DOCUMENTS)
def test_what_cannot_be_read_changes_nothing(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        document, root = Path(folder, "user-data"), Path(folder, "root")
        document.write_bytes(to_bytes(text))
        exit_code = main([f"--from-file={document}", f"--root={root}"])
        assert exit_code in (0, 1)
        try:
            parse(text, Lineage.FLATCAR)
            read_config(text, Lineage.FLATCAR)
        except (YamlError, UnreadableError):
            assert list(root.iterdir()) == []
