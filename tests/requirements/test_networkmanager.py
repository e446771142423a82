"""NetworkManager's configuration files, by its own rules of precedence and of matching."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe.findings import Finding, Result
from netprobe.questions import FileList
from netprobe.requirements.networkmanager import (
    DEVICES,
    FILE,
    Spec,
    by_udev,
    configuration,
    matching,
    split,
)
from tests.requirements.hosts import found, process, text_file, tree

CALI, TUNNEL, VXLAN, VXLAN_V6, WIREGUARD, WIREGUARD_V6 = DEVICES
MAIN: Final = "/etc/NetworkManager/NetworkManager.conf"
ETC: Final = "/etc/NetworkManager/conf.d"
LIB: Final = "/usr/lib/NetworkManager/conf.d"
RUN: Final = "/run/NetworkManager/conf.d"
INTERN: Final = "/var/lib/NetworkManager/NetworkManager-intern.conf"

DEBIAN: Final = {
    MAIN: "[main]\nplugins=ifupdown,keyfile\n\n[ifupdown]\nmanaged=false\n",
    "/lib/udev/rules.d/85-nm-unmanaged.rules": (
        'SUBSYSTEM!="net", GOTO="nm_unmanaged_end"\n'
        'ACTION!="add|change|move", GOTO="nm_unmanaged_end"\n'
        'ENV{INTERFACE}=="vboxnet[0-9]*", ENV{NM_UNMANAGED}="1"\n'
        'ENV{ID_NET_DRIVER}=="veth", ENV{INTERFACE}!="eth[0-9]*", ENV{NM_UNMANAGED}="1"\n'
        'ENV{DEVTYPE}=="gadget", ENV{NM_UNMANAGED}="1"\n'
        'LABEL="nm_unmanaged_end"\n'
    ),
}
"""What Debian 12's package network-manager installs, without its comments."""
UBUNTU: Final = {
    f"{LIB}/10-globally-managed-devices.conf": (
        "[keyfile]\nunmanaged-devices=*,except:type:wifi,except:type:gsm,except:type:cdma\n"
    )
}
"""What Ubuntu's package adds."""
CALICO: Final = {
    FILE: (
        "[keyfile]\n"
        "unmanaged-devices=interface-name:cali*;interface-name:tunl*;interface-name:vxlan.calico;"
        "interface-name:vxlan-v6.calico;interface-name:wireguard.cali;interface-name:wg-v6.cali\n"
    )
}
"""What Calico's documentation has in "Configure NetworkManager"."""
RUNS: Final = process("NetworkManager", "/usr/sbin/NetworkManager", "--no-daemon")


def judged(root: Path, *files: Mapping[str, str], modes: tuple[str, ...] | None = None) -> Finding:
    """A host on which NetworkManager runs, with these files."""
    return found(
        "networkmanager", tree(root, {k: v for each in files for k, v in each.items()}), RUNS, modes=modes
    )


def test_debian_as_installed_leaves_only_the_veths_alone(tmp_path: Path) -> None:
    """
    Udev's rule is for all veths; tunl0 and the others NetworkManager takes for its own.
    """
    finding = judged(tmp_path, DEBIAN)

    assert Result.FAIL is finding.result
    assert "nothing keeps it from tunl0, vxlan.calico" in finding.seen
    assert "cali* (/lib/udev/rules.d/85-nm-unmanaged.rules:4 NM_UNMANAGED)" in finding.seen
    assert FILE in finding.fix


def test_calicos_file_passes(tmp_path: Path) -> None:
    """
    With the file of Calico's documentation all are left alone, and it is named with its line.
    """
    finding = judged(tmp_path, DEBIAN, CALICO)

    assert Result.PASS is finding.result
    assert f"tunl0 ({FILE}:2 unmanaged-devices interface-name:tunl*)" in finding.seen


def test_ubuntu_as_installed_passes(tmp_path: Path) -> None:
    """
    A star with exceptions leaves all alone but those.
    """
    assert Result.PASS is judged(tmp_path, DEBIAN, UBUNTU).result


def test_a_mode_without_tunnels_needs_the_veths_only(tmp_path: Path) -> None:
    """
    Where there will be no tunnel device, none has to be left alone.
    """
    assert Result.PASS is judged(tmp_path, DEBIAN, modes=("none",)).result


