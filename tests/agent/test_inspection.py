"""The verb `inspect`: every kind of question, what keeps it harmless, and what becomes of one that kills."""

from __future__ import annotations

import base64
import os
import socket
import struct
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from netprobe.lab import Lab
from tests.agent.driver import TIMEOUT_S, Agent, RefusedError

Inspector: Final = partial(Agent, name="inspector")

_SYSTEM: Final = {"kind": "system"}
_NAMESPACE: Final = {"kind": "namespace"}


def _inspect(
    agent: Agent, *questions: object, root: str | Path = "/", within: float = 10.0, order: str = sys.byteorder
) -> list[dict[str, Any]]:
    answers = agent.ask(
        "inspect", root=str(root), within=within, order=order, questions=list(questions), timeout_s=30.0
    )["answers"]
    assert len(questions) == len(answers)
    return list(answers)


def test_the_system_describes_itself() -> None:
    """Without any privilege."""
    with Inspector() as agent:
        (answer,) = _inspect(agent, _SYSTEM)

    assert os.uname().release == answer["ok"]["release"]
    assert os.geteuid() == answer["ok"]["uid"]


def test_files_match_patterns_in_order(tmp_path: Path) -> None:
    """By wildcards in any part; what is hidden only where that is asked for."""
    for name in ("b.conf", "a.conf", ".hidden.conf", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.conf").mkdir()
    with Inspector() as agent:
        (answer,) = _inspect(agent, _files("/*.conf", "/c.txt", "/absent", "/.h*"), root=tmp_path)

    assert [
        ["/a.conf", "", False, "a.conf"],
        ["/b.conf", "", False, "b.conf"],
        ["/d.conf", "EISDIR", False, ""],
        ["/c.txt", "", False, "c.txt"],
        ["/.hidden.conf", "", False, ".hidden.conf"],
    ] == answer["ok"]["files"]


def _files(*patterns: str, most: int = 100) -> dict[str, object]:
    return {"kind": "files", "patterns": list(patterns), "most": most}


def test_a_long_file_is_cut() -> None:
    """So many bytes, and the note that there are more."""
    with Inspector() as agent:
        (answer,) = _inspect(agent, _files(__file__, most=10))

    assert [[__file__, "", True, Path(__file__).read_text()[:10]]] == answer["ok"]["files"]


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../../../etc/passwd", "up/../../etc/passwd", "/up/passwd"]
)
def test_no_link_leads_out_of_the_root(target: str, tmp_path: Path) -> None:
    """Absolute links are the root's, and nothing is above the root."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("the root's own")
    (root / "up").symlink_to("../../../etc")
    (root / "link").symlink_to(target)
    with Inspector() as agent:
        (answer,) = _inspect(agent, _files("/link"), root=root)

    assert [["/link", "", False, "the root's own"]] == answer["ok"]["files"]


def test_circles_and_pipes_hold_nobody_up(tmp_path: Path) -> None:
    """A link to itself is ELOOP, and a pipe that nobody writes to is not waited for."""
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    with Inspector() as agent:
        (answer,) = _inspect(agent, _files("/circle", "/pipe"), root=tmp_path)

    assert [["/circle", "ELOOP", False, ""], ["/pipe", "EINVAL", False, ""]] == answer["ok"]["files"]


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    """A file may have any bytes in it, and in its name."""
    (tmp_path / "file").write_bytes(b"\xff\x00z")
    os.close(os.open(os.fsencode(tmp_path) + b"/\xfe.conf", os.O_CREAT | os.O_WRONLY))
    with Inspector() as agent:
        (first, second) = _inspect(agent, _files("/file"), _files("/*.conf"), root=tmp_path)

    assert "�\0z" == first["ok"]["files"][0][3]
    assert 1 == len(second["ok"]["files"])


def test_places_tell_what_could_be_made(tmp_path: Path) -> None:
    """And make nothing."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "file").touch()
    paths = ["/etc", "/etc/cni/net.d", "/file", "/file/below"]
    with Inspector() as agent:
        (answer,) = _inspect(agent, {"kind": "places", "paths": paths}, root=tmp_path)

    assert [
        ["directory", "/etc", True, False],
        ["none", "/etc", True, False],
        ["file", "/", True, False],
        ["ENOTDIR", "/", True, False],
    ] == [place[:4] for place in answer["ok"]]
    assert ["etc", "file"] == sorted(path.name for path in tmp_path.iterdir())
    assert [] == list((tmp_path / "etc").iterdir())


def test_processes_are_found_by_name_and_program() -> None:
    """The test's own is there; the agent's are none of the answer."""
    with Inspector() as agent:
        (every, none) = _inspect(
            agent,
            {"kind": "processes", "pattern": "python|pytest"},
            {"kind": "processes", "pattern": "^no such program$"},
        )
        own = agent.pid

    assert os.getpid() in {each[0] for each in every["ok"]}
    assert own not in {each[0] for each in every["ok"]}
    assert [] == none["ok"]


