"""Every line gets its answer, and no line ends an agent: what is wrong with a request is said by field."""

from __future__ import annotations

import base64
import copy
import json
import string
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netprobe import wire
from netprobe.agent import wire as agent_wire
from netprobe.attempts import SOURCE_PORTS
from netprobe.lab import Lab
from netprobe.template import ATTEMPT_BITS
from tests.agent.bench import Bench
from tests.agent.driver import Agent, RefusedError

# The agent of a module outlives the examples that are tried on it: that is what is tested.
many = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts without a fault."""
    with Lab.mesh(2) as lab:
        yield lab


@pytest.fixture(scope="module")
def anywhere() -> Iterator[Agent]:
    """An agent that is told nothing that it could carry out."""
    with Agent() as agent:
        yield agent


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[Agent]:
    """An agent where what it carries out by chance does no harm."""
    with Agent.on(lab, "n1") as agent:
        agent.ask("arm", Bench(lab, ["bgp", "ipip"]).arming())
        yield agent


def _answers(agent: Agent, line: bytes) -> list[dict[str, Any]]:
    """What comes between a line and the answer to the request that follows it."""
    agent.write(line + b"\n")
    number = agent.send("collect")
    found = []
    while (message := agent.line()).get("id") != number:
        found.append(message)
    return found


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"what", "not JSON: "),
        (b'{"id":1,"verb":"facts"', "not JSON: "),
        (b'{"id":1}}', "not JSON: "),
        (b"\xff\xfe", "not JSON: "),
        (b"[" * 100_000, "not JSON: nested too deeply"),
        (b"[]", "a request is an object, not list"),
        (b"null", "a request is an object, not NoneType"),
        (b"{}", "id: expected an integer from 0 to 4294967295"),
        (b'{"id":"1","verb":"facts"}', "id: expected an integer from 0 to 4294967295"),
        (b'{"id":true,"verb":"facts"}', "id: expected an integer from 0 to 4294967295"),
        (b'{"id":-1,"verb":"facts"}', "id: expected an integer from 0 to 4294967295"),
    ],
    ids=repr,
)
def test_a_line_that_is_no_request_is_answered_all_the_same(anywhere: Agent, line: bytes, error: str) -> None:
    """Without a number, for there is none."""
    (answer,) = _answers(anywhere, line)

    assert None is answer["id"]
    assert answer["error"].startswith(error)


@pytest.mark.parametrize("verb", ["", "reboot", "FACTS", None, 1, ["facts"], {"facts": 1}])
def test_the_list_of_verbs_is_closed(anywhere: Agent, verb: object) -> None:
    """The answer names them."""
    (answer,) = _answers(anywhere, json.dumps({"id": 9_000_000, "verb": verb}).encode())

    assert 9_000_000 == answer["id"]
    assert (
        "verb: expected one of "
        "facts, arm, listen, fire, connect, conntrack, counters, collect, withdraw, bye" == answer["error"]
    )


@pytest.mark.parametrize("line", [b"", b" ", b"\r", b"\t \r"], ids=repr)
def test_an_empty_line_needs_no_answer(anywhere: Agent, line: bytes) -> None:
    """It is how the coordinator says that it is still there."""
    assert [] == _answers(anywhere, line)


@many
@given(st.binary(min_size=1).filter(lambda data: b"\n" not in data and data.strip()))
def test_any_bytes_are_one_error(anywhere: Agent, line: bytes) -> None:
    """One line in, one answer out, and the agent goes on."""
    (answer,) = _answers(anywhere, line)

    assert {"id", "error"} == answer.keys()


@pytest.mark.parametrize("newlines", [b"", b"\n", b"\nx\n"], ids=repr)
def test_a_line_that_is_too_long_is_one_error(newlines: bytes) -> None:
    """However long it goes on; what comes behind its end is a line like any other."""
    with Agent(first="package.wire.MAX_LINE_BYTES = 1 << 16") as agent:
        answers = _answers(agent, b"x" * (1 << 20) + newlines)

    assert "a line of over 65536 bytes" == answers[0]["error"]
    assert len(answers) == 1 + newlines.count(b"x")


def test_lines_come_out_however_the_bytes_came_in() -> None:
    """The agent's end of the conversation, without I/O: byte by byte, and with what follows."""
    data = b'{"id":1}\n\n{"id":2}\n{"i'
    lines = agent_wire.Lines()

    assert [b'{"id":1}', b"", b'{"id":2}'] == agent_wire.Lines().feed(data)
    assert [b'{"id":1}', b"", b'{"id":2}'] == [each for n in data for each in lines.feed(bytes([n]))]
    assert [b'{"id":3}'] == lines.feed(b'd":3}\n')


REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "facts": {
        "peers": ["10.77.2.11", "fd77:6e70:6c61:2::11"],
        "ports": [[6, 179]],
        "connections": [["10.77.1.11", 179, "10.77.2.11", 40000]],
    },
    "arm": {
        "nonce": 1,
        "flows": 10,
        "late": 0,
        "sights": [
            {
                "kind": "probe",
                "protocol": 6,
                "base": "transport",
                "matches": [[13, 1, 255, 2]],
                "tag": 4,
                "minus": 0,
            }
        ],
        "taps": [
            {
                "kind": "packet",
                "point": "left",
                "filter": [[6, 0, 0, 0]],
                "arriving": True,
                "awaited": False,
            },
            {"kind": "raw", "point": "socket", "filter": [[6, 0, 0, 0]], "version": 4, "protocol": 6},
        ],
        "templates": [
            {
                "data": "RQAAFAAAAABABgAAwAACAcAAAgI=",
                "network": True,
                "tags": [4],
                "plus": 0,
                "idents": [4],
                "source_port": 0,
                "keeps_source": False,
                "checksums": [[10, 0, 20, False]],
            },
            {"data": "AAAAAA==", "network": False, "tags": [0]},
        ],
    },
    "listen": {"mss": 1100, "sockets": [[6, "10.77.1.11", 179, 1, 1], [17, "10.77.1.11", 4789, None, None]]},
    "fire": {
        "rate": 5000,
        "after": 0,
        "timed": False,
        "volleys": [
            {
                "way": "kernel",
                "attempts": [0, 2],
                "ports": [*SOURCE_PORTS, 1],
                "shots": [[0, "10.77.1.11", [[1, "10.77.2.11"]], None]],
            }
        ],
    },
    "connect": {
        "attempt": 0,
        "timeout": 0.01,
        "parallel": 2,
        "rate": 1000.0,
        "sessions": [["10.77.1.11", 179, 1, 1, [[1, "10.77.2.11"]]]],
    },
    "conntrack": {"tuples": [[4, "10.77.1.11", "10.77.2.11", 0, 0]], "delete": False},
    "collect": {"expect": 0, "within": 0},
}
"""A request of each verb that can be carried out on the first host of the lab."""


@pytest.mark.lab
def test_the_requests_are_good_ones(lab: Lab) -> None:
    """What is tried below, with something wrong in it, is right without."""
    with Agent.on(lab, "n1") as agent:
        for verb in ("arm", "facts", "listen", "fire", "connect", "conntrack", "collect"):
            agent.ask(verb, **REQUESTS[verb])


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    """The ways to everything within a request."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from _paths(each, (*at, key))


def _changed(request: dict[str, Any], path: Sequence[Any], value: object) -> dict[str, Any]:
    """A copy with something else at a place; `...` for nothing at all."""
    changed = copy.deepcopy(request)
    holder: Any = changed
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return changed


# Wrong wherever they stand, but for the places in RIGHT.
WRONG: Final[list[Any]] = ["no", "\ud800", "é", "10.0.0.256", -1, 1.5, 1 << 40, True, {"a": 1}, ["x"], [[[]]]]
RIGHT: Final = {
    str: {"point", "kind"},
    float: {"rate", "after", "within", "timeout", "late"},
    bool: {"arriving", "awaited", "network", "keeps_source", "delete", "timed"},
}
OPTIONAL: Final = {
    "peers", "ports", "connections", "sights", "taps", "base", "matches", "minus", "arriving", "network",
    "tags", "plus", "idents", "source_port", "checksums", "after", "expect", "within", "delete", "awaited",
    "keeps_source", "timed", "late",
}  # fmt: skip
OF_FIXED_LENGTH: Final = [
    ("facts", ("ports", 0)),
    ("facts", ("connections", 0)),
    ("arm", ("sights", 0, "matches", 0)),
    ("arm", ("taps", 0, "filter", 0)),
    ("arm", ("templates", 0, "checksums", 0)),
    ("listen", ("sockets", 0)),
    ("fire", ("volleys", 0, "attempts")),
    ("fire", ("volleys", 0, "ports")),
    ("fire", ("volleys", 0, "shots", 0)),
    ("fire", ("volleys", 0, "shots", 0, 2, 0)),
    ("connect", ("sessions", 0)),
    ("connect", ("sessions", 0, 4, 0)),
    ("conntrack", ("tuples", 0)),
]


def _at(verb: str, path: Sequence[Any]) -> Any:  # noqa: ANN401
    """What stands at a place of a verb's request."""
    value: Any = REQUESTS[verb]
    for key in path:
        value = value[key]
    return value


