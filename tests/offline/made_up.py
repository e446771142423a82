"""Observations that nobody made: what the programmes of a plan would write in a network without a fault."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from netprobe.model import Connection, Host, Inventory, Protocol, Role
from netprobe.offline.directory import Plan, draw_up
from netprobe.plan import Settings, flows

START: Final = 1_800_000_000.0
MARGIN_S, PATIENCE_S = 3.0, 5.0
MONOTONIC: Final = 1000.0
"""What the monotonic clock of every host says when the run begins."""

ALL: Final = 1 << 64


def inventory(hosts: int = 3, probes: tuple[str, ...] | None = ("bgp", "ipip", "vxlan")) -> Inventory:
    """As many hosts, with all roles."""
    return Inventory(
        hosts=tuple(
            Host(
                name=f"n{number}",
                addresses=(f"10.0.0.{number}",),
                roles=tuple(Role),
                connection=Connection(type="ssh"),
            )
            for number in range(1, hosts + 1)
        ),
        probes=probes,
    )


class MadeUp:
    """A plan in a directory, with observations that are all well."""

    def __init__(self, directory: Path, asked: Inventory | None = None) -> None:
        everything = asked or inventory()
        written = draw_up(everything, Settings(), MARGIN_S, PATIENCE_S)
        written.write(directory, everything)
        self.directory = directory
        self.plan: Plan = written.plan
        self.schedules: dict[str, Any] = {
            name: json.loads(schedule) for name, schedule in written.schedules().items()
        }
        (directory / "observations").mkdir()
        self._addresses = {host.name: host.addresses for host in everything.hosts}
        self._flows = flows(everything)
        self._on_the_way: dict[str, dict[tuple[str, str], dict[int, int]]] = {
            name: defaultdict(dict) for name in self.schedules
        }
        self.lines = self._lines()
        for name in self.lines:
            self.write(name)

    def path(self, name: str) -> Path:
        """Where the observations of a host are."""
        return self.directory / "observations" / f"{name}.jsonl"

    def write(self, name: str) -> None:
        """Write the lines of a host, as they are now."""
        self.path(name).write_text("".join(json.dumps(line) + "\n" for line in self.lines[name]))

    def _lines(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {name: [self._header(name)] for name in self.schedules}
        steps = [(step["id"], name, step) for name, each in self.schedules.items() for step in each["steps"]]
        for number, name, step in sorted(steps, key=lambda item: item[0]):
            found[name].append(
                {
                    "id": number,
                    "ok": self._answer(name, step),
                    "begun": step["at"],
                    "ended": step["at"] + step.get("within", 0),
                }
            )
        for lines in found.values():
            lines.append({"end": "", "time": START, "monotonic": MONOTONIC})
        return found

    def _header(self, name: str) -> dict[str, Any]:
        clock = [
            [now, now + 0.05, now + 0.05 - START + MONOTONIC] for now in (START - 9, START - 8.9, START - 8.8)
        ]
        return {
            "netprobe": 1,
            "plan": self.plan.id,
            "host": name,
            "margin": MARGIN_S,
            "start": START,
            "clock": clock,
            "time": START - 1,
            "monotonic": MONOTONIC - 1,
        }

    def _answer(self, name: str, step: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "facts": lambda: self._facts(name),
            "conntrack": lambda: {"tracking": True, "found": []},
            "arm": lambda: {"taps": len(step["taps"])},
            "listen": lambda: {"failed": []},
            "fire": lambda: self._fire(name, step),
            "collect": lambda: self._collect(name),
            "withdraw": dict,
        }
        return made[step["verb"]]()

    def _facts(self, name: str) -> dict[str, Any]:
        return {
            "kernel": "6.1.0",
            "machine": "x86_64",
            "hostname": name,
            "python": "3.9.2",
            "executable": "/usr/bin/python3",
            "uid": 0,
            "capabilities": ALL - 1,
            "time": START,
            "addresses": [["eth0", address, 24] for address in self._addresses[name]],
            "links": [["eth0", 1500, ""]],
            "xdp": [],
            "routes": {},
            "ports": [],
            "connections": [],
            "alone": True,
        }

    def _fire(self, name: str, step: dict[str, Any]) -> dict[str, Any]:
        sent = 0
        for volley in step["volleys"]:
            first, total = volley["attempts"]
            mask = ((1 << total) - 1) << first
            for _template, _address, targets, undo in self.schedules[name]["shots"][volley["shots"]]:
                for number, _destination in targets:
                    sent += total
                    # What takes a SYN back is a packet of its own.
                    if undo is not None or self._flows[number].protocol is not Protocol.TCP:
                        self._arrive(number, mask)
        return {"sent": sent, "errors": [], "times": []}

    def _arrive(self, number: int, mask: int) -> None:
        flow = self._flows[number]
        seen = [(flow.src, "left", "probe"), (flow.dst, "interface", "probe"), (flow.dst, "socket", "probe")]
        if flow.protocol is Protocol.TCP:
            seen += [
                (flow.dst, "left", "ours"),
                (flow.src, "interface", "ours"),
                (flow.src, "socket", "ours"),
            ]
        for host, point, kind in seen:
            masks = self._on_the_way[host][point, kind]
            masks[number] = masks.get(number, 0) | mask

    def _collect(self, name: str) -> dict[str, Any]:
        seen, self._on_the_way[name] = self._on_the_way[name], defaultdict(dict)
        return {
            "sightings": [
                [point, kind, [[number, mask] for number, mask in masks.items()]]
                for (point, kind), masks in seen.items()
            ],
            "origins": [],
            "rtts": [],
            "kept": [],
            "drops": {},
            "served": [],
            "resent": [],
        }
