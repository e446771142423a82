"""BIRD 2 in a lab, configured as Calico configures it, with a session to each other host over each family."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from string import Template
from typing import Final

from netprobe.lab import Lab
from netprobe.model import Family
from tests.lab.live.programs import Program

PORT: Final = 179
AS_NUMBER: Final = 64512
"""Calico's default."""

# Calico's template of node-to-node mesh peers has these options, with 2 and 5 s for the delays.
_SPEAKER: Final = Template("""
log stderr all;
timeformat protocol iso long ms;
router id $address;
protocol device { }
template bgp peer {
    debug { states };
    local as $number;
    connect delay time 1;
    connect retry time 1;
    graceful restart;
    $options
}
""")
_SESSION: Final = Template("""
protocol bgp $name from peer {
    source address $address;
    neighbor $peer as $number;
    $family { import all; export none; };
}
""")


class Bird:
    """A BIRD; `options` go into the template of its sessions."""

    def __init__(self, lab: Lab, name: str, directory: Path, options: str = "") -> None:
        self._lab = lab
        self._on = name
        here = lab.hosts[name].addresses
        text = _SPEAKER.substitute(address=here[Family.IPV4], number=AS_NUMBER, options=options)
        self.sessions: set[str] = set()
        for peer, host in lab.hosts.items():
            for family, address in host.addresses.items() if peer != name else ():
                session = f"{peer}_{family.value}"
                keys = {"name": session, "address": here[family], "peer": address, "family": family.value}
                text += _SESSION.substitute(keys, number=AS_NUMBER)
                self.sessions.add(session)
        configuration, self._control = directory / f"{name}.conf", directory / f"{name}.ctl"
        configuration.write_text(text)
        argv = ["bird", "-f", "-c", str(configuration), "-s", str(self._control)]
        self.program = Program(lab, name, argv, ready="Started$")

    def wait(self) -> None:
        """Wait until all sessions are up."""
        for _session in self.sessions:
            self.program.lines.find("State changed to up$")

    def since(self) -> dict[str, datetime]:
        """When each session that is established became so."""
        rows = [line.split() for line in self._ask("show", "protocols").splitlines()]
        # name, BGP, table, state, date, time, what the session is
        return {
            row[0]: datetime.fromisoformat(f"{row[4]} {row[5]}")
            for row in rows
            if row[1:2] == ["BGP"] and row[3] == "up" and row[6:] == ["Established"]
        }

    def said(self) -> list[str]:
        """What it has logged since all sessions were up, or since it was last asked for that."""
        self._ask("configure")
        lines = self.program.lines.until("<INFO> Reconfigured$")
        return [line for line in lines if "Reconfigur" not in line]

    def _ask(self, *words: str) -> str:
        return self._lab.run(self._on, ["birdc", "-s", str(self._control), *words]).stdout
