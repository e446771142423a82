"""A cluster for the scripted `kubectl`: its nodes are the hosts of a lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from netprobe.lab import Lab
from netprobe.model import Connection, Host
from tests.transports import kubectl_program

TIMEOUT_S: Final = 20.0


class Cluster:
    """A directory for the program, with a `kubectl` that is it in `path`, a PATH."""

    def __init__(self, directory: Path, lab: Lab) -> None:
        self.directory = directory / "cluster"
        self.directory.mkdir()
        self._nodes = {name: host.namespace for name, host in lab.hosts.items()}
        programs = directory / "bin"
        programs.mkdir()
        program = programs / "kubectl"
        script = Path(kubectl_program.__file__)
        # The directory stands in the program, so that nobody else must know of it.
        program.write_text(
            f"#!/bin/sh\nNETPROBE_CLUSTER='{self.directory}' exec {sys.executable} -S -E {script} \"$@\"\n"
        )
        program.chmod(0o755)
        self.path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.breaks()

    def breaks(self, **faults: Any) -> None:  # noqa: ANN401 (as the program takes them)
        """From now on this is wrong with it, and nothing else."""
        text = json.dumps({"nodes": self._nodes, "faults": faults})
        (self.directory / "cluster.json").write_text(text)

    def left(self) -> list[str]:
        """The Jobs and pods that there are."""
        return sorted(
            path.name for path in self.directory.iterdir() if path.name.startswith(("job-", "pod-"))
        )

    def is_empty(self) -> bool:
        """Whether none is there any longer, within the time that controllers may take."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.left() and time.monotonic() < deadline:
            time.sleep(kubectl_program.LOOK_S)
        return not self.left()

    def calls(self) -> list[list[str]]:
        """The command lines that there were, so far."""
        return [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]

    @contextmanager
    def pod(self, node: str) -> Iterator[str]:
        """The name of somebody else's pod on a node, which is there within this."""
        container = {"name": "theirs", "command": ["/bin/sh", "-c", "exec sleep 600"]}
        job = {
            "metadata": {"name": "theirs"},
            "spec": {
                "activeDeadlineSeconds": 600,
                "ttlSecondsAfterFinished": 0,
                "template": {"spec": {"nodeName": node, "containers": [container]}},
            },
        }
        self.kubectl("create", stdin=json.dumps(job))
        name = "theirs-abcde"
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while (pod := self._read(name)) is None or pod["status"]["phase"] != "Running":
                assert time.monotonic() < deadline
                time.sleep(kubectl_program.LOOK_S)
            yield name
        finally:
            self.kubectl("delete", "job/theirs")

    def kubectl(self, *words: str, stdin: str = "") -> None:
        """Call it."""
        subprocess.run(["kubectl", *words], input=stdin, text=True, check=True, env={"PATH": self.path})

    def _read(self, pod: str) -> Any:  # noqa: ANN401 (as the program writes it)
        return kubectl_program.read(self.directory / f"pod-{pod}")

    def host(self, node: str, python: tuple[str, ...] = (), **options: Any) -> Host:  # noqa: ANN401
        """A host that is a node, or a pod where `options` name one."""
        connection = Connection(type="kubectl", **options)
        return Host(name=node, addresses=("10.77.1.11",), connection=connection, python=python)
