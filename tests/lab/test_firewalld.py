"""The real firewalld in its default zone, with a message bus of its own, inside a host of a lab."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from netprobe.coordinator.check import check
from netprobe.findings import Result
from netprobe.lab import Lab, describe
from netprobe.model import Segment, Verdict
from tests.lab.live.programs import Lines
from tests.lab.probing import Held, evidence, probe

pytestmark = pytest.mark.lab

PAIR: Final = "name: two hosts\nhosts: [a, {name: b, roles: [node, apiserver]}]\n"
_TIMEOUT_S: Final = "30"
_BUS: Final = """
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A host with firewalld as it is after its installation."""
    place = tmp_path_factory.mktemp("firewalld")
    with Lab(describe(PAIR)) as lab:
        _start(lab, place)
        yield lab


def _start(lab: Lab, place: Path) -> None:
    (place / "bus.conf").write_text(_BUS.format(path=place / "bus"))
    (place / "etc").mkdir()
    bus = ["dbus-daemon", f"--config-file={place / 'bus.conf'}", "--nofork", "--print-address"]
    Lines(lab.popen("b", bus, stdout=subprocess.PIPE).stdout).find("bus")
    log = f"--log-file={place / 'log'}"
    daemon = [
        "firewalld",
        "--nofork",
        "--nopid",
        f"--system-config={place / 'etc'}",
        "--log-target=file",
        log,
    ]
    lab.popen("b", [*_env(place), *daemon])
    # It has its name on the bus as soon as its rules are loaded.
    lab.run(
        "b",
        [*_env(place), "gdbus", "wait", "--system", "--timeout", _TIMEOUT_S, "org.fedoraproject.FirewallD1"],
    )
    state = lab.run("b", [*_env(place), "firewall-cmd", "--state"])

    assert "running" == state.stdout.strip()


def _env(place: Path) -> list[str]:
    return ["env", f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={place / 'bus'}"]


def test_the_default_zone_refuses_all_that_calico_needs(lab: Lab) -> None:
    """
    It says so by ICMP, in the host's own name; what the host itself begins is let out, and answers in.
    """
    run = probe(lab)

    for cell in run.cells:
        here = lab.hosts["b"].address(cell.flow.family)
        refused = Held(Verdict.REJECTED, Segment.DESTINATION_INGRESS, here)
        expected = refused if cell.flow.dst == "b" else Held(Verdict.OPEN)

        assert expected == Held.of(cell)._replace(caveats=()), evidence(cell)
        if cell.flow.dst == "b":
            assert "administratively prohibited" in cell.judgement.detail


def test_a_port_that_is_opened_is_open(lab: Lab) -> None:
    """
    As the documentation of Kubernetes has it done; the others stay as they are.
    """
    lab.run("b", ["nft", "insert rule inet firewalld filter_IN_public_allow tcp dport 179 accept"])
    run = probe(lab, "bgp", "apiserver")

    for cell in run.cells:
        is_open = cell.flow.dst == "a" or cell.flow.probe == "bgp"

        assert (Verdict.OPEN if is_open else Verdict.REJECTED) is cell.judgement.verdict, evidence(cell)


def test_a_check_finds_it_on_the_host_where_it_runs(lab: Lab, tmp_path: Path) -> None:
    """
    By its process and the tables that it has in the kernel; the host beside it has neither.
    """
    result = trio.run(check, lab.inventory(), None, str(tmp_path))
    found = {
        (host.name, each.id): (each.result, each.seen) for host in result.hosts for each in host.findings
    }

    assert Result.PASS is found["a", "firewalld"][0]
    assert Result.FAIL is found["b", "firewalld"][0]
    assert re.fullmatch(r"firewalld \(pid \d+\) runs", found["b", "firewalld"][1])
    assert Result.WARN is found["b", "nft-tables"][0]
    assert "inet firewalld filter_INPUT" in found["b", "nft-tables"][1]
