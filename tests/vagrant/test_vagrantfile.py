"""The Vagrantfile and its walk-through: what Vagrant makes of it, and the same in namespaces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from netprobe.importers import ssh_config, vagrant, write
from netprobe.lab import Lab
from netprobe.lab.description import ROUTER
from tests.importers.machines import of_the_vagrantfile
from tests.lab.probing import probe, wrong
from tests.transports.sshd import obstacle
from tests.vagrant.machines import LAB, ROOT, Machines, machines, recorded

PAGE: Final = (ROOT / "docs" / "vagrant.md").read_text(encoding="utf-8")
SSH_CONFIG: Final = ROOT / "tests" / "importers" / "sources" / "vagrant-ssh-config"


def _program(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name}")


def block(kind: str, after: str) -> str:
    """The first code block of a kind behind a heading of the page."""
    text = PAGE.split(f"## {after}\n", 1)[1]
    return text.split(f"```{kind}\n", 1)[1].split("```", 1)[0]


@_program("vagrant")
def test_vagrant_validates_the_vagrantfile(tmp_path: Path) -> None:
    """
    `vagrant validate` accepts it, whichever provider there is.
    """
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=ROOT,
        # What it keeps of a directory and of the user goes where the test's files go.
        env={
            **os.environ,
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_DOTFILE_PATH": str(tmp_path / "machines"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert "Vagrantfile validated successfully." in done.stdout


@_program("ruby")
def test_the_lab_has_the_machines_of_the_vagrantfile() -> None:
    """
    Names and addresses, and the router's on each network.
    """
    lab, found = Lab.from_file(LAB), recorded()
    router = found.pop(ROUTER)

    assert {name: machine.networks for name, machine in found.items()} == {
        name: tuple(host.addresses.values()) for name, host in lab.hosts.items()
    }
    gateways = {re.sub(r"\d+$", "1", address) for machine in found.values() for address in machine.networks}
    assert gateways == set(router.networks)


@_program("ruby")
def test_provisioners_run_when_they_must() -> None:
    """
    Routes and mistakes come back at each start, because nothing of them is on a disk; the repair does not.
    """
    when = {each.name: each.run for machine in recorded().values() for each in machine.provisioners}

    assert {"programs": "once", "routes": "always", "faults": "always", "repair": "never"} == when


def test_the_inventory_of_the_page_is_the_one_that_is_made() -> None:
    """
    Out of what Vagrant says behind VirtualBox's NAT, and of what the machines say of themselves.
    """
    sections = ssh_config.parse(SSH_CONFIG.read_text(encoding="utf-8"), "ssh-config")
    imported = vagrant.read(sections, of_the_vagrantfile(), "ssh-config")

    made = write(imported, "`vagrant ssh-config`", "netprobe inventory import vagrant")
    assert block("yaml", "Up, and an inventory") == made


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Machines]:
    """The machines, as `vagrant up` leaves them."""
    if (why := obstacle()) or shutil.which("ruby") is None:
        pytest.skip(why or "no ruby")
    tmp_path.chmod(0o755)
    with machines() as found:
        found.connect(tmp_path)
        yield found


@pytest.mark.lab
def test_the_walk_through_is_as_the_page_has_it(up: Machines, tmp_path: Path) -> None:
    """
    Its commands, typed by a user of the machines over ssh, print what stands there, but for times and numbers
    of packets: before the fix, and after it.
    """
    cwd = tmp_path / "here"
    cwd.mkdir()
    made, *others = re.findall(r"^\$ (netprobe .*)$", PAGE, re.MULTILINE)
    assert "netprobe inventory import vagrant > hosts.yaml" == made
    first, again = (command.split()[1:] for command in others)

    inventory = up.netprobe(*made.split()[1:4], cwd=cwd)
    assert (0, "") == (inventory.returncode, inventory.stderr)
    (cwd / "hosts.yaml").write_text(inventory.stdout, encoding="utf-8")
    blocked = up.netprobe(*first, cwd=cwd)
    up.provision("repair")
    mended = up.netprobe(*again, cwd=cwd)

    assert _settled(block("text", "The run")) == _settled(blocked.stdout)
    assert _settled(block("text", "The fix, and the run again")) == _settled(mended.stdout)
    assert (1, 0) == (blocked.returncode, mended.returncode)


def _settled(report: str) -> str:
    """A report without what differs from run to run."""
    text = " ".join(report.split())
    text = re.sub(r"[\d,]+ (?=packets|sent|left|reached|passed|times)", "N ", text)
    return re.sub(r"in [\d.]+ s, .*? UTC, netprobe \S+", "in N s", text)


@pytest.mark.lab
@_program("ruby")
def test_every_mistake_is_found_where_it_is_and_nothing_else() -> None:
    """
    Every cell of a run with all probes is as the lab's description has it.
    """
    with machines() as up:
        assert [] == wrong(up.lab, probe(up.lab))


@pytest.mark.lab
@_program("ruby")
def test_provisioning_twice_is_as_good_as_once() -> None:
    """
    Mistakes that are planted again are there once, and what was mended can be mended.
    """
    with machines() as up:
        planted = up.rulesets()
        up.provision("routes", "faults")
        assert planted == up.rulesets()
        assert 2 == sum(map(bool, planted.values()))

        up.provision("repair")
        up.provision("repair")
        assert {""} == set(up.rulesets().values())
