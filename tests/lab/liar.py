"""
An agent that lies; a program in the place of a host's interpreter, `liar.py SEED STYLE FLOWS python3 …`.

It is the real agent, whose answers are changed on their way: what is said is the form of an answer, and false
(`lies`), or has lost that form (`junk`), or is no line of its own any more (`noise`).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

WORDS: Final = [
    "",
    "no",
    "left",
    "socket",
    "probe",
    "EPERM",
    "EHOSTUNREACH",
    "10.77.1.11",
    "::",
    "é\x00\n\x1b[31m",
]
NUMBERS: Final = [
    0,
    1,
    7,
    63,
    64,
    255,
    65536,
    (1 << 32) - 1,
    1 << 32,
    (1 << 57) - 1,
    1 << 63,
    10**400,
    -1,
    -(1 << 70),
]
POINTS: Final = ("left", "interface", "socket")
KINDS: Final = ("probe", "accept", "rst", "reset", "withdrawal", "request", "answer")
ERRORS: Final = ("EPERM", "EACCES", "EHOSTUNREACH", "ENOBUFS", "made up")


class Liar:
    """What a seed makes of answers."""

    def __init__(self, seed: int, flows: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 (a test's dice)
        self._flows = flows

    def lies(self, answer: dict[str, Any]) -> bytes:
        """The same kind of answer with all that it can say, about anybody's flows."""
        said = answer.get("ok")
        if isinstance(said, dict):
            for claim in (self._collected, self._fired, self._connected, self._tracked, self._facts):
                claim(said)
        return json.dumps(answer).encode() + b"\n"

    def _numbers(self) -> list[int]:
        """Flows: all that there are, or some, and some that there are not."""
        numbers = [*range(self._flows), self._flows, self._flows + 64, (1 << 32) - 1]
        return numbers if self.dice.random() < 0.5 else self.dice.sample(numbers, len(numbers) // 3)

    def _masks(self) -> list[list[int]]:
        bits = self.dice.choice([1, 0xFF, (1 << 57) - 1, (1 << 63) - 1, self.dice.getrandbits(57)])
        return [[number, bits] for number in self._numbers()]

    def _collected(self, said: dict[str, Any]) -> None:
        if "sightings" not in said:
            return
        said["sightings"] += [
            [point, kind, self._masks()] for point in POINTS for kind in KINDS if self.dice.random() < 0.7
        ]
        said["origins"] += [
            [
                kind,
                self.dice.choice(["192.0.2.1", "made up", "::"]),
                self.dice.choice([0, 64, 1 << 31]),
                self.dice.choice([0, 179, 1 << 20]),
                self._numbers(),
            ]
            for kind in KINDS
        ]
        said["rtts"] += [[number, self.dice.choice([0, 1, 10**6, 1 << 52])] for number in self._numbers()]
        said["drops"] = {point: self.dice.choice([0, 0, 1 << 40]) for point in POINTS}
        said["served"] += self._masks()
        said["resent"] += self._numbers()
        said["kept"] += [
            ["icmp", "RQAAOAAAAAABAQAACk0BAQpNAQsDDQAAAAAAAEUAACgAAQAA", 1 << 52],
            ["", "AA==", 0],
            ["icmp", "", 1],
        ]

    def _fired(self, said: dict[str, Any]) -> None:
        if "errors" in said:
            said["sent"] = self.dice.choice([0, 1, 1 << 50])
            said["times"] = [[number, 1] for number in self._numbers()]
            said["errors"] = [[name, self._masks()] for name in ERRORS if self.dice.random() < 0.5]

    def _connected(self, said: dict[str, Any]) -> None:
        if "results" in said:
            said["results"] += [
                [number, self.dice.choice([0, 1, 2]), self.dice.choice(["", *ERRORS]), 1 << 50, 9]
                for number in self._numbers()
            ]

    def _tracked(self, said: dict[str, Any]) -> None:
        if "tracking" in said:
            said["found"] = self._numbers()

    def _facts(self, said: dict[str, Any]) -> None:
        if "kernel" in said:
            said["kernel"] = said["python"] = "\x1b[31m" + "long " * 10_000
            said["time"] = self.dice.choice([0.0, -1e300, 1e308, said["time"]])
            said["addresses"] += [["x" * 1000, "192.0.2.1", 0], ["", "::", 128]]

    def junk(self, answer: dict[str, Any]) -> bytes:
        """An answer in which something stands that does not belong there."""
        if self.dice.random() < 0.3:
            return self.lies(answer)
        for _ in range(self.dice.randint(0, 3)):
            place = self.dice.choice(list(_places(answer)) or [(answer, "more")])
            holder, key = place
            holder[key] = self._anything(3)
        return json.dumps(answer).encode() + b"\n"

    def _anything(self, depth: int) -> Any:  # noqa: ANN401
        make: list[Callable[[], Any]] = [
            lambda: self.dice.choice(WORDS),
            lambda: self.dice.choice(NUMBERS),
            lambda: self.dice.choice([None, True, False, 1.5, -1e308]),
            lambda: [self._anything(depth - 1) for _ in range(self.dice.randint(0, 3))] if depth else [],
            lambda: {self.dice.choice(WORDS): self._anything(depth - 1)} if depth else {},
        ]
        return self.dice.choice(make)()

    def noise(self, answer: dict[str, Any]) -> bytes:
        """The line changed, and lines that nobody asked for."""
        line = json.dumps(answer).encode() + b"\n"
        if self.dice.random() < 0.7:
            return line
        at = self.dice.randrange(len(line))
        return self.dice.choice(
            [
                line + line,
                line[:at] + b"\xff\xfe" + line[at:],
                line[:at],
                line[:at] + b"\n" + line[at:],
                b'{"id":%d,"ok":{}}\n' % self.dice.choice([0, -5, 1, 10**6]) + line,
                b'{"id":null,"error":"made up\\n\\u001b[31m"}\n' + line,
                line.replace(b'"ok"', b'"error"'),
                b'{"id":%d,"error":"%s","errno":"made up"}\n' % (answer["id"], b"made up \\n" * 1000),
                b'{"hello":"netprobe","protocol":1,"pid":1}\n' + line,
                b'{"id":%d,"ok":%s}\n' % (answer["id"], b"[" * 5000 + b"]" * 5000),
                b"\n" + line,
                b"",
            ]
        )


def _places(value: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """All places within a value, as the holder and the key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def main() -> None:
    """Run the agent that the rest of the command line starts; it has this program's stdin."""
    seed, style, flows = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    change: Callable[[dict[str, Any]], bytes] = getattr(Liar(seed, flows), style)
    with subprocess.Popen(sys.argv[4:], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        for line in agent.stdout:
            data = line
            if line.startswith(b'{"id"'):
                data = change(json.loads(line))
            while data:
                data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
