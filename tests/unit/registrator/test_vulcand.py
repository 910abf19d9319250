"""What is pure in the adapter of vulcand: names, routes and their order, middlewares, rewrites."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.vulcand import Vulcand

from coupler.registrator.balancers.vulcand.documents import frontend_document, middlewares
from coupler.registrator.balancers.vulcand.ids import backend_id, frontend_id, is_ours, probe_id, server_id
from coupler.registrator.balancers.vulcand.middlewares import checked
from coupler.registrator.balancers.vulcand.routes import expression
from coupler.registrator.model import Middleware, ModelError, Policy, Route
from coupler.registrator.routing import explain

HOSTS = ["", "a.test", "*.test", "b.a.test", "*.a.test", "ab.test", "a-test"]
PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/a.b", "/a+b", "/a/b/c", "/(a)", "/$1"]
HEADERS = [(), (("x", "1"),), (("x", "1"), ("y", "a.b*")), (("y", "a.b*"),)]
ROUTES = st.lists(
    st.builds(
        Route,
        id=st.sampled_from(["a", "ab", "b", "B", "ü"]),
        backend=st.just("shop"),
        host=st.sampled_from(HOSTS),
        path=st.sampled_from(PATHS),
        exact=st.booleans(),
        headers=st.sampled_from(HEADERS),
        priority=st.sampled_from([-5, 0, 5, 50]),
    ),
    max_size=8,
    unique_by=(lambda route: route.match, lambda route: (route.id, route.headers)),
)


@given(
    ROUTES,
    st.sampled_from(["a.test", "A.test:80", "b.a.test", "x.a.test", "xa.test", "test", "a-test", ".test"]),
    st.sampled_from([*PATHS, "/a/x", "/abc", "/x/a", "/axb", "/a/b/cd"]),
    st.sampled_from([{}, {"x": "1"}, {"X": "1", "y": "a.b*"}, {"y": "axb*"}, {"x": "11"}]),
)
def test_a_request_takes_the_route_that_explain_says(routes, host, path, headers):
    vulcand = Vulcand(3)
    for number, route in enumerate(routes):
        vulcand.put(f"backends/{number}/backend", "{}")
        document = frontend_document(route, Policy(), str(number))
        vulcand.put(f"frontends/{number}/frontend", json.dumps(document))
    assert not vulcand.refused
    considered = explain(routes, host, path, headers)
    expected = considered[-1].route if considered and considered[-1].takes else None
    frontend = vulcand.frontend_of(path, host, headers)
    assert (frontend and frontend.document["BackendId"]) == (str(routes.index(expected)) if expected else None)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ModelError, match="too much"):
        expression(Route("r", "b", priority=10**9))


@given(st.text(min_size=1, max_size=60))
def test_names_tell_whose_they_are(text):
    for name in (backend_id("coupler", text), frontend_id("coupler", text, text), probe_id("coupler")):
        assert re.fullmatch(r"[0-9a-f]{8}-coupler\.[A-Za-z0-9._-]+", name)
        assert is_ours("coupler", name)
        assert not is_ours("coupl", name)
        assert not is_ours("coupler", f"{name}x")
    assert backend_id("coupler", text) != probe_id("coupler")
    assert not is_ours("coupler", text)


def test_servers_are_named_by_their_address():
    assert server_id("http://10.0.0.1:80") != server_id("https://10.0.0.1:80")
    assert "/" not in server_id("http://[fd00::1]:80")
    assert ":" not in server_id("http://[fd00::1]:80")


@pytest.mark.parametrize(
    ("old", "new", "asked", "sent"),
    [
        ("/api", "/v2", "/api", "/v2"),
        ("/api", "/v2", "/api/x?a=/api", "/v2/x?a=/api"),
        ("/api", "/v2", "/apix", "/apix"),
        ("/api", "/v2", "/x/api", "/x/api"),
        ("/api", "/", "/api", "/"),
        ("/api", "/", "/api/", "/"),
        ("/api", "/", "/api/x/y?q", "/x/y?q"),
        ("/api", "/", "/api?q={a}", "/?q={a}"),
        ("/", "/v2", "/x?q", "/v2/x?q"),
        ("/", "/v2", "/", "/v2/"),
        ("/a.b", "/$1", "/a.b/c", "/$1/c"),
        ("/a.b", "/c", "/axb", "/axb"),
        ("/api", "/v2", "/api/{{.Request}}", "/api/{{.Request}}"),
        ("/api", "/v2", "/api?q={{.Request}}", "/api?q={{.Request}}"),
        ("/api", "/v2", "/api/{x}{y}", "/v2/{x}{y}"),
    ],
)
def test_a_prefix_is_replaced_in_whole_segments_and_no_template_comes_from_a_client(old, new, asked, sent):
    made = middlewares(Route("r", "b"), Policy(replace_prefix=(old, new)))
    rewrite = made["coupler-replace-prefix"]["Middleware"]
    replacement = rewrite["Replacement"].replace("$$", "\0").replace("${", r"\g<").replace("}", ">").replace("\0", "$")
    url = f"http://shop.test:80{asked}"
    assert re.sub(rewrite["Regexp"], replacement, url) == f"http://shop.test:80{sent}"


GOOD = [
    {"Type": "ratelimit", "Priority": 3, "Middleware": {"Requests": 1, "PeriodSeconds": 1, "Variable": "client.ip"}},
    {"Type": "connlimit", "Middleware": {"Connections": 2, "Variable": "request.header.X-Key"}},
    {"Type": "rewrite", "Middleware": {"Regexp": "a", "Replacement": "b", "Redirect": True}},
    {
        "Type": "cbreaker",
        "Middleware": {
            "Condition": "NetworkErrorRatio() > 0.5 || ResponseCodeRatio(500, 600, 0, 600) >= 0.5",
            "Fallback": {"Type": "response", "Action": {"StatusCode": 503}},
            "CheckPeriod": 10**9,
        },
    },
]
BAD = [
    ("x", "no JSON"),
    ([], "needs a Type"),
    ({"Type": "trace", "Middleware": {}}, "no type"),
    ({**GOOD[0], "Priority": "1"}, "Priority"),
    ({**GOOD[0], "Middleware": {**GOOD[0]["Middleware"], "Requests": 0}}, "Requests"),
    ({**GOOD[0], "Middleware": {**GOOD[0]["Middleware"], "Requests": True}}, "Requests"),
    ({**GOOD[0], "Middleware": {**GOOD[0]["Middleware"], "Burst": -1}}, "Burst"),
    ({**GOOD[0], "Middleware": {**GOOD[0]["Middleware"], "Variable": "nobody"}}, "Variable"),
    ({**GOOD[0], "Middleware": {**GOOD[0]["Middleware"], "Other": 1}}, "Other"),
    ({**GOOD[1], "Middleware": {"Variable": "client.ip"}}, "Connections"),
    ({**GOOD[2], "Middleware": {"Replacement": "b"}}, "Regexp"),
    ({**GOOD[3], "Middleware": {**GOOD[3]["Middleware"], "Condition": "Nonsense() > 1"}}, "Condition"),
    ({**GOOD[3], "Middleware": {"Condition": "NetworkErrorRatio() > 0.5"}}, "Fallback"),
]


@pytest.mark.parametrize("document", GOOD, ids=lambda document: document["Type"])
def test_a_good_middleware_is_passed_on(document):
    assert checked(Middleware("m1", json.dumps(document))) == document


@pytest.mark.parametrize(("document", "what"), BAD)
def test_a_middleware_that_vulcand_would_not_take_is_refused(document, what):
    text = document if document == "x" else json.dumps(document)
    with pytest.raises(ModelError, match=what):
        checked(Middleware("m1", text))


def test_a_middleware_has_a_name_of_its_own():
    good = json.dumps(GOOD[1])
    for name in ("", "a/b", "_hidden", "a b"):
        with pytest.raises(ModelError, match="no name"):
            checked(Middleware(name, good))
    with pytest.raises(ModelError, match="two middlewares"):
        middlewares(Route("r", "b", middlewares=(Middleware("m", good), Middleware("m", good))), Policy())