_RTM_GETLINK, _RTM_DELLINK, _DUMP = 18, 17, 0x300
_ANY_LINK: Final = base64.b64encode(bytes(16)).decode()


def _netlink(
    kind: str, number: int, flags: int = 0, body: str = _ANY_LINK, protocol: int = 0
) -> dict[str, object]:
    return {"kind": kind, "protocol": protocol, "steps": [{"messages": [[number, flags, body]]}]}


def test_the_host_itself_is_only_read() -> None:
    """Messages that could change something in the host's own namespace are refused before they are sent."""
    refused = [
        _netlink("look", _RTM_DELLINK),
        _netlink("look", 16, _DUMP),
        _netlink("look", 10 << 8 | 2, protocol=12),  # NFT_MSG_DELTABLE
        _netlink("look", 1 << 8 | 2, protocol=12),  # IPCTNL_MSG_CT_DELETE
        _netlink("look", 1 << 8 | 3, protocol=12),  # IPCTNL_MSG_CT_GET_CTRZERO sets counters to zero
        _netlink("look", 6 << 8 | 4, protocol=12),  # IPSET_CMD_FLUSH
        _netlink("look", 16, body=base64.b64encode(b"\1\0\0\0").decode(), protocol=16),
        _netlink("look", 28, protocol=16),
        _netlink("look", 0, protocol=9),
    ]
    with Inspector() as agent:
        *answers, links = _inspect(agent, *refused, _netlink("look", _RTM_GETLINK, _DUMP))

    assert all("may change the host" in answer["error"] for answer in answers)
    assert any(b"lo\0" in bytes.fromhex(body) for _kind, body in links["ok"][0][1])


@pytest.mark.lab
def test_the_throwaway_namespace_is_not_the_hosts() -> None:
    """There is nothing in it but its own loopback device, and what the host has is not there."""
    with Lab.mesh(2) as lab, Agent.on(lab, "n1", name="inspector") as agent:
        away, here = _inspect(
            agent, _netlink("netlink", _RTM_GETLINK, _DUMP), _netlink("look", _RTM_GETLINK, _DUMP)
        )

    assert 1 == sum(b"lo\0" in bytes.fromhex(body) for _kind, body in away["ok"][0][1])
    assert len(away["ok"][0][1]) < len(here["ok"][0][1])


@pytest.mark.lab
def test_a_batch_is_one_datagram() -> None:
    """The first message that fails is the step's error, whichever of them it is."""
    begin = [16, 0, base64.b64encode(b"\0\0\0\n").decode()]
    wrong = [10 << 8, 0x404, base64.b64encode(b"\2\0\0\0").decode()]  # a table without a name
    with Inspector() as agent:
        (answer,) = _inspect(
            agent,
            {"kind": "netlink", "protocol": 12, "steps": [{"messages": [begin, wrong, [17, *begin[1:]]]}]},
        )

    assert [["EINVAL", []]] == answer["ok"]


def test_another_byte_order_is_not_sent() -> None:
    """What the coordinator has encoded for its own machine would be something else to the kernel here."""
    order = "big" if sys.byteorder == "little" else "little"
    with Inspector() as agent:
        answers = _inspect(agent, _netlink("look", _RTM_GETLINK, _DUMP), _SYSTEM, order=order)

    assert ["ENOSYS: the other byte order", None] == [answer.get("error") for answer in answers]


def test_a_python_without_ctypes_says_so_and_answers_the_rest() -> None:
    """Debian's python3-minimal is one; what it cannot ask is no refusal of the kernel's."""
    mount = {"kind": "act", "act": "mount"}
    with Inspector(first="import sys; sys.modules['ctypes'] = None") as agent:
        system, namespace, act = _inspect(agent, _SYSTEM, _NAMESPACE, mount)

    assert "ok" in system
    assert {"error": "ENOSYS: this Python has no ctypes", "namespace": True} == namespace
    assert act["error"].startswith("ENOSYS: ")


_HANGS: Final = """
import sys, time
sights = sys.modules["netprobe.agent.sights"]
inspection = sys.modules["netprobe.agent.inspection"]
inspection._ALONE_S = 0.2
inspection._KINDS["processes"] = lambda question, root: time.sleep(60)
"""
_DIES: Final = """
import os, sys
inspection = sys.modules["netprobe.agent.inspection"]
inspection._KINDS["processes"] = lambda question, root: os.kill(os.getpid(), 31)
"""
_PROCESSES: Final = {"kind": "processes", "pattern": "x"}