def test_a_host_without_networkmanager_needs_nothing(tmp_path: Path) -> None:
    """
    Its configuration may be there; what does not run harms nobody.
    """
    root = tree(tmp_path, DEBIAN)

    assert Result.NOT_APPLICABLE is found("networkmanager", root).result


def test_networkmanager_of_a_container_is_not_the_hosts(tmp_path: Path) -> None:
    """
    A process with another network namespace manages the interfaces there; unseen, nobody knows.
    """
    root = tree(tmp_path, DEBIAN)
    elsewhere = process("NetworkManager", is_here=False)
    hidden = process("NetworkManager", is_here=None)

    assert Result.NOT_APPLICABLE is found("networkmanager", root, elsewhere).result
    assert Result.UNKNOWN is found("networkmanager", root, hidden).result


def test_what_begins_with_the_next_boot_is_a_warning(tmp_path: Path) -> None:
    """
    It does no harm yet.
    """
    unit = "/lib/systemd/system/NetworkManager.service"
    link = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service"
    root = tree(tmp_path, {**DEBIAN, unit: "[Unit]\n", link: f"->{unit}"})
    finding = found("networkmanager", root)

    assert Result.WARN is finding.result
    assert link in finding.seen


def test_a_masked_unit_does_not_begin(tmp_path: Path) -> None:
    """
    An empty file in /etc masks a unit, whatever links there are.
    """
    unit = "/lib/systemd/system/NetworkManager.service"
    link = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service"
    mask = "/etc/systemd/system/NetworkManager.service"
    root = tree(tmp_path, {**DEBIAN, unit: "[Unit]\n", link: f"->{unit}", mask: ""})

    assert Result.NOT_APPLICABLE is found("networkmanager", root).result


KEY: Final = "[keyfile]\nunmanaged-devices"


