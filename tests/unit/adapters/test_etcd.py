"""What etcd's members say of each other, read as etcd 3.4 printed it."""

from __future__ import annotations

import pytest

from coupler.adapters.etcd import Member, members_in

ANNOUNCED = """[{"id":1514788396788848948,"peerURLs":["http://127.0.1.2:2380"],"name":"n2",
"clientURLs":["http://127.0.1.2:2379"]},{"id":9474579435906604582,"peerURLs":["http://127.0.1.3:2380"],
"isLearner":true},{"id":11899211072982767986,"peerURLs":["http://127.0.1.1:2380"],"name":"n1"}]
"""


def test_who_has_started_who_is_announced_and_who_founds() -> None:
    assert members_in(ANNOUNCED) == (
        Member(1514788396788848948, "n2", "http://127.0.1.2:2380", started=True),
        Member(9474579435906604582, "", "http://127.0.1.3:2380", started=False, learner=True),
        Member(11899211072982767986, "n1", "http://127.0.1.1:2380", started=False),
    )


@pytest.mark.parametrize(
    "text", ["", "404 page not found", '{"message": "no"}', '[{"name": "n1"}]', '[{"id": 1, "peerURLs": []}]']
)
def test_anything_else_is_no_list_of_members(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        members_in(text)
