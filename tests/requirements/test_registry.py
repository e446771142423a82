"""The registry: the ids that are a contract, the page's lines, the documentation, and what hosts may lie."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netprobe import wire
from netprobe.access import Secret
from netprobe.coordinator.check import decode
from netprobe.findings import Criterion, Level, Result
from netprobe.model import Host, Inventory, Role
from netprobe.questions import (
    Failed,
    File,
    FileList,
    HeldAddress,
    Holder,
    LegacyTable,
    Link,
    NetworkFacts,
    Outcome,
    Page,
    Place,
    Process,
    Question,
    RouteEntry,
    SystemFacts,
    Visit,
)
from netprobe.requirements import Context, Evidence, criteria, groups, modes, registry
from netprobe.requirements.given import Cluster, Credentials, Given
from netprobe.requirements.page import LINES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (Path(__file__).parent / "page.txt").read_text(encoding="utf-8")

OWED: Final[dict[str, str]] = {}
"""Requirements of the page that are not there yet, and the group that will have them; empty in the end."""

_HEADINGS: Final = frozenset(
    {
        "Skip to main content",
        "Version: 3.28 (latest)",
        "System requirements",
        "Node requirements",
        "Key/value store",
        "Kubernetes requirements",
        "Supported versions",
        "CNI plug-in enabled",
        "Other network providers",
        "Supported kube-proxy modes",
        "IP pool configuration",
        "Application layer policy requirements",
        "Kernel Dependencies",
    }
)


def _lines() -> list[str]:
    """The page's lines without its headings and its ports, in the form of `LINES`."""
    before, _heading, rest = PAGE.partition("\nNetwork requirements\n")
    ports, privilege, after = rest.partition("\nEnsure that Calico has the CAP_SYS_ADMIN privilege.\n")
    assert "TCP 179" in ports
    lines = (before + privilege + after).replace("\u2019", "'").splitlines()
    plain = (" ".join(line.strip().lstrip("•").split()) for line in lines)
    return [line for line in plain if line and line not in _HEADINGS]


def test_every_line_of_the_page_has_its_row() -> None:
    """In the page's order, to the letter; but for headings, and for ports, which are probed."""
    assert _lines() == [line for line, _ids in LINES]


def test_every_line_has_requirements_that_are_there() -> None:
    """Or that somebody owes; nothing is owed that is there."""
    named = {each for _line, ids in LINES for each in ids}

    assert all(ids for _line, ids in LINES)
    assert set() == named - registry().keys() - OWED.keys()
    assert set() == registry().keys() & OWED.keys()


