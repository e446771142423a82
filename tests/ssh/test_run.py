"""A whole run over ssh in which most hosts fail: their flows are untested with the reason, others go on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml

from netprobe.lab import Lab
from netprobe.model import Host
from tests.ssh.site import PASSWORD, Site
from tests.transports.conformance import ROOT_DIRECTORY
from tests.transports.sshd import PORT, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

# linux/seccomp.h and filter.h: socket(AF_PACKET, …) is answered with EPERM, all else allowed.
SECCOMP: Final = """
import ctypes, os, struct, sys
NUMBER = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
program = [(0x20, 0, 0, 0), (0x15, 0, 3, NUMBER), (0x20, 0, 0, 16), (0x15, 0, 1, 17),
           (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
filter = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert 0 == libc.prctl(38, 1, 0, 0, 0)
assert 0 == libc.prctl(22, 2, filter, 0, 0), ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""
CONFINED: Final = ("/usr/bin/python3", "-I", "-c", SECCOMP, "/usr/bin/python3")
WITHOUT_RAW: Final = ("setpriv", "--bounding-set=-net_raw", "/usr/bin/python3")


REASONS: Final = {
    "n3": r"the agent cannot \w+: EPERM: Operation not permitted: .*seccomp.*SELinux",
    "n4": r"the agent on n4 runs as uid 0 without CAP_NET_RAW: what confines it .*--privileged",
    "n5": r"sudo did not take the password for asks",
    "n6": r"the host key of \S+ port 2022 is not known .*",
    "n7": r"\S+ port 2999 refuses the connection: .*",
    "n8": r"permission denied for nobody-at-all at \S+ port 2022: .*",
}
LIMIT_S: Final = 60


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Eight hosts."""
    with Lab.mesh(8) as lab:
        yield Site(lab, tmp_path_factory.mktemp("fleet"))


def _hosts(site: Site) -> list[Host]:
    python = {"n3": CONFINED, "n4": WITHOUT_RAW}
    how: dict[str, dict[str, Any]] = {
        "n5": {"user": "asks"},
        "n6": {"known_hosts": "no_known_hosts"},
        "n7": {"port": 2999},
        "n8": {"user": "nobody-at-all"},
    }
    return [
        msgspec.structs.replace(
            host,
            connection=site.connection(host.name, **how.get(host.name, {})),
            python=python.get(host.name, ()),
            sudo=host.name == "n5",
        )
        for host in site.lab.inventory().hosts
    ]


def _run(site: Site, path: Path, *options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "netprobe.cli", "run", str(path), *options],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        cwd=ROOT_DIRECTORY,
        env={**os.environ, "PATH": site.path},
    )


def _write(path: Path, hosts: list[Host]) -> Path:
    listed = [
        {
            "name": host.name,
            "addresses": list(host.addresses),
            "sudo": host.sudo,
            "connection": {
                "type": "ssh",
                "host": host.connection.host,
                "user": host.connection.user,
                "port": host.connection.port,
                "identity": host.connection.identity,
                "options": list(host.connection.options),
            },
            **({"python": list(host.python)} if host.python else {}),
        }
        for host in hosts
    ]
    path.write_text(yaml.safe_dump({"hosts": listed, "probes": ["vxlan", "bgp"]}))
    return path


def test_the_flows_of_hosts_that_fail_are_untested(fleet: Site, tmp_path: Path) -> None:
    """With the reason of each, while the others are probed; no output has the password."""
    path = _write(tmp_path / "hosts.yaml", _hosts(fleet))
    password = PASSWORD[::-1]
    done = _run(fleet, path, "--ask-sudo-password", "--format", "json", "-v", stdin=f"{password}\n")
    report = json.loads(done.stdout)

    assert 3 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    assert password not in done.stdout + done.stderr
    reasons = re.compile("|".join(f"(?:{pattern})" for pattern in REASONS.values()))
    found: set[str] = set()
    for cell in report["cells"]:
        is_well = {cell["flow"]["src"], cell["flow"]["dst"]} <= {"n1", "n2"}
        judgement = cell["judgement"]

        assert ("open" if is_well else "untested") == judgement["verdict"]
        assert is_well or reasons.search(judgement["detail"])
        found.add(judgement.get("detail", ""))
    for name, pattern in REASONS.items():
        assert any(re.search(pattern, detail) for detail in found), name
        # What an agent lacks is no reason to lose it.
        assert name == "n4" or re.search(f"{name}: {pattern}", done.stderr), name


def test_a_host_key_that_is_added_is_said(fleet: Site, tmp_path: Path) -> None:
    """By a note: known_hosts has changed."""
    known = tmp_path / "known_hosts"
    hosts = [
        msgspec.structs.replace(
            host, connection=fleet.connection(host.name, known_hosts=str(known)), sudo=False, python=()
        )
        for host in _hosts(fleet)[:2]
    ]
    path = _write(tmp_path / "hosts.yaml", hosts)
    done = _run(fleet, path, "--accept-new-host-keys", "-v")

    assert 0 == done.returncode, done.stderr
    for host in hosts:
        address = host.connection.host
        assert (
            f"{host.name}: ssh has added the ED25519 host key of [{address}]:{PORT} to known_hosts"
            in done.stderr
        )
    assert 2 == len(known.read_text().splitlines())
