"""The coordinator's end of a conversation: bytes in any portions, replies out, and nothing else ever."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netprobe import wire

HELLO: Final = b'{"hello":"netprobe","protocol":1,"pid":7}\n'
ANSWERS: Final = b'{"id":1,"ok":{"taps":3}}\n{"id":2,"error":"EPERM: no"}\n'
KINDS: Final = (
    wire.Armed,
    wire.Facts,
    wire.Listening,
    wire.Fired,
    wire.Connected,
    wire.Tracked,
    wire.Collected,
    wire.Nothing,
)


def _hear(data: bytes, portions: list[int]) -> tuple[list[wire.Reply], list[str], bool, str]:
    """The replies, the noise, whether there was a hello, and the complaint, if any, about all of `data`."""
    conversation = wire.Conversation()
    replies: list[wire.Reply] = []
    edges = sorted({0, len(data), *(portion % (len(data) + 1) for portion in portions)})
    complaint = ""
    try:
        for start, end in itertools.pairwise(edges):
            replies += conversation.receive(data[start:end])
    except wire.ProtocolError as error:
        complaint = str(error)
    return replies, conversation.noise, conversation.greeted, complaint


def _greeted() -> wire.Conversation:
    conversation = wire.Conversation()
    assert [] == conversation.receive(HELLO)
    assert conversation.greeted
    return conversation


@pytest.mark.parametrize("step", [1, 2, 7, 1000], ids=lambda step: f"{step} at a time")
def test_answers_come_out_however_the_bytes_came_in(step: int) -> None:
    """Byte by byte, in portions, or all at once."""
    data = HELLO + ANSWERS
    replies, noise, greeted, complaint = _hear(data, list(range(0, len(data), step)))

    assert [1, 2] == [reply.id for reply in replies]
    assert wire.Armed(taps=3) == wire.result(replies[0], wire.Armed)
    assert ([], True, "") == (noise, greeted, complaint)


def test_what_is_not_a_whole_line_waits() -> None:
    """The newline makes the line, and what follows it belongs to the next one."""
    conversation = _greeted()

    assert [] == conversation.receive(b'{"id":1,')
    assert [1] == [reply.id for reply in conversation.receive(b'"ok":{}}\n{"id":2,"o')]
    assert [2] == [reply.id for reply in conversation.receive(b'k":{}}\n')]


def test_an_error_answer_is_raised() -> None:
    """It is the agent's own word about one request; the conversation goes on."""
    replies, *_ = _hear(HELLO + ANSWERS, [])
    with pytest.raises(wire.AgentError, match="EPERM: no"):
        wire.result(replies[1], wire.Armed)


def test_before_the_hello_anything_may_come() -> None:
    """A banner, a profile that prints, JSON of somebody else; it is kept for the case that no hello comes."""
    banner = b'Welcome!\r\n\n  \xff\xfe\n{"hello": 1}\n{"id":1,"ok":{}}\n'
    replies, noise, greeted, complaint = _hear(banner + HELLO + ANSWERS, [])

    assert ["Welcome!", "��", '{"hello": 1}', '{"id":1,"ok":{}}'] == noise
    assert ([1, 2], True, "") == ([reply.id for reply in replies], greeted, complaint)


def test_too_many_lines_before_the_hello_are_too_many() -> None:
    """A host that prints for ever is not waited for until the timeout."""
    replies, noise, greeted, complaint = _hear(b"y\n" * 1000, [])

    assert ([], False) == (replies, greeted)
    assert 201 == len(noise)
    assert "200 lines, and none of them an agent's hello; the last: 'y'" == complaint