def test_the_documentation_is_that_of_the_registry() -> None:
    """`scripts/print-requirements` prints `docs/requirements.md`."""
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "print-requirements"],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT)},
    )

    assert printed.stdout == (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")


def test_ids_are_a_contract() -> None:
    """Those of the page that this registry has; more may come, none may go."""
    ids = {
        *("arch", "kernel", "distribution", "device-veth", "device-ipip", "device-vxlan", "device-wireguard"),
        *("cap-sys-admin", "cap-net-admin", "table-filter", "table-nat", "table-mangle", "table-raw"),
        *(f"match-{name}" for name in ("set", "rpfilter", "addrtype", "comment", "conntrack", "icmp", "tcp")),
        *(f"match-{name}" for name in ("udp", "ipvs", "icmpv6", "mark", "multiport", "sctp")),
        *(f"target-{name}" for name in ("REJECT", "ACCEPT", "DROP", "LOG")),
        *(f"target-{name}" for name in ("MARK", "MASQUERADE", "DNAT", "NFLOG")),
        *("ipset", "conntrack", "conntrack-sctp", "ipvs", "ebpf-tc", "xdp"),
        *("networkmanager", "networkd", "firewalld", "iptables-managers", "other-provider"),
        *("cni-conf-dir", "cni-bin-dir", "privileged-pods"),
        *("datastore", "kubernetes-version", "kube-proxy-mode", "ip-pool-overlap", "istio"),
    }

    assert set() == ids - registry().keys()


def test_no_id_is_given_twice() -> None:
    """The registry has every requirement of every group."""
    assert len(registry()) == sum(len(group.requirements) for group in groups())
    assert all(re.fullmatch(r"[a-z0-9]+(-[A-Za-z0-9]+)*", each) for each in registry())


@pytest.mark.parametrize("each", criteria(), ids=lambda each: each.id)
def test_a_requirement_says_all_there_is_to_say(each: Criterion) -> None:
    """A title, the source's words, the method and the fix; modes are such as can be chosen."""
    assert all((each.title, each.source, each.method, each.fix, each.group))
    assert set(each.modes) <= set(modes())
    assert each.title == each.title.strip()


_TEXT: Final = st.text(max_size=30) | st.sampled_from(["", "ENOENT", "EPERM", "EPROTONOSUPPORT", "EINVAL"])
_NUMBER: Final = st.integers(0, 0xFFFFFFFF)
_INDEX: Final = st.integers(0, 3)
_ADDRESS: Final = st.ip_addresses().map(str) | st.sampled_from(["192.0.2.1", "192.0.2.2", "10.244.0.1"])
_BODY: Final = _TEXT | st.recursive(
    st.none() | st.integers() | _TEXT | st.sampled_from(["v1.29.3", "3.5.0", "2.3.8"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["gitVersion", "etcdserver", "etcdcluster", "kind", "data", "rows", "cells", "name"]
            ),
            inner,
        )
    ),
    max_leaves=6,
).map(lambda value: msgspec.json.encode(value).decode())
_FILE_LISTS: Final = st.lists(
    st.builds(File, path=_TEXT, error=_TEXT, cut=st.booleans(), text=_TEXT), max_size=3
)
_STRATEGIES: Final[dict[Any, st.SearchStrategy[Any]]] = {
    str: _TEXT,
    SystemFacts: st.builds(
        SystemFacts,
        release=_TEXT | st.sampled_from(["3.9", "3.10.0", "4.18", "6.1"]),
        machine=_TEXT,
        hostname=_TEXT,
        python=_TEXT,
        uid=_NUMBER,
        capabilities=st.integers(0, 1 << 41),
        seccomp=_NUMBER,
        uid_map=st.lists(_TEXT, max_size=3),
        time=st.floats(allow_nan=False, allow_infinity=False),
    ),
    list[File]: _FILE_LISTS,
    NetworkFacts: st.builds(
        NetworkFacts,
        links=st.lists(
            st.builds(Link, index=_INDEX, name=_TEXT, kind=_TEXT, mtu=_NUMBER, mac=_TEXT, up=st.booleans()),
            max_size=3,
        ),
        addresses=st.lists(
            st.builds(HeldAddress, index=_INDEX, address=_ADDRESS, length=st.integers(0, 32)), max_size=3
        ),
        routes=st.lists(
            st.builds(
                RouteEntry,
                network=_ADDRESS.map("{}/16".format),
                gateway=_ADDRESS | st.just(""),
                index=_INDEX,
                table=_NUMBER,
                protocol=st.integers(0, 255),
                type=_TEXT,
            ),
            max_size=3,
        ),
        more=st.booleans(),
    ),
    list[Visit]: st.lists(
        st.builds(
            Visit,
            error=_TEXT,
            met=st.booleans(),
            expires=_TEXT,
            pages=st.lists(
                st.builds(
                    Page, status=st.sampled_from([200, 401, 0, 1 << 31]), cut=st.booleans(), body=_BODY
                ),
                max_size=2,
            ),
        ),
        max_size=4,
    ),
    FileList: st.builds(
        FileList,
        files=_FILE_LISTS,
        more=st.booleans(),
    ),
    list[Place]: st.lists(
        st.builds(
            Place,
            kind=_TEXT,
            parent=_TEXT,
            writable=st.booleans(),
            read_only=st.booleans(),
            free=_NUMBER,
            no_exec=st.booleans(),
        ),
        max_size=3,
    ),
    list[Process]: st.lists(
        st.builds(
            Process,
            pid=_NUMBER,
            name=_TEXT,
            uid=_NUMBER,
            argv=st.lists(_TEXT, max_size=3),
            is_here=st.none() | st.booleans(),
        ),
        max_size=3,
    ),
    list[Holder]: st.lists(
        st.builds(
            Holder, protocol=_NUMBER, address=_TEXT, port=st.sampled_from([4789, 51820]), program=_TEXT
        ),
        max_size=3,
    ),
    list[LegacyTable]: st.lists(
        st.builds(
            LegacyTable, version=_NUMBER, name=_TEXT, entries=st.none() | _NUMBER, chains=st.integers(0, 5)
        ),
        max_size=3,
    ),
    list[Outcome]: st.lists(
        st.builds(
            Outcome,
            error=_TEXT,
            answers=st.lists(st.tuples(_NUMBER, _TEXT | st.binary(max_size=40).map(bytes.hex)), max_size=3),
        ),
        max_size=6,
    ),
}
"""Answers of each form, of a host that says anything; a new form has its line here."""
_FAILURES: Final = st.builds(Failed, error=_TEXT, namespace=st.booleans())