@pytest.mark.parametrize(
    ("files", "is_left"),
    [
        pytest.param({f"{LIB}/a.conf": f"{KEY}=*", MAIN: f"{KEY}=eth9"}, False, id="lib-before-main"),
        pytest.param({f"{RUN}/a.conf": f"{KEY}=*", MAIN: f"{KEY}=eth9"}, False, id="run-before-main"),
        pytest.param({MAIN: f"{KEY}=*", f"{ETC}/a.conf": f"{KEY}=eth9"}, False, id="etc-after-main"),
        pytest.param({f"{ETC}/a.conf": f"{KEY}=*", f"{ETC}/b.conf": f"{KEY}=eth9"}, False, id="by-name"),
        pytest.param({f"{ETC}/b.conf": f"{KEY}=*", f"{ETC}/a.conf": f"{KEY}=eth9"}, True, id="by-name-last"),
        pytest.param({f"{ETC}/a.conf": f"{KEY}=*", f"{ETC}/b.conf": f"{KEY}+=eth9"}, True, id="added"),
        pytest.param({f"{ETC}/a.conf": f"{KEY}=*;eth9", f"{ETC}/b.conf": f"{KEY}-=*"}, False, id="taken"),
        pytest.param({f"{LIB}/a.conf": f"{KEY}=*", f"{ETC}/a.conf": ""}, False, id="etc-shadows-lib"),
        pytest.param({f"{LIB}/a.conf": f"{KEY}=*", f"{RUN}/a.conf": ""}, False, id="run-shadows-lib"),
        pytest.param({f"{RUN}/a.conf": f"{KEY}=*", f"{ETC}/a.conf": ""}, False, id="etc-shadows-run"),
        pytest.param({f"{LIB}/a.conf": "", f"{RUN}/a.conf": f"{KEY}=*"}, True, id="run-over-lib"),
        pytest.param({f"{ETC}/a.conf": f"[.config]\nenable=no\n{KEY}=*"}, False, id="disabled-file"),
        pytest.param({f"{ETC}/a.conf": f"[.config]\nenable=env:X\n{KEY}=*"}, False, id="for-a-tag"),
        pytest.param({f"{ETC}/a.conf": f"[.config]\nenable=nm-version-min:1.2\n{KEY}=*"}, True, id="version"),
        pytest.param({f"{ETC}/a.conf": f"#{KEY}=*"}, False, id="comment"),
        pytest.param({f"{ETC}/a.conf": f"{KEY} = * "}, True, id="spaces"),
        pytest.param({f"{ETC}/a.txt": f"{KEY}=*"}, False, id="another-suffix"),
        pytest.param({INTERN: f"{KEY}=*\n"}, True, id="intern"),
        pytest.param({MAIN: f"{KEY}=eth9", INTERN: f"{KEY}=*"}, False, id="intern-of-before"),
        pytest.param(
            {MAIN: f"{KEY}=eth9", INTERN: f"{KEY}=*\n.was.unmanaged-devices=eth9"}, True, id="intern-as-was"
        ),
        pytest.param({MAIN: "[device]\nmanaged=0"}, True, id="device"),
        pytest.param({MAIN: "[device]\nmatch-device=driver:vxlan\nmanaged=0"}, True, id="device-by-driver"),
        pytest.param({MAIN: "[device-x]\nmatch-device=type:veth\nmanaged=0"}, False, id="another-device"),
        pytest.param({MAIN: "[device]\nmanaged=0\n[device-x]\nmanaged=1"}, False, id="unnamed-last"),
        pytest.param(
            {MAIN: "[device-x]\nmanaged=1", f"{ETC}/a.conf": "[device-y]\nmanaged=0"}, True, id="later"
        ),
        pytest.param(
            {MAIN: "[device-x]\nmanaged=1", f"{ETC}/a.conf": "[device]\nmanaged=0"}, False, id="unnamed-later"
        ),
        pytest.param(
            {MAIN: "[device-x]\nmanaged=1", f"{ETC}/a.conf": "[device-x]\nmanaged=0"}, True, id="same-name"
        ),
        pytest.param(
            {MAIN: "[device-x]\nmatch-device=eth9", f"{ETC}/a.conf": "[device-x]\nmanaged=0"},
            False,
            id="same-name-merged",
        ),
        pytest.param({MAIN: "[device-x]\nmanaged=1\n[device-y]\nmanaged=0"}, False, id="first-of-a-file"),
        pytest.param({f"{ETC}/a.conf": f"{KEY}+=*\nunmanaged-devices=eth9"}, False, id="in-their-order"),
        pytest.param({f"{ETC}/a.conf": f"{KEY}=eth9\nunmanaged-devices=*"}, True, id="last-of-two"),
        pytest.param({MAIN: "[device-x]\nstop-match=yes\n[device-y]\nmanaged=0"}, False, id="stop-match"),
        pytest.param({MAIN: f"{KEY}=*\n[device-x]\nmanaged=1"}, True, id="the-list-wins"),
    ],
)
def test_which_file_and_setting_wins(tmp_path: Path, files: Mapping[str, str], is_left: bool) -> None:
    """
    /usr/lib, /run, NetworkManager.conf, /etc, and what NetworkManager wrote itself, in this order.
    """
    finding = judged(tmp_path, files)

    managed = finding.seen.partition("nothing keeps it from")[2].partition("; it leaves alone")[0]

    assert ("vxlan.calico" in managed) is not is_left, finding.seen


@pytest.mark.parametrize(
    ("value", "is_match"),
    [
        ("cali0123456789a", True),
        ("cali*", False),  # no globbing without a tag
        ("interface-name:cali*", True),
        ("INTERFACE-NAME:cali*", True),
        ("interface-name:Cali*", False),
        ("interface-name:~cali*", True),
        ("interface-name:=cali*", False),
        ("interface-name:=cali0123456789a", True),
        ("interface-name:cali???????????", True),
        ("interface-name:cali?", False),
        ("interface-name:cali[0-9]*", False),  # no ranges
        ("type:veth", True),
        ("type:ethernet", False),
        ("driver:veth", True),
        ("driver:veth/*", True),
        ("mac:ee:ee:ee:ee:ee:ee", False),
        ("eth0,interface-name:cali*", True),
        ("eth0 ; interface-name:cali*", True),
        ("interface-name:cali*;except:interface-name:cali0*", False),
        ("except:interface-name:eth0", True),
        ("except:interface-name:cali*", False),
        ("except:cali0123456789a", True),  # an exception needs a tag
        ("except:interface-name:eth0,eth1", False),
        ("*", True),
        ("", False),
        (r"interface-name:cali\*", True),
        (r"a\,interface-name:cali*", False),
    ],
)
def test_a_list_of_devices(value: str, is_match: bool) -> None:
    """
    As NetworkManager.conf(5) has it under "Device List Format".
    """
    assert is_match is (matching([Spec(text, "here") for text in split(value)], CALI) is not None)