def _mistakes() -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Verbs, places in their requests, and what is wrong there; `...` for nothing at all."""
    for verb, request in REQUESTS.items():
        for path in _paths(request):
            is_flag = isinstance(_at(verb, path), bool)
            for value in WRONG:
                if path[-1] not in RIGHT.get(type(value), ()) and not (value is True and is_flag):
                    yield verb, path, value
            if isinstance(path[-1], str) and path[-1] not in OPTIONAL:
                yield verb, path, ...
    for verb, path in OF_FIXED_LENGTH:
        yield verb, path, _at(verb, path)[:-1]
        yield verb, path, [*_at(verb, path), 1]


def _words(verb: str) -> set[str]:
    """The names of the fields of a verb's request, and those by which errors call the items of its lists."""
    words = {key for path in _paths(REQUESTS[verb]) for key in path if isinstance(key, str)}
    items = {
        "template",
        "sight",
        "tap",
        "volley",
        "protocol",
        "port",
        "address",
        "targets",
        "flow",
        "source",
        "undo",
    }
    return words | items | {"destination"}


def _refusal(agent: Agent, verb: str, path: Sequence[Any], value: object) -> str:
    """The error answer to a verb's request with something else at a place."""
    with pytest.raises(RefusedError) as caught:
        agent.ask(verb, **_changed(REQUESTS[verb], path, value))
    return str(caught.value)


@pytest.mark.lab
@pytest.mark.parametrize("verb", REQUESTS)
def test_what_is_wrong_is_named_by_its_field(agent: Agent, verb: str) -> None:
    """Of every field of every verb: another type, out of range, missing, too many of them."""
    mistakes = [(path, value) for mistaken, path, value in _mistakes() if mistaken == verb]
    for path, value in mistakes:
        error = _refusal(agent, verb, path, value)
        field, _colon, reason = error.partition(": ")

        assert set(field.split(".")) <= _words(verb), (path, value, error)
        assert reason


@pytest.mark.lab
@pytest.mark.parametrize(
    ("verb", "path", "value", "error"),
    [
        ("facts", ("peers", 0), "10.0.0", "peers: '10.0.0' is no address"),
        ("facts", ("ports", 0), [6], "ports: expected 2 items, not 1"),
        ("facts", ("connections", 0, 2), "n2", "connections: 'n2' is no address"),
        ("arm", ("nonce",), 1 << 32, "nonce: expected an integer from 0 to 4294967295"),
        ("arm", ("templates", 0, "data"), "?", "template.data: expected base64"),
        ("arm", ("templates", 0, "data"), "", "template.tags: expected an integer from 0 to -4"),
        ("arm", ("templates", 0, "network"), 1, "template.network: expected true or false"),
        ("arm", ("taps", 0, "kind"), "ear", "tap.kind: expected one of packet, raw, keep"),
        ("arm", ("taps", 0, "arriving"), 0, "tap.arriving: expected true or false"),
        ("arm", ("taps", 0, "awaited"), 0, "tap.awaited: expected true or false"),
        ("arm", ("taps", 1, "version"), 5, "tap.version: expected 4 or 6"),
        ("listen", ("mss",), 87, "mss: expected an integer from 88 to 32767"),
        ("listen", ("sockets", 1, 0), 4, "sockets.protocol: expected 6 or 17"),
        ("listen", ("sockets", 1, 2), 0, "sockets.port: expected an integer from 1 to 65535"),
        ("listen", ("sockets", 0, 4), None, "sockets.template: expected an integer from 0 to "),
        ("fire", ("rate",), float("nan"), "rate: expected a number from 0.01 to 1e+06"),
        ("fire", ("after",), float("inf"), "after: expected a number from 0 to 60"),
        ("fire", ("volleys", 0, "way"), "air", "volley.way: expected one of kernel, link"),
        ("fire", ("volleys", 0, "attempts"), [60, 5], "volley.attempts: at most 64 in all"),
        ("fire", ("volleys", 0, "ports"), [60000, 6000, 1], "volley.ports: they end at 65535"),
        ("fire", ("volleys", 0, "shots", 0, 1), "::1", "shots: a packet template, and a source"),
        ("fire", ("volleys", 0, "shots", 0, 2, 0, 1), "::1", "shots: both addresses of one family"),
        ("connect", ("attempt",), 64, "attempt: expected an integer from 0 to 63"),
        ("connect", ("sessions", 0, 0), "::1", "sessions: both addresses of one family"),
        ("conntrack", ("tuples", 0, 1), "::1", "tuples: both addresses of one family"),
        ("conntrack", ("delete",), 1, "delete: expected true or false"),
        ("collect", ("within",), 61, "within: expected a number from 0 to 60"),
    ],
)  # fmt: skip
def test_the_errors_say_what_was_expected(
    agent: Agent, verb: str, path: tuple[Any, ...], value: object, error: str
) -> None:
    """In words that help who wrote the request."""
    assert _refusal(agent, verb, path, value).startswith(error)


