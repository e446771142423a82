"""systemd-networkd's configuration, and the .link files, by systemd's rules of precedence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Result
from netprobe.questions import FileList
from netprobe.requirements.networkd import foreign, link_file
from netprobe.requirements.networkmanager import DEVICES
from tests.requirements.hosts import found, process, text_file, tree

RUNS: Final = process("systemd-network", "/lib/systemd/systemd-networkd")
MAIN: Final = "/etc/systemd/networkd.conf"
DEBIAN: Final = {
    MAIN: "[Network]\n#SpeedMeter=no\n#ManageForeignRoutingPolicyRules=yes\n#ManageForeignRoutes=yes\n",
    "/lib/systemd/network/99-default.link": (
        "[Match]\nOriginalName=*\n\n[Link]\nNamePolicy=keep kernel database onboard slot path\n"
        "AlternativeNamesPolicy=database onboard slot path\nMACAddressPolicy=persistent\n"
    ),
}
"""What Debian 12's packages systemd and udev install, without comments."""
BOTH: Final = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"
ROUTES: Final = "[Network]\nManageForeignRoutes="


def test_debian_as_installed_is_a_warning_where_networkd_runs(tmp_path: Path) -> None:
    """
    By default it takes away what others have added; where it does not run, that concerns nobody.
    """
    root = tree(tmp_path, DEBIAN)
    finding = found("networkd", root, RUNS)

    assert Result.WARN is finding.result
    assert "ManageForeignRoutes=yes (by default)" in finding.seen
    assert Result.NOT_APPLICABLE is found("networkd", root).result
    assert Result.UNKNOWN is found("networkd", root, process("systemd-network", is_here=None)).result


def test_a_drop_in_passes_and_is_named(tmp_path: Path) -> None:
    """
    The fix of the report is one that passes.
    """
    root = tree(tmp_path, {**DEBIAN, "/etc/systemd/networkd.conf.d/calico.conf": BOTH})
    finding = found("networkd", root, RUNS)

    assert Result.PASS is finding.result
    assert "ManageForeignRoutes=no (/etc/systemd/networkd.conf.d/calico.conf:2)" in finding.seen


@pytest.mark.parametrize(
    ("files", "is_managed"),
    [
        ({MAIN: f"{ROUTES}no"}, False),
        ({MAIN: f"{ROUTES}No"}, False),
        ({MAIN: f"{ROUTES}0"}, False),
        ({MAIN: f"{ROUTES}perhaps"}, True),
        ({MAIN: "[Other]\nManageForeignRoutes=no"}, True),
        ({MAIN: ";ManageForeignRoutes=no"}, True),
        ({MAIN: f"{ROUTES}no", f"{MAIN}.d/a.conf": f"{ROUTES}yes"}, True),
        ({f"{MAIN}.d/a.conf": f"{ROUTES}no", f"{MAIN}.d/b.conf": f"{ROUTES}yes"}, True),
        (
            {"/usr/lib/systemd/networkd.conf.d/z.conf": f"{ROUTES}no", f"{MAIN}.d/a.conf": f"{ROUTES}yes"},
            False,
        ),
        ({"/usr/lib/systemd/networkd.conf.d/a.conf": f"{ROUTES}no", f"{MAIN}.d/a.conf": ""}, True),
        ({"/run/systemd/networkd.conf.d/a.conf": f"{ROUTES}no"}, False),
        ({"/usr/lib/systemd/networkd.conf": f"{ROUTES}no"}, False),
        ({"/usr/lib/systemd/networkd.conf": f"{ROUTES}no", MAIN: ""}, True),
        ({}, True),
    ],
)
def test_which_file_wins(files: Mapping[str, str], is_managed: bool) -> None:
    """
    The main file of the strongest directory, then the drop-ins by their names; of one name, the strongest.
    """
    read = [text_file(path, text) for path, text in files.items()]

    assert is_managed is foreign(read)["ManageForeignRoutes"][0]


def test_the_persistent_policy_leaves_calicos_addresses_as_they_are(tmp_path: Path) -> None:
    """
    Every distribution has it, and Calico sets the addresses of its devices itself.
    """
    finding = found("mac-policy", tree(tmp_path, DEBIAN))

    assert Result.PASS is finding.result
    assert "vxlan.calico persistent (/lib/systemd/network/99-default.link:7)" in finding.seen


def test_an_address_that_a_link_file_sets_is_a_warning(tmp_path: Path) -> None:
    """
    It replaces what Calico has set, and told the other nodes.
    """
    link = "/etc/systemd/network/50-tunnels.link"
    root = tree(tmp_path, {**DEBIAN, link: "[Match]\nKind=vxlan\n[Link]\nMACAddress=02:00:00:00:00:01\n"})
    finding = found("mac-policy", root)

    assert Result.WARN is finding.result
    assert f"vxlan.calico gets 02:00:00:00:00:01 ({link}:4)" in finding.seen


@pytest.mark.parametrize(
    ("match", "is_for"),
    [
        ("OriginalName=*", True),
        ("OriginalName=eth* vxlan*", True),
        ("OriginalName=eth*\nOriginalName=vxlan*", True),
        ("OriginalName=!vxlan*", False),
        ("OriginalName=!eth* en*", True),
        ("Kind=vxlan", True),
        ("Type=vxlan\nDriver=vxlan", True),
        ("Kind=vxlan\nOriginalName=eth*", False),
        ("MACAddress=02:00:00:00:00:01", False),
        ("Path=pci-*", False),
        ("", False),
    ],
)
def test_which_devices_a_link_file_is_for(match: str, is_for: bool) -> None:
    """
    All that it asks for must hold; with nothing asked it is for none.
    """
    files = FileList(files=[text_file("/etc/systemd/network/1.link", f"[Match]\n{match}\n")], more=False)

    assert is_for is (link_file(files, DEVICES[2]) is not None)


_LINES: Final = st.sampled_from(("[Match]", "[Network]", "OriginalName=", "!", "*", " ", "\n", "[Link]", "["))


@given(st.lists(st.one_of(_LINES, st.text(max_size=5))).map("".join))
def test_any_files_are_read(text: str) -> None:
    """
    Whatever a host has in these files, there is an answer.
    """
    foreign([text_file(MAIN, text), text_file(f"{MAIN}.d/a.conf", text)])
    link_file(FileList(files=[text_file("/etc/systemd/network/1.link", text)], more=False), DEVICES[0])
