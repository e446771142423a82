"""Any run at all: what a document may hold, made for hypothesis."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from typing import TypeVar

import msgspec
from hypothesis import strategies as st

from netprobe.model import (
    RATIONED,
    Answer,
    Caveat,
    Cell,
    Connection,
    Evidence,
    Family,
    Fate,
    Flow,
    HeldPort,
    Hop,
    Host,
    HostReport,
    Interface,
    Inventory,
    Judgement,
    Protocol,
    Refusal,
    Reply,
    Role,
    Run,
    Seen,
    Segment,
    Session,
    Trace,
    Verdict,
    Word,
)
from netprobe.modes import MODES
from netprobe.probes import registry

_Any = TypeVar("_Any")

TEXT = st.text(max_size=12)
"""With control characters, line ends, quotes and every script there is; no lone surrogates."""
COUNT = st.integers(0, 2**31)
PORT = st.integers(1, 65535)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)).map(  # noqa: DTZ001 (made UTC below)
    lambda time: time.replace(tzinfo=timezone.utc).isoformat().replace("+00:00", "Z")
)
ADDRESSES = st.ip_addresses().map(str)
FATES = st.lists(
    st.tuples(st.builds(Fate, st.sampled_from(Seen), st.sampled_from(Answer), st.sampled_from(Word)), COUNT),
    max_size=3,
).map(tuple)


def tuples_of(elements: st.SearchStrategy[_Any]) -> st.SearchStrategy[tuple[_Any, ...]]:
    """Short tuples."""
    return st.lists(elements, max_size=3).map(tuple)


CONNECTIONS = st.builds(
    Connection, type=TEXT, name=TEXT, host=TEXT, user=TEXT, port=COUNT, identity=TEXT, options=tuples_of(TEXT)
)
SESSIONS = st.builds(
    Session,
    fates=FATES,
    stage=st.sampled_from(("", "handshake", "request", "answer")) | TEXT,
    error=TEXT,
)
EVIDENCE = st.builds(
    Evidence,
    protocol=st.sampled_from(Protocol),
    forwarded=st.booleans(),
    untested=TEXT,
    first=FATES,
    confirm=FATES,
    output=FATES,
    session=st.none() | SESSIONS,
    refusals=tuples_of(st.builds(Refusal, st.sampled_from(Word), TEXT | ADDRESSES, TEXT, COUNT)),
    state=TEXT,
    holder=st.none() | TEXT,
    nat=TEXT,
    failing_ports=tuples_of(PORT),
    passing_ports=tuples_of(PORT),
    notes=tuples_of(TEXT | st.just(RATIONED)),
)
JUDGEMENTS = st.builds(
    Judgement,
    verdict=st.sampled_from(Verdict),
    segment=st.none() | st.sampled_from(Segment),
    by=TEXT | ADDRESSES,
    caveats=st.lists(st.sampled_from(Caveat), max_size=3, unique=True).map(tuple),
    detail=TEXT,
)


HOPS = st.builds(
    Hop,
    ttl=COUNT,
    reply=st.sampled_from(Reply),
    by=TEXT | ADDRESSES,
    said=TEXT,
    rtt_ms=st.none() | FINITE,
    is_unsure=st.booleans(),
)


def traces(flow: Flow) -> st.SearchStrategy[Trace]:
    """Traces of a flow, beside another one or not; they need not make sense."""
    some = {
        "flow": st.just(flow),
        "error": st.just("") | TEXT,
        "hops": tuples_of(HOPS),
        "left": st.booleans(),
        "last_ttl": COUNT,
        "last_by": TEXT,
        "arrived_ttl": st.none() | COUNT,
        "passed": st.booleans(),
        "refusal": st.none() | st.builds(Refusal, st.sampled_from(Word), TEXT, TEXT, COUNT),
        "lost_ttl": st.none() | COUNT | st.integers(0, 3),
    }
    return st.builds(Trace, **some, reference=st.none() | st.builds(Trace, **some))


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Runs that hold together: their flows are between their hosts and each has its number."""
    names = draw(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=5, unique=True))
    pairs = st.sampled_from(list(itertools.permutations(names, 2)))
    hosts = tuple(
        Host(
            name=name,
            addresses=tuple(draw(st.lists(ADDRESSES, min_size=1, max_size=2))),
            roles=tuple(draw(st.lists(st.sampled_from(Role), unique=True))),
            connection=draw(CONNECTIONS),
            sudo=draw(st.booleans()),
        )
        for name in names
    )
    probes = st.sampled_from(tuple(registry())) | TEXT
    cells = []
    for number in range(draw(st.integers(0, 8))):
        src, dst = draw(pairs)
        cells.append(
            Cell(
                flow=Flow(
                    number,
                    draw(probes),
                    draw(st.sampled_from(Family)),
                    draw(st.sampled_from(Protocol)),
                    draw(st.none() | PORT),
                    src,
                    draw(ADDRESSES),
                    dst,
                    draw(ADDRESSES),
                    draw(st.just("") | ADDRESSES),
                ),
                judgement=draw(JUDGEMENTS),
                evidence=draw(EVIDENCE),
                sent=draw(COUNT),
                arrived=draw(COUNT),
            )
        )
    reports = [
        HostReport(
            name=name,
            error=draw(TEXT),
            hostname=draw(TEXT),
            kernel=draw(TEXT),
            interfaces=draw(tuples_of(st.builds(Interface, name=TEXT, mtu=COUNT, addresses=tuples_of(TEXT)))),
            ports_in_use=draw(
                tuples_of(
                    st.builds(
                        HeldPort,
                        protocol=st.sampled_from(Protocol),
                        address=ADDRESSES,
                        port=PORT,
                        program=TEXT,
                    )
                )
            ),
            uid=draw(st.none() | COUNT),
            clock_offset_ms=draw(st.none() | FINITE),
            networks=tuple(draw(st.lists(TEXT | ADDRESSES.map("{}/24".format), max_size=2))),
        )
        for name in names
    ]
    return Run(
        inventory=Inventory(
            hosts=hosts,
            probes=draw(st.none() | tuples_of(probes)),
            modes=draw(st.none() | tuples_of(st.sampled_from(tuple(MODES)) | TEXT)),
            ports=draw(st.dictionaries(probes, st.lists(PORT, max_size=2).map(tuple), max_size=2)),
            pod_cidr=draw(st.sampled_from([(), ("10.244.0.0/16",), ("fd00:10:244::/56", "10.244.0.0/30")])),
        ),
        hosts=tuple(reports),
        cells=tuple(cells),
        traces=tuple(draw(traces(cell.flow)) for cell in cells[: draw(st.integers(0, 3))]),
        started=draw(TIMES),
        finished=draw(TIMES),
        packets=draw(COUNT),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
    )


def shuffled(run: Run, order: list[int]) -> Run:
    """The same cells in another order."""
    return msgspec.structs.replace(run, cells=tuple(run.cells[at] for at in order))
