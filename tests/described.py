"""The labs that are described in files, and what their descriptions say that is found in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import netprobe.lab
from netprobe import plan
from netprobe.lab import Lab
from netprobe.model import Family, Protocol, Segment, Verdict

SCENARIOS: Final = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))
DEMO: Final = Path(netprobe.lab.__file__).with_name("demo.yaml")

PROTOCOLS: Final = [
    (Protocol.TCP, Family.IPV4),
    (Protocol.TCP, Family.IPV6),
    (Protocol.UDP, Family.IPV4),
    (Protocol.UDP, Family.IPV6),
    (Protocol.IPIP, Family.IPV4),
]
"""What probes are made of, each in its families."""


def shown(paths: Iterable[Path]) -> set[tuple[Verdict, Segment | None, Protocol, Family]]:
    """What the cells of these labs hold."""
    labs = [Lab.from_file(path) for path in paths]
    flows = ((lab, flow) for lab in labs for flow in plan.flows(lab.inventory()))
    return {(*lab.expectations.of(flow), flow.protocol, flow.family) for lab, flow in flows}
