"""What is known of a cluster: whatever came in whichever order, the offer is that of a fresh list."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
from tests.unit.registrator.kubernetes.cases import CASES, load, outcome, outline, secret, world_of

from coupler.registrator.model import State
from coupler.registrator.sources.kubernetes.objects import key_of, seconds, uid_of
from coupler.registrator.sources.kubernetes.settings import KubernetesSettings
from coupler.registrator.sources.kubernetes.world import NOTHING, ROUTES, STATUSES, World

Json = dict[str, Any]
NOON = seconds("2026-11-25T12:00:00Z") or 0.0
FILES = [path for path in sorted(CASES.glob("*.yaml")) if "pool" not in path.read_text()]


def service(name: str = "web", **annotations: str) -> Json:
    own = {f"coupler.io/{key.replace('_', '-')}": text for key, text in annotations.items()}
    metadata = {"namespace": "shop", "name": name, "uid": f"{name}-uid", "annotations": own}
    return {"kind": "Service", "metadata": metadata, "spec": {"ports": [{"name": "http", "port": 80}]}}


def slice_of(*endpoints: tuple[str, bool], name: str = "web-1", of: str = "web") -> Json:
    labels = {"kubernetes.io/service-name": of}
    entries = [
        {"addresses": [f"10.0.0.{uid}"], "conditions": {"ready": ready}, "targetRef": {"uid": uid}}
        for uid, ready in endpoints
    ]
    metadata = {"namespace": "shop", "name": name, "uid": name, "labels": labels}
    ports = [{"name": "http", "port": 8080}]
    return {"kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4", "endpoints": entries, "ports": ports}


def pod(name: str, uid: str, address: str, **status: Any) -> Json:
    metadata = {"namespace": "shop", "name": name, "uid": uid, "labels": {"app": "web"}}
    metadata["annotations"] = {"coupler.io/host": "a.example"}
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"ports": [{"containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": address, "conditions": ready, **status},
    }


def changed(item: Json, random: Random) -> Json:
    """Return an object with something else in it that makes a difference, or that does not."""
    item = copy.deepcopy(item)
    match item["kind"]:
        case "EndpointSlice" if item.get("endpoints"):
            entry = random.choice(item["endpoints"])
            entry["conditions"] = random.choice(
                ({}, {"ready": False}, {"ready": False, "serving": True, "terminating": True})
            )
        case "Pod":
            item["status"]["conditions"] = [{"type": "Ready", "status": random.choice(("True", "False"))}]
            if random.random() < 0.3:
                item["metadata"].setdefault("annotations", {})["coupler.io/path"] = random.choice(("/a", "/b"))
        case "Service" | "Ingress":
            item["metadata"].setdefault("annotations", {})["coupler.io/read-timeout"] = random.choice(("1s", "2s", "x"))
        case _:
            item["metadata"]["resourceVersion"] = str(random.randrange(10**6))
    return item


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_any_order_of_events_gives_what_a_fresh_list_gives(path: Any) -> None:
    case = load(path)
    for seed in range(4):
        random = Random(seed)
        world, held = world_of(case), dict[tuple[str, str, str], Json]()
        for _ in range(80):
            item = random.choice(case["objects"])
            kind, key = item["kind"], key_of(item)
            before = {backend.id: backend for backend in world.offer(NOON).backends}
            routes, complaints = world.offer(NOON).routes, world.offer(NOON).problems
            if random.random() < 0.3 and kind != "Secret":
                touch = world.drop(kind, key, random.choice((uid_of(item), None, "another")))
                if touch or key not in world.keys(kind):
                    held.pop((kind, *key), None)
            else:
                item = changed(item, random)
                held[kind, *key] = item
                touch = world.put(kind, item)
                if kind == "Pod":  # a twin, as controllers make them
                    item = copy.deepcopy(item)
                    item["metadata"] |= {"name": f"{key[1]}-twin", "uid": f"{uid_of(item)}-twin"}
                    held[kind, *key_of(item)] = item
                    touch |= world.put(kind, item)
            offer = world.offer(NOON)
            if not touch.routes:
                assert (offer.routes, offer.problems) == (routes, complaints)
                told = world.backends_of(touch.groups)
                assert all(b is before.get(b.id) for b in offer.backends if b.id not in told)
        fresh = world_of(case)
        for item in held.values():
            fresh.put(item["kind"], item)
        assert outline(world.offer(NOON)) == outline(fresh.offer(NOON))
        assert {wish.path: wish.patch for wish in world.wishes} == {wish.path: wish.patch for wish in fresh.wishes}


def test_a_change_of_endpoints_touches_one_backend_and_nothing_else() -> None:
    world = World(KubernetesSettings())
    for item in (service(host="a.example"), service("blog", host="b.example"), slice_of(("1", True), ("2", True))):
        world.put(item["kind"], item)
    before = world.offer(NOON)
    touch = world.put("EndpointSlice", slice_of(("1", True), ("2", False)))
    assert world.backends_of(touch.groups) == {"shop/web:80"}
    assert not touch.routes
    after = world.offer(NOON)
    assert after.routes is before.routes
    old, new = ({backend.id: backend for backend in offer.backends} for offer in (before, after))
    assert new["shop/blog:80"] is old["shop/blog:80"]
    assert new["shop/web:80"].policy is old["shop/web:80"].policy
    assert [endpoint.state for endpoint in new["shop/web:80"].endpoints] == [State.READY, State.DOWN]
    assert new["shop/web:80"].endpoints[0] is old["shop/web:80"].endpoints[0]


def test_what_says_the_same_again_touches_nothing() -> None:
    world = World(KubernetesSettings(pods=""))
    items = service(host="a.example"), slice_of(("1", True)), pod("web-1", "u1", "10.0.0.1")
    for item in items:
        assert world.put(item["kind"], item) != NOTHING
    offer = world.offer(NOON)
    for item in items:
        again = copy.deepcopy(item)
        again["metadata"]["resourceVersion"] = "99"
        assert world.put(item["kind"], again) == NOTHING
    assert world.offer(NOON) is offer


def test_a_change_of_a_status_alone_is_no_news_for_balancers() -> None:
    world = World(KubernetesSettings(published=("192.0.2.1",)))
    paths = [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]
    spec = {"ingressClassName": "coupler", "rules": [{"host": "a.example", "http": {"paths": paths}}]}
    ingress = {"kind": "Ingress", "metadata": {"namespace": "shop", "name": "web", "uid": "i"}, "spec": spec}
    assert world.put("Ingress", ingress) == ROUTES
    offer = world.offer(NOON)
    [wish] = world.wishes
    assert world.put("Ingress", {**ingress, **wish.patch}) == STATUSES
    assert world.offer(NOON) is offer
    assert world.wishes == ()


def test_a_name_that_is_used_again_is_another_object() -> None:
    world = World(KubernetesSettings(pods=""))
    world.put("Pod", pod("db-0", "old", "10.0.0.1"))
    world.put("Pod", pod("db-0", "new", "10.0.0.1"))
    assert world.drop("Pod", ("shop", "db-0"), "old") == NOTHING
    [backend] = world.offer(NOON).backends
    assert [endpoint.uid for endpoint in backend.endpoints] == ["new"]


def test_a_slice_whose_name_is_used_again_is_another_object() -> None:
    world = World(KubernetesSettings())
    world.put("Service", service(host="a.example"))
    world.put("EndpointSlice", slice_of(("1", True)))
    fresh = slice_of(("2", True))
    fresh["metadata"]["uid"] = "new"
    world.put("EndpointSlice", fresh)
    assert world.drop("EndpointSlice", ("shop", "web-1"), "web-1") == NOTHING
    [backend] = world.offer(NOON).backends
    assert [endpoint.uid for endpoint in backend.endpoints] == ["2"]


def test_a_list_lets_go_of_what_is_not_in_it() -> None:
    world = World(KubernetesSettings(pods=""))
    world.replace("Pod", [pod("a", "a", "10.0.0.1"), pod("b", "b", "10.0.0.2")])
    world.replace("Pod", [pod("b", "b", "10.0.0.2")])
    [backend] = world.offer(NOON).backends
    assert [endpoint.uid for endpoint in backend.endpoints] == ["b"]


def test_a_pod_stops_draining_when_its_time_is_over() -> None:
    world = World(KubernetesSettings(pods=""))
    leaving = pod("a", "a", "10.0.0.1")
    leaving["metadata"] |= {"deletionTimestamp": "2026-11-25T12:00:30Z", "deletionGracePeriodSeconds": 30}
    leaving["metadata"]["annotations"]["coupler.io/drain-seconds"] = "10"
    world.put("Pod", leaving)
    world.put("Pod", pod("b", "b", "10.0.0.2"))
    end = world.pods.next_end(NOON)
    assert end is not None
    assert end[0] == NOON + 10
    assert [e.state for e in world.offer(NOON + 9.9).backends[0].endpoints] == [State.DRAIN, State.READY]
    world.put("Pod", pod("c", "c", "10.0.0.3"))
    assert [e.uid for e in world.offer(NOON + 10).backends[0].endpoints] == ["b", "c"]
    assert world.pods.next_end(NOON + 10) is None


def test_a_certificate_that_turns_bad_or_goes_stays_in_use_and_is_told() -> None:
    world = World(KubernetesSettings())
    world.put("Service", service(host="a.example", tls_secret="tls"))
    assert world.offer(NOON).hosts == ()
    assert world.wanted == {("shop", "tls")}
    world.put("Secret", secret("shop", "tls", "a.example"))
    [good] = world.offer(NOON).hosts
    assert good.certificate is not None
    assert world.offer(NOON).problems == ()
    world.put("Secret", secret("shop", "tls", "a.example", "b.example"))
    assert world.offer(NOON).hosts == (good,)
    [problem] = world.offer(NOON).problems
    assert (problem.subject, "mismatch" in problem.message, "still in use" in problem.message) == (
        "Service shop/web",
        True,
        True,
    )
    world.drop("Secret", ("shop", "tls"))
    assert world.offer(NOON).hosts == (good,)
    assert "there is no such Secret" in world.offer(NOON).problems[0].message
    world.put("Secret", secret("shop", "tls", "c.example"))
    assert world.offer(NOON).problems == ()
    assert world.offer(NOON).hosts != (good,)


@pytest.mark.parametrize(
    "data", [None, {}, {"tls.crt": "%%%", "tls.key": "eA=="}, {"tls.crt": "eA==", "tls.key": "/w=="}]
)
def test_a_secret_without_a_certificate_harms_nobody_else(data: Json | None) -> None:
    world = World(KubernetesSettings())
    for item in (service(host="a.example", tls_secret="tls"), service("blog", host="b.example")):
        world.put("Service", item)
    world.put("Secret", {"metadata": {"namespace": "shop", "name": "tls"}, "data": data})
    offer = world.offer(NOON)
    assert len(offer.routes) == 2
    assert [problem.subject for problem in offer.problems] == ["Service shop/web"]


def test_addresses_of_the_pool_stay_where_they_were_given() -> None:
    world = World(KubernetesSettings(pool=("192.0.2.0/30",)))
    assert _given(world, "b") == {"b": "192.0.2.1"}
    assert _given(world, "b", "a") == {"b": "192.0.2.1", "a": "192.0.2.2"}
    assert _given(world, "b", "a", "c") == {"b": "192.0.2.1", "a": "192.0.2.2", "c": None}
    world.drop("Service", ("shop", "b"))
    assert _given(world, "a", "c") == {"a": "192.0.2.2", "c": "192.0.2.1"}


def _given(world: World, *names: str) -> dict[str, str | None]:
    for name in names:
        item = service(name)
        item["spec"]["type"] = "LoadBalancer"
        world.put("Service", item)
    world.offer(NOON)
    found: dict[str, str | None] = dict.fromkeys(names)
    for wish in world.wishes:
        ingress = wish.patch["status"]["loadBalancer"]["ingress"]
        found[wish.about.name] = ingress[0]["ip"] if ingress else None
    return found


def test_a_world_with_nothing_in_it_offers_nothing() -> None:
    world = World(KubernetesSettings(pods="", published=("192.0.2.1",)))
    assert outcome(world, {}) == {}
