"""What an operator takes out of service stays out, whatever the sources say, and survives a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coupler.registrator.drains import Drains, DrainsError
from coupler.registrator.intake import Intake, News
from coupler.registrator.model import Backend, Desired, Endpoint, Offer, State
from coupler.registrator.sources import Change

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, SIX = Endpoint("one", "10.0.0.1", 80), Endpoint("two", "10.0.0.2", 81), Endpoint("six", "fd00::6", 82)
DESIRED = Desired({"b": Backend("b", (ONE, TWO, SIX)), "c": Backend("c", (Endpoint("other", "10.0.0.1", 90),))})


def states(desired: Desired) -> dict[str, State]:
    return {endpoint.uid: endpoint.state for backend in desired.backends.values() for endpoint in backend.endpoints}


@pytest.mark.parametrize(
    ("name", "drained"),
    [
        ("one", {"one"}),
        ("10.0.0.1", {"one", "other"}),
        ("10.0.0.1:80", {"one"}),
        ("[fd00::6]:82", {"six"}),
        ("fd00::6", {"six"}),
        ("10.0.0.1:81", set()),
    ],
)
def test_an_endpoint_is_named_by_uid_address_or_both(name: str, drained: set[str]) -> None:
    drains = Drains()
    drains.add(name)
    assert {uid for uid, state in states(drains.over(DESIRED)).items() if state is State.DRAIN} == drained
    drains.remove(name)
    assert drains.over(DESIRED) is DESIRED


def test_what_is_down_does_not_come_back_to_drain() -> None:
    drains = Drains()
    drains.add("10.0.0.1")
    down = Desired({"b": Backend("b", (Endpoint("one", "10.0.0.1", 80, State.DOWN),))})
    assert states(drains.over(down)) == {"one": State.DOWN}


def test_drains_outlive_a_restart_and_a_bad_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "state" / "drains.json"
    Drains(file).add("one")
    assert Drains(file).names == {"one"}
    file.write_text("{")
    with pytest.raises(DrainsError, match=r"drains\.json cannot be read"):
        Drains(file)


class Silent:
    """A source whose offer a test sets."""

    name, synced, problem = "s", True, None

    def __init__(self) -> None:
        self.backend = DESIRED.backends["b"]

    def offer(self) -> Offer:
        return Offer((self.backend, DESIRED.backends["c"]))


def test_an_event_of_one_backend_leaves_the_drains_of_others() -> None:
    source, drains, news = Silent(), Drains(), list[News]()
    intake = Intake([source], news.append, drains)
    entry = intake._entries[0]
    intake._take(entry, source.offer(), Change())
    drains.add("10.0.0.1")
    intake.redrain()
    assert news[-1].backends == {"b", "c"}
    source.backend = Backend("b", (ONE,))
    intake._take(entry, source.offer(), Change(frozenset("b")))
    assert news[-1].backends == {"b"}
    assert states(intake.desired) == {"one": State.DRAIN, "other": State.DRAIN}
    drains.remove("10.0.0.1")
    intake.redrain()
    assert states(intake.desired) == {"one": State.READY, "other": State.READY}