HOSTS: Final = (
    Host(name="a", addresses=("192.0.2.1", "2001:db8::1"), roles=(Role.NODE, Role.APISERVER)),
    Host(name="b", addresses=("192.0.2.2",), roles=(Role.NODE, Role.ETCD)),
)
INVENTORY: Final = Inventory(
    hosts=HOSTS, pod_cidr=("10.244.0.0/16", "fd00:10:244::/56"), service_cidr=("10.96.0.0/12",)
)
GIVEN: Final = Given(
    istio="1.10",
    cluster=Cluster(
        host="192.0.2.1", port=6443, name="", credentials=Credentials(certificate="PEM", key=Secret("KEY"))
    ),
)


@st.composite
def evidence(draw: st.DrawFn, questions: tuple[Question[Any], ...], host: Host) -> Evidence:
    """What a host answers to some questions."""
    answers = {each: draw(_STRATEGIES[each.answer] | _FAILURES) for each in dict.fromkeys(questions)}
    return Evidence(host=host, answers=answers)


@pytest.mark.parametrize("name", registry())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_requirement_judges_whatever_a_host_says(name: str, data: st.DataObject) -> None:
    """A result and a reason, and no traceback; what is recommended never fails."""
    requirement = registry()[name]
    fleet = {
        host.name: data.draw(evidence(requirement.questions(INVENTORY, host, GIVEN), host)) for host in HOSTS
    }
    finding = requirement.finding(Context(own=fleet["a"], fleet=fleet, inventory=INVENTORY, given=GIVEN))

    assert finding.seen or finding.result is Result.UNKNOWN
    assert requirement.level is Level.REQUIRED or finding.result is not Result.FAIL
    assert finding.fix or finding.result not in (Result.FAIL, Result.WARN)


@pytest.mark.parametrize("name", registry())
def test_what_has_no_answer_is_unknown(name: str) -> None:
    """A host that is lost, or could be asked nothing, neither passes nor fails."""
    requirement = registry()[name]
    lost = Evidence(host=HOSTS[0], answers={}, lost="no route")
    questions = requirement.questions(INVENTORY, HOSTS[0], GIVEN)
    unanswered = {each: Failed("ETIME") for each in questions}
    mute = Evidence(host=HOSTS[0], answers=unanswered)

    # What asks nothing has its answer from the inventory alone.
    for own in (lost, mute) if questions else (lost,):
        finding = requirement.finding(
            Context(own=own, fleet={"a": own, "b": own}, inventory=INVENTORY, given=GIVEN)
        )
        assert Result.UNKNOWN is finding.result
        assert finding.seen


_KINDS: Final = {
    type(each): each for one in registry().values() for each in one.questions(INVENTORY, HOSTS[0], GIVEN)
}


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
@given(answer=st.recursive(st.none() | st.booleans() | st.integers() | _TEXT, st.lists))
def test_an_answer_is_of_its_form_or_refused(kind: type[Question[Any]], answer: object) -> None:
    """What a host says is decoded as what was asked for, or the host talks garbage."""
    inspected = wire.Inspected(answers=[wire.Answer(ok=msgspec.Raw(msgspec.json.encode(answer)))])
    question = _KINDS[kind]
    try:
        found = decode([question], inspected)[question]
    except wire.ProtocolError:
        return
    assert msgspec.convert(msgspec.to_builtins(found), type=question.answer) == found


def test_a_wrong_number_of_answers_is_garbage() -> None:
    """No answer is taken for that of another question."""
    with pytest.raises(wire.ProtocolError, match="0 answers to 1 questions"):
        decode([next(iter(_KINDS.values()))], wire.Inspected(answers=[]))