@pytest.mark.lab
def test_what_is_wrong_in_one_socket_holds_none(lab: Lab) -> None:
    """A request is carried out as a whole, or not at all."""
    with Agent.on(lab, "n1") as agent:
        agent.ask("arm", **REQUESTS["arm"])
        with pytest.raises(RefusedError, match=r"sockets\.port"):
            agent.ask("listen", **_changed(REQUESTS["listen"], ("sockets", 1, 2), 0))

        assert {"failed": []} == agent.ask("listen", **REQUESTS["listen"])


@pytest.mark.lab
def test_what_is_wrong_in_one_tap_opens_none(lab: Lab) -> None:
    """Also where the kernel refuses one: its errno's name is in the answer."""
    with Agent.on(lab, "n1") as agent:
        sockets = len(lab.run("n1", ["ss", "-0Hn"]).stdout.splitlines())
        with pytest.raises(RefusedError, match=r"^EINVAL: "):
            agent.ask("arm", **_changed(REQUESTS["arm"], ("taps", 1, "filter"), [[0xFFFF, 0, 0, 0]]))

        assert sockets == len(lab.run("n1", ["ss", "-0Hn"]).stdout.splitlines())


JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 2, 4, 6, 17, 63, 64, 255, 65535, 65536, 1 << 31, 1 << 32, 1 << 63, 10**100])
    | st.floats(allow_nan=True)
    | st.text(string.printable, max_size=8)
    | st.sampled_from(["10.77.2.11", "fd77:6e70:6c61:2::11", "kernel", "link", "raw", "packet", "AAAA"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
PLACES: Final = [(verb, path) for verb, request in REQUESTS.items() for path in _paths(request)]
# What may be right after all, and would then take its time.
SLOW: Final = {"after", "within", "timeout", "rate"}


def _one_answer(agent: Agent, verb: str, request: dict[str, Any]) -> dict[str, Any]:
    """The one answer to a request; also once another one has been answered there is no second."""
    number = agent.send(verb, **request)
    other = agent.send("facts")
    messages = [agent.line(), agent.line()]
    last = agent.send("facts")
    messages.append(agent.line())

    assert sorted([number, other]) == sorted(message["id"] for message in messages[:2])
    assert last == messages[2]["id"]
    assert "ok" in messages[2]
    return next(message for message in messages if message["id"] == number)


@pytest.mark.lab
@many
@given(
    st.sampled_from([place for place in PLACES if place[1][-1] not in SLOW]),
    JSON | st.just(...) | st.builds(lambda item, count: [item] * count, JSON, st.integers(0, 2000)),
)
def test_a_request_with_anything_in_it_gets_one_answer(
    agent: Agent, place: tuple[str, tuple[Any, ...]], value: object
) -> None:
    """A result or an error; never two, never none, and never a failure of the agent."""
    verb, path = place
    answer = _one_answer(agent, verb, _changed(REQUESTS[verb], path, value))

    assert ("ok" in answer) != ("error" in answer)
    assert "the agent failed" not in answer.get("error", "")


@pytest.mark.lab
@many
@given(st.sampled_from(sorted(REQUESTS)), st.data())
def test_a_request_of_anything_gets_one_answer(agent: Agent, verb: str, data: st.DataObject) -> None:
    """All fields at random."""
    fields = [field for field in REQUESTS[verb] if field not in SLOW]
    request = {field: data.draw(JSON) for field in fields if data.draw(st.booleans())}
    answer = _one_answer(agent, verb, request)

    assert ("ok" in answer) != ("error" in answer)
    assert "the agent failed" not in answer.get("error", "")


def _line(verb: str, number: int, edits: Sequence[tuple[float, bytes, int]]) -> bytes:
    """
    A request as it is sent, damaged: at places of it, bytes instead of some others.

    What says how long it takes stands at its beginning, which nothing happens to.
    """
    fields = REQUESTS[verb]
    head = json.dumps({"id": number, "verb": verb} | {key: fields[key] for key in SLOW & fields.keys()})
    tail = json.dumps({key: value for key, value in fields.items() if key not in SLOW}).encode()
    for place, data, taken in edits:
        at = int(place * len(tail))
        tail = tail[:at] + data + tail[at + taken :]
    return head.encode()[:-1] + b", " + tail[1:]


DAMAGE: Final = st.tuples(
    st.floats(0, 1),
    st.binary(max_size=3).filter(lambda data: b"\n" not in data)
    | st.sampled_from(
        [b"0", b"9", b"-", b".", b"e9", b'"', b"[", b"]", b"{", b"}", b",", b":", b"null", b"\\"]
    ),
    st.integers(0, 3),
)


@pytest.mark.lab
@many
@given(st.sampled_from(sorted(REQUESTS)), st.lists(DAMAGE, min_size=1, max_size=4))
def test_a_line_that_was_damaged_gets_one_answer(
    agent: Agent, verb: str, edits: list[tuple[float, bytes, int]]
) -> None:
    """Whether it is a request still or not: a result or an error, and the agent goes on."""
    agent.send("facts")
    number = agent.send("facts") + 1
    agent._numbers = number
    agent.write(_line(verb, number, edits) + b"\n")
    last = agent.send("facts")
    messages = [agent.line() for _ in range(4)]
    ids = [message["id"] for message in messages]
    (answer,) = (message for message in messages if message["id"] in (number, None))

    assert {number - 2, number - 1, last} == set(ids) - {number, None}
    assert ("ok" in answer) != ("error" in answer)
    assert "the agent failed" not in answer.get("error", "")


@pytest.mark.lab
def test_the_time_of_each_packet_is_told_where_it_is_asked_for(agent: Agent) -> None:
    """By its tag without the nonce, in the order of sending."""
    asked = {key: value for key, value in REQUESTS["fire"].items() if key != "timed"}
    times = agent.ask("fire", **asked, timed=True)["times"]

    assert [1 << ATTEMPT_BITS, 1 << ATTEMPT_BITS | 1] == [tag for tag, _at_us in times]
    assert 0 < times[0][1] <= times[1][1]
    assert [] == agent.ask("fire", **asked)["times"]


@pytest.mark.lab
def test_five_thousand_empty_volleys_are_fired(agent: Agent) -> None:
    """A chain of nothing does not nest."""
    volley = {**REQUESTS["fire"]["volleys"][0], "shots": []}
    for way in ("kernel", "link"):
        fired = agent.ask("fire", rate=5000, volleys=[{**volley, "way": way}] * 5000)

        assert (0, []) == (fired["sent"], fired["errors"])


@pytest.mark.lab
def test_a_big_request_and_a_big_answer_come_through(lab: Lab) -> None:
    """Some megabytes in each direction, in one line."""
    templates = [{"data": base64.b64encode(bytes(60_000)).decode(), "network": False}] * 60
    peers = [f"10.78.{n >> 8}.{n & 255}" for n in range(20_000)]
    with Agent.on(lab, "n1") as agent:
        assert {"taps": 0} == agent.ask("arm", nonce=0, flows=0, templates=templates)
        assert set(peers) == agent.ask("facts", peers=peers)["routes"].keys()


def test_these_requests_are_the_coordinators() -> None:
    """They have the fields that it sends, in the types that it sends them in."""
    kinds: dict[str, type[msgspec.Struct]] = {
        "facts": wire.AskFacts,
        "arm": wire.Arm,
        "listen": wire.Listen,
        "fire": wire.Fire,
        "connect": wire.Connect,
        "conntrack": wire.Conntrack,
        "collect": wire.Collect,
    }
    for verb, kind in kinds.items():
        assert REQUESTS[verb].keys() == {field.name for field in msgspec.structs.fields(kind)}
        msgspec.convert(REQUESTS[verb], kind)