@pytest.mark.parametrize("is_greeted", [False, True])
def test_a_line_without_an_end_is_cut_off(is_greeted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long, it costs no more memory than the longest line that there may be."""
    monkeypatch.setattr(wire, "MAX_LINE_BYTES", 4 << 20)
    conversation = _greeted() if is_greeted else wire.Conversation()
    most = 4 if is_greeted else 1
    for _ in range(most):
        assert [] == conversation.receive(bytes(1 << 20))
    with pytest.raises(wire.ProtocolError, match=f"a line of over {most} MiB"):
        conversation.receive(b"\0")


def test_noise_is_shortened() -> None:
    """What is quoted in a reason fits into it."""
    _replies, (noise,), *_ = _hear(b"a" * 10_000 + b"\n" + HELLO, [])

    assert "a" * 300 == noise


@pytest.mark.parametrize("protocol", [0, 2, -1, 1 << 40])
def test_another_protocol_is_refused_by_number(protocol: int) -> None:
    """An agent of another version is not talked to."""
    conversation = wire.Conversation()
    with pytest.raises(wire.ProtocolError, match=f"^an agent of protocol {protocol}, not {wire.PROTOCOL}$"):
        conversation.receive(HELLO.replace(b":1,", f":{protocol},".encode()))

    assert not conversation.greeted


GARBAGE: Final = (
    b"",
    b"Segmentation fault",
    b"[]",
    b"1",
    b"null",
    b'"id"',
    b'{"id":1.5}',
    b'{"id":"1"}',
    b'{"id":1e400}',
    b'{"id":1,"error":5}',
    b'{"id":1,"error":null}',
    b'{"id":1,"ok":}',
    b'{"id":1,"ok":\xff}',
    b'{"id":1,"ok":"\xff',
    b'{"id":1,"ok":"\\ud800"}',
    b'{"id":' + b"9" * 10_000 + b"}",
    b'{"id":1,"ok":' + b"[" * 100_000,
    b'{"id":1,"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
)


@pytest.mark.parametrize("line", GARBAGE, ids=lambda line: repr(line[:20]))
def test_after_the_hello_a_line_is_an_answer_or_garbage(line: bytes) -> None:
    """What has no answer's form means that the agent cannot be trusted any more; a part of it is quoted."""
    with pytest.raises(wire.ProtocolError, match=r"^not an agent's answer: ") as caught:
        _greeted().receive(line + b"\n")

    assert len(str(caught.value)) < 500
    assert 1 == len(str(caught.value).splitlines())


@given(
    st.lists(st.sampled_from([HELLO, ANSWERS, *(g[:50] + b"\n" for g in GARBAGE)])), st.lists(st.integers(0))
)
def test_portions_make_no_difference(lines: list[bytes], portions: list[int]) -> None:
    """What is heard does not depend on where the bytes were cut."""
    data = b"".join(lines)
    whole, cut = _hear(data, []), _hear(data, portions)

    assert whole[1:] == cut[1:]
    assert [each.id for each in cut[0]][: len(whole[0])] == [each.id for each in whole[0]]


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_are_anything_but_replies_or_a_protocol_error(data: bytes, is_greeted: bool) -> None:
    """Whatever comes from a host, no other exception comes out."""
    conversation = _greeted() if is_greeted else wire.Conversation()
    with contextlib.suppress(wire.ProtocolError):
        assert all(isinstance(each, wire.Reply) for each in conversation.receive(data + b"\n"))


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def _nearly(draw: st.DrawFn, kind: Any) -> Any:  # noqa: ANN401
    """An object with fields of a kind, some of them as they should be."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    return {name: draw(JSON | _of(type_)) for name, type_ in fields.items() if draw(st.booleans())}


def _of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401
    """JSON as it should be for a simple type, anything for others."""
    simple: dict[object, st.SearchStrategy[Any]] = {
        int: st.integers(0, 1 << 40),
        float: st.floats(0, 1e9),
        str: st.text(max_size=5),
        bool: st.booleans(),
    }
    return simple.get(kind, st.lists(st.lists(st.integers() | st.text(max_size=5), max_size=3), max_size=3))


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), JSON | _nearly(kind))))
def test_a_result_has_its_form_or_is_a_protocol_error(case: tuple[type[msgspec.Struct], Any]) -> None:
    """No answer makes anything else of the coordinator than it expects."""
    kind, answer = case
    line = json.dumps({"id": 1, "ok": answer}).encode()
    with contextlib.suppress(wire.ProtocolError):
        (reply,) = _greeted().receive(line + b"\n")

        assert isinstance(wire.result(reply, kind), kind)


@pytest.mark.parametrize("line", [b'{"id":1}', b'{"id":1,"error":""}'])
def test_an_answer_with_neither_result_nor_error_is_garbage(line: bytes) -> None:
    """It would otherwise pass for an empty result."""
    (reply,) = _greeted().receive(line + b"\n")
    with pytest.raises(wire.ProtocolError, match="an answer that is no Nothing"):
        wire.result(reply, wire.Nothing)


@given(st.integers(1, 5))
@example(3)
def test_requests_are_numbered_lines(count: int) -> None:
    """Each is one line of JSON with a number of its own, its verb and its fields."""
    conversation = wire.Conversation()
    requests = [conversation.request("collect", wire.Collect(expect=n, within=0.5)) for n in range(count)]

    assert list(range(1, count + 1)) == [number for number, _data in requests]
    for number, data in requests:
        assert data.endswith(b"\n")
        assert 1 == data.count(b"\n")
        assert {"id": number, "verb": "collect", "expect": number - 1, "within": 0.5} == json.loads(data)
