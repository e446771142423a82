"""Architecture, kernel, distribution: what hosts say of themselves, and files of distributions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Result
from netprobe.requirements.system import kernel_version, os_release
from tests.requirements.asking import found, written

_SETARCH: Final = ("setarch", os.uname().machine)


def test_this_machine_passes() -> None:
    """An architecture and a kernel that Calico runs on."""
    findings = found()

    assert Result.PASS is findings["arch"].result
    assert os.uname().machine in findings["arch"].seen
    assert Result.PASS is findings["kernel"].result
    assert os.uname().release == findings["kernel"].seen


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="no other architecture to pretend")
def test_an_architecture_that_the_page_does_not_name_fails() -> None:
    """The kernel tells programs of a 32-bit personality that it is an i686."""
    finding = found("setarch", "i686")["arch"]

    assert Result.FAIL is finding.result
    assert "'i686'" == finding.seen


def test_a_kernel_older_than_3_10_fails() -> None:
    """The kernel tells programs of a personality that it is a 2.6."""
    finding = found(*_SETARCH, "--uname-2.6")["kernel"]
    release = subprocess.run(
        [*_SETARCH, "--uname-2.6", "uname", "-r"], capture_output=True, text=True, check=True
    )

    assert Result.FAIL is finding.result
    assert release.stdout.strip() == finding.seen


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("3.10.0-1160.el7.x86_64", (3, 10)),
        ("5.15.0-91-generic", (5, 15)),
        ("6.1-rc1", (6, 1)),
        ("10.0", (10, 0)),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_kernels_version(release: str, version: tuple[int, int] | None) -> None:
    """Whatever a distribution appends."""
    assert version == kernel_version(release)


_DISTRIBUTIONS: Final = {
    "rhel-7": ('ID="rhel"\nVERSION_ID="7.9"\nID_LIKE="fedora"', Result.PASS),
    "rhel-9": ('ID="rhel"\nVERSION_ID="9.4"\nID_LIKE="fedora"', Result.PASS),
    "rhel-6": ('ID="rhel"\nVERSION_ID="6.10"\nID_LIKE="fedora"', Result.WARN),
    "centos-7": ('ID="centos"\nVERSION_ID="7"\nID_LIKE="rhel fedora"', Result.PASS),
    "rocky-9": ('ID="rocky"\nVERSION_ID="9.4"\nID_LIKE="rhel centos fedora"', Result.PASS),
    "flatcar": ("ID=flatcar\nID_LIKE=coreos\nVERSION_ID=3815.2.5", Result.PASS),
    "fedora-coreos": (
        'ID=fedora\nVERSION_ID=40\nVARIANT_ID=coreos\nPRETTY_NAME="Fedora CoreOS 40"',
        Result.PASS,
    ),
    "ubuntu-16": ('ID=ubuntu\nVERSION_ID="16.04"\nID_LIKE=debian', Result.WARN),
    "ubuntu-18": ('ID=ubuntu\nVERSION_ID="18.04"\nID_LIKE=debian', Result.PASS),
    "ubuntu-24": ("ID=ubuntu\nVERSION_ID='24.04'\nID_LIKE=debian", Result.PASS),
    "debian-7": ('ID=debian\nVERSION_ID="7"', Result.WARN),
    "debian-8": ('ID=debian\nVERSION_ID="8"', Result.PASS),
    "debian-sid": ("ID=debian\nPRETTY_NAME='Debian GNU/Linux trixie/sid'", Result.PASS),
    "alpine": ("ID=alpine\nVERSION_ID=3.20.3", Result.WARN),
    "nameless": ("# nothing", Result.WARN),
}


@pytest.mark.parametrize("name", _DISTRIBUTIONS)
def test_a_distribution(name: str, tmp_path: Path) -> None:
    """Those of the page, their later versions and what is like them pass; it is only recommended."""
    text, wanted = _DISTRIBUTIONS[name]

    assert wanted is found(root=written(tmp_path, {"etc/os-release": text}))["distribution"].result


def test_os_release_is_where_os_release_5_says(tmp_path: Path) -> None:
    """A link in /etc that is absolute leads into the root; without one, /usr/lib has it."""
    written(tmp_path, {"usr/lib/os-release": "ID=debian\nVERSION_ID=12\n"})
    without_link = found(root=tmp_path)["distribution"]
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("/usr/lib/os-release")
    linked = found(root=tmp_path)["distribution"]

    assert Result.PASS is without_link.result
    assert without_link.seen == linked.seen


def test_no_os_release_is_unknown(tmp_path: Path) -> None:
    """What nobody says is no failure."""
    assert Result.UNKNOWN is found(root=tmp_path)["distribution"].result


def test_os_release_has_quotes_and_escapes() -> None:
    """As a shell reads them, os-release(5)."""
    text = 'A=1\nB=\'two words\'\nC="a \\"quote\\""\n# D=3\nnonsense\n E=4 \n'

    assert {"A": "1", "B": "two words", "C": 'a "quote"', "E": "4"} == os_release(text)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """A host may say anything."""
    assert all(os_release(text))
    kernel_version(text)
