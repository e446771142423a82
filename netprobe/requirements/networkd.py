"""
systemd-networkd: whether it leaves the routes and rules of others alone, and udev the addresses of devices.

Which files count: networkd.conf(5), systemd.link(5).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Final

from netprobe.questions import Failed, File, FileList, Files
from netprobe.requirements import _services
from netprobe.requirements._settings import Setting, boolean, name_of, settings, unreadable, unshadowed
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    not_applicable,
    passed,
    unknown,
)
from netprobe.requirements.networkmanager import DEVICES, Device

_DIRECTORIES: Final = (
    "/lib/systemd",
    "/usr/lib/systemd",
    "/usr/local/lib/systemd",
    "/run/systemd",
    "/etc/systemd",
)
"""A later one's file shadows one of the same name; the first is the second, or older distributions' own."""
_SERVICE: Final = "systemd-networkd"

_CONFIGURATION: Final = Files(
    patterns=tuple(
        f"{directory}/{name}"
        for name in ("networkd.conf", "networkd.conf.d/*.conf")
        for directory in _DIRECTORIES
    )
)
_LINKS: Final = Files(
    patterns=tuple(
        f"{directory}/network/{name}" for directory in _DIRECTORIES for name in ("*.link", "*.link.d/*.conf")
    )
)

_FOREIGN: Final = ("ManageForeignRoutes", "ManageForeignRoutingPolicyRules")
_DROP_IN: Final = "/etc/systemd/networkd.conf.d/calico.conf"


def foreign(files: Iterable[File]) -> dict[str, tuple[bool, str]]:
    """Whether networkd takes away the routes, and the rules, of others; and where that is written."""
    found = dict.fromkeys(_FOREIGN, (True, "by default"))
    # The main file of the strongest directory comes first, then the drop-ins, in the order of their names.
    read = list(files)
    main = unshadowed([each for each in read if name_of(each.path) == "networkd.conf"], _DIRECTORIES)
    directories = [f"{directory}/networkd.conf.d" for directory in _DIRECTORIES]
    drop_ins = unshadowed([each for each in read if each.path.rpartition("/")[0] in directories], directories)
    for file in [*main, *sorted(drop_ins, key=lambda each: name_of(each.path))]:
        for setting in settings(file.text, file.path):
            value = boolean(setting.value)
            if setting.section == "Network" and setting.key in found and value is not None:
                found[setting.key] = (value, setting.where)
    return found


def _foreign(context: Context) -> Judgement:
    running = _services.running(context, _SERVICE)
    if isinstance(running, Failed):
        return unknown(running)
    if not running:
        return not_applicable("no systemd-networkd runs")
    files = context.need(_CONFIGURATION)
    if hole := unreadable(files):
        return unknown(hole)
    told = {key: (value, where) for key, (value, where) in foreign(files.files).items()}
    seen = ", ".join(f"{key}={'yes' if value else 'no'} ({where})" for key, (value, where) in told.items())
    seen = f"{running[0].label} runs with {seen}"
    return failed(seen) if any(value for value, _where in told.values()) else passed(seen)


def link_file(files: FileList, device: Device) -> tuple[File, Mapping[str, Setting]] | None:
    """The first .link file, by name, that is for a device; the settings of its [Link] and its drop-ins."""
    directories = [f"{directory}/network" for directory in _DIRECTORIES]
    links = unshadowed([each for each in files.files if each.path.endswith(".link")], directories)
    for file in sorted(links, key=lambda each: name_of(each.path)):
        beside = [f"{directory}/{name_of(file.path)}.d" for directory in directories]
        drop_ins = unshadowed(
            [each for each in files.files if each.path.rpartition("/")[0] in beside], beside
        )
        read = [
            setting
            for each in [file, *sorted(drop_ins, key=lambda each: name_of(each.path))]
            for setting in settings(each.text, each.path)
        ]
        if _is_for(read, device):
            return file, {each.key: each for each in read if each.section == "Link"}
    return None


def _is_for(read: Iterable[Setting], device: Device) -> bool:
    """Whether all that [Match] asks for is so; without anything there a file is for no device."""
    known = {
        "OriginalName": {device.name},
        "Name": {device.name},
        "Kind": {device.kind},
        "Driver": {device.kind},
        # What devtype of sysfs says, and without it what its hardware type is called.
        "Type": {"ether", "veth"} if device.kind == "veth" else {device.kind},
    }
    wanted: dict[str, list[str]] = {}
    for setting in read:
        if setting.section == "Match":
            wanted[setting.key] = (
                [*wanted.get(setting.key, []), *setting.value.split()] if setting.value else []
            )
    wanted = {key: words for key, words in wanted.items() if words}
    return bool(wanted) and all(
        key in known and any(_matches(words, each) for each in known[key]) for key, words in wanted.items()
    )


def _matches(words: list[str], name: str) -> bool:
    """Globs; with a `!` before the first of them, none of these."""
    is_inverted = words[0].startswith("!")
    words = [words[0].removeprefix("!"), *words[1:]]
    return any(fnmatch.fnmatchcase(name, word) for word in words) is not is_inverted


def _mac(context: Context) -> Judgement:
    files = context.need(_LINKS)
    if hole := unreadable(files):
        return unknown(hole)
    told: list[str] = []
    wrong: list[str] = []
    for device in DEVICES:
        if device.kind not in ("veth", "vxlan"):
            continue
        found = link_file(files, device)
        if found is None:
            continue
        file, link = found
        if "MACAddress" in link and link["MACAddress"].value:
            setting = link["MACAddress"]
            wrong.append(f"{device.label} gets {setting.value} ({setting.where})")
        elif "MACAddressPolicy" in link:
            policy = link["MACAddressPolicy"]
            told.append(f"{device.label} {policy.value or 'none'} ({policy.where})")
        else:
            told.append(f"{device.label} none ({file.path})")
    if wrong:
        return failed(f"udev sets the MAC address of Calico's devices: {', '.join(wrong)}")
    if not told:
        return passed("no .link file is for Calico's devices")
    return passed(f"the policy, which leaves addresses that Calico has set as they are: {', '.join(told)}")


GROUP: Final = Group(
    name="Interfaces",
    rank=22,
    requirements=(
        Requirement(
            id="networkd",
            title="systemd-networkd leaves Calico's routes and rules alone",
            level=Level.RECOMMENDED,
            source=(
                "networkd.conf(5): ManageForeignRoutes, ManageForeignRoutingPolicyRules: by default networkd "
                "removes the routes and rules that others have added"
            ),
            method=(
                "Whether systemd-networkd runs in the host's network namespace; networkd.conf and its "
                "drop-ins, by systemd's precedence"
            ),
            fix=(
                f"mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\\nManageForeignRoutes=no\\n"
                f"ManageForeignRoutingPolicyRules=no\\n' > {_DROP_IN} && systemctl restart systemd-networkd"
            ),
            asks=(_services.DAEMONS, _CONFIGURATION),
            judge=_foreign,
        ),
        Requirement(
            id="mac-policy",
            title="udev leaves the MAC addresses of Calico's interfaces alone",
            level=Level.RECOMMENDED,
            source=(
                "systemd.link(5), MACAddressPolicy: an address that was set when the device was made stays; "
                "MACAddress replaces it, and Calico's routes lead to the former"
            ),
            method="The first .link file that matches each device, by systemd's precedence",
            fix=(
                "printf '[Match]\\nOriginalName=cali* vxlan*.calico\\n[Link]\\nMACAddressPolicy=none\\n' "
                "> /etc/systemd/network/10-calico.link && udevadm control --reload"
            ),
            asks=(_LINKS,),
            judge=_mac,
        ),
    ),
)
