"""The manual says what the code does: its tables of annotations, and the rights that it asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.unit.registrator.kubernetes.cases import CASES, load, outcome, world_of

from coupler.registrator.sources.kubernetes.annotations import (
    ANNOTATIONS,
    INGRESS,
    OF_ANCESTOR,
    POD,
    ROUTE,
    SERVICE,
    Annotation,
)
from coupler.registrator.sources.kubernetes.settings import KubernetesSettings
from coupler.registrator.sources.kubernetes.source import followed

MANUAL = (Path(__file__).parents[4] / "docs" / "registrator-kubernetes.md").read_text()
ROWS = re.findall(r"^\| (?:\*\*)?`.*$", MANUAL, re.MULTILINE)
KINDS = (POD, SERVICE, INGRESS, ROUTE)


def row(annotation: Annotation) -> str:
    on = "all" if len(annotation.on) == len(KINDS) else ", ".join(kind for kind in KINDS if kind in annotation.on)
    name = f"**`{annotation.name}`**" if annotation.decisive else f"`{annotation.name}`"
    return f"| {name} | {on} | {annotation.meaning} | {annotation.allowed} |"


def test_the_tables_have_every_annotation_as_the_code_has_it_and_no_other() -> None:
    wanted = [row(annotation) for annotation in (*ANNOTATIONS.values(), *OF_ANCESTOR.values())]
    assert [line for line in ROWS if "`middleware.<id>`" not in line] == wanted


def rights() -> set[tuple[str, str, str]]:
    [text] = re.findall(r"```yaml\n(apiVersion: rbac.*?)```", MANUAL, re.DOTALL)
    return {
        (group, resource, verb)
        for rule in yaml.safe_load(text)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_rights_are_those_that_are_needed_and_no_more() -> None:
    collections = [entry for found in followed(KubernetesSettings(pods="")) for entry in found.collections]
    groups = {
        (entry.api.split("/")[2] if entry.api.startswith("/apis/") else "", entry.resource) for entry in collections
    }
    needed = {(group, resource, verb) for group, resource in groups for verb in ("list", "watch")}
    needed |= {("", "secrets", verb) for verb in ("get", "list", "watch")}
    needed |= {("", "events", verb) for verb in ("get", "create", "patch")}
    needed |= {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
    statuses = set()
    for path in CASES.glob("*.yaml"):
        case = load(path)
        for written in case["comes to"].get("statuses", {}):
            group = written.split("/")[2] if written.startswith("/apis/") else ""
            statuses.add((group, f"{written.split('/')[-3]}/status", "patch"))
    assert rights() == needed | statuses


@pytest.mark.parametrize("name", re.findall(r"```yaml\n(metadata:.*?)```", MANUAL, re.DOTALL))
def test_the_example_is_served(name: str) -> None:
    pod = {"kind": "Pod", "at": "shop/one", **yaml.safe_load(name)}
    pod["spec"] = {"containers": [{"ports": [{"containerPort": 8080}]}]}
    pod["status"] = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    pod["metadata"] |= {"namespace": "shop", "name": "one", "uid": "one"}
    world = world_of({"settings": {"pods": ""}})
    world.put("Pod", pod)
    assert outcome(world, {})["routes"] == ["shop.example.org/ -> shop/shop"]
    assert "problems" not in outcome(world, {})