@pytest.mark.parametrize(("first", "error"), [(_HANGS, "SIGKILL"), (_DIES, "SIGSYS")])
def test_a_question_that_kills_or_hangs_is_the_only_one_without_an_answer(first: str, error: str) -> None:
    """Another child goes on with the next; the agent itself goes on as well."""
    with Inspector(first=first) as agent:
        answers = _inspect(agent, _SYSTEM, _PROCESSES, _files("/etc/passwd"), _PROCESSES, _SYSTEM)
        again = _inspect(agent, _SYSTEM)

    assert [None, error, None, error, None] == [answer.get("error") for answer in answers]
    assert "ok" in again[0]


def test_what_is_left_when_the_time_is_up_says_so() -> None:
    """The whole takes no longer than it may."""
    with Inspector(first=_HANGS.replace("0.2", "30")) as agent:
        answers = _inspect(agent, _SYSTEM, _PROCESSES, _SYSTEM, within=0.5)

    assert [None, "ETIME", "ETIME"] == [answer.get("error") for answer in answers]


def test_an_agent_that_ends_takes_its_child_along() -> None:
    """Its stdin closes while a question hangs: no process stays (the session's fixture looks for strays)."""
    with Inspector(first=_HANGS.replace("0.2", "30")) as agent:
        agent.send("inspect", root="/", within=30.0, order=sys.byteorder, questions=[_PROCESSES])
        assert [] == _inspect(agent)
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        stdin = agent.process.stdin
        assert stdin is not None
        stdin.close()
        agent.process.wait(TIMEOUT_S)

    assert 1 == len(children)
    assert not Path(f"/proc/{children[0]}").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"questions": [{"kind": "execute"}]},
        {"questions": [[]]},
        {"questions": {}},
        {"questions": [_SYSTEM] * 2001},
        {"root": 1},
        {"within": 0},
        {"within": 3600},
        {"order": None},
    ],
)
def test_a_request_is_checked_as_a_whole(changed: dict[str, object]) -> None:
    """Before any process is started."""
    request: dict[str, Any] = {
        "root": "/",
        "within": 1.0,
        "order": sys.byteorder,
        "questions": [_SYSTEM],
        **changed,
    }
    with Inspector() as agent, pytest.raises(RefusedError):
        agent.ask("inspect", **request)


@pytest.mark.parametrize(
    "question",
    [
        {"kind": "files"},
        {"kind": "files", "patterns": ["\0"], "most": 1},
        {"kind": "files", "patterns": ["/etc/passwd"], "most": -1},
        {"kind": "places", "paths": [3]},
        {"kind": "places", "paths": ["a\0b"]},
        {"kind": "processes", "pattern": "("},
        {"kind": "act", "act": "reboot"},
        {"kind": "look", "protocol": 0, "steps": [{"messages": []}]},
        {"kind": "look", "protocol": 0, "steps": [{"messages": [[18, 0, "no base64"]]}]},
        {"kind": "look", "protocol": 0, "steps": [{"messages": [[18, 0, ""]], "program_at": 0}]},
        {"kind": "look", "protocol": 99, "steps": []},
        {"kind": "look", "protocol": 31, "steps": []},
        {"kind": "socket", "family": 1 << 15, "type": 1, "protocol": 0},
        {"kind": "getsockopt", "family": 2, "type": 1, "protocol": 0},
    ],
)
def test_a_question_that_makes_no_sense_is_its_own_error(question: dict[str, object]) -> None:
    """The next one is answered."""
    with Inspector() as agent:
        first, second = _inspect(agent, question, _SYSTEM)

    assert "ok" in second
    assert "error" in first or first["ok"] in ([], {"files": [], "more": False}) or first["ok"][0][0]


@pytest.mark.lab
def test_a_program_is_loaded_and_its_descriptor_patched_in() -> None:
    """A message that wants a program that was not loaded is not sent."""
    returning = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    good = {"program": [3, base64.b64encode(returning).decode()]}
    bad = {"program": [3, base64.b64encode(returning[:8]).decode()]}
    wanting = {"messages": [[18, 0, _ANY_LINK]], "program_at": 4}
    with Inspector() as agent:
        first, second = _inspect(
            agent,
            {"kind": "netlink", "protocol": 0, "steps": [good]},
            {"kind": "netlink", "protocol": 0, "steps": [bad, wanting]},
        )

    assert [["", []]] == first["ok"]
    assert ["EINVAL", "EBADF"] == [step[0] for step in second["ok"]]


@pytest.mark.lab
def test_a_socket_opens_or_not() -> None:
    """In the throwaway namespace."""
    with Inspector() as agent:
        tcp, nothing = _inspect(
            agent,
            {"kind": "socket", "family": socket.AF_INET, "type": socket.SOCK_STREAM, "protocol": 0},
            {"kind": "socket", "family": socket.AF_INET, "type": socket.SOCK_STREAM, "protocol": 250},
        )

    assert {"ok": ""} == tcp
    assert {"error": "EPROTONOSUPPORT"} == nothing