def test_an_unreadable_file_is_unknown(tmp_path: Path) -> None:
    """
    What may be in it nobody knows; and it is named.
    """
    root = tree(tmp_path, {**DEBIAN, f"{ETC}/a.conf": f"->{ETC}/a.conf"})
    finding = found("networkmanager", root, RUNS)

    assert Result.UNKNOWN is finding.result
    assert f"{ETC}/a.conf: ELOOP" in finding.seen


@pytest.mark.parametrize(
    ("rule", "is_left"),
    [
        ('ENV{INTERFACE}=="cali*", ENV{NM_UNMANAGED}="1"', True),
        ('KERNEL=="tunl*|cali*", ENV{NM_UNMANAGED}:="1"', True),
        ('KERNEL!="cali*", ENV{NM_UNMANAGED}="1"', False),
        ('KERNEL=="cali*", ATTR{mtu}=="1500", ENV{NM_UNMANAGED}="1"', False),
        ('KERNEL=="cali*", ENV{NM_UNMANAGED}="0"', False),
        ('# KERNEL=="cali*", ENV{NM_UNMANAGED}="1"', False),
    ],
)
def test_a_rule_of_udev(rule: str, is_left: bool) -> None:
    """
    A rule counts where all its conditions are known to hold.
    """
    files = FileList(files=[text_file("/etc/udev/rules.d/1.rules", rule)], more=False)

    assert is_left is bool(by_udev(files, CALI))


@given(st.lists(st.tuples(st.sampled_from([MAIN, INTERN, f"{ETC}/a.conf", f"{LIB}/a.conf"]), st.text())))
def test_any_files_are_read(written: list[tuple[str, str]]) -> None:
    """
    Whatever a host has in these files, there is an answer for each device.
    """
    files = [text_file(path, text) for path, text in written]
    read = configuration(files)
    for device in DEVICES:
        read.managed(device)
        by_udev(FileList(files=files, more=False), device)


_WORDS: Final = st.sampled_from(("[keyfile]", "[device]", "[device-x]", "\n", "=", "unmanaged-devices", "+"))
_VALUES: Final = st.sampled_from(("*", "except:", "interface-name:", "~", ",", ";", "\\", "cali", "?"))


@given(st.lists(st.one_of(_WORDS, _VALUES)).map("".join))
def test_any_settings_are_judged(text: str) -> None:
    """
    Files that are nearly right break nothing either.
    """
    configuration([text_file(MAIN, text)]).managed(CALI)
    assert all(split(text))


@pytest.mark.parametrize(
    ("condition", "is_read"),
    [
        ("nm-version:1.42", True),
        ("nm-version:1.42.4", True),
        ("nm-version:1.42.5", False),
        ("nm-version:1.4", False),
        ("nm-version-min:1.40", True),
        ("nm-version-min:1.40.9", False),
        ("nm-version-min:1.42.4", True),
        ("nm-version-max:1.42.9", True),
        ("nm-version-max:1.44.1", False),
        ("nm-version-max:2", True),
        ("except:nm-version-min:1.42", False),
        ("except:nm-version:1.0", True),
        ("except:env:X", True),
        ("env:X,nm-version-min:1.0", True),
        ("something", False),
    ],
)
def test_a_file_for_some_versions(tmp_path: Path, condition: str, is_read: bool) -> None:
    """
    The version is that of the directory with NetworkManager's plugins; what is expected 1.42.4 itself said.
    """
    plugin = "/usr/lib/x86_64-linux-gnu/NetworkManager/1.42.4/libnm-device-plugin-wifi.so"
    finding = judged(tmp_path, {plugin: "", f"{ETC}/a.conf": f"[.config]\nenable={condition}\n{KEY}=*"})

    assert is_read is (Result.PASS is finding.result), finding.seen
