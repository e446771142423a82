"""
NetworkManager, and whether its configuration leaves Calico's interfaces alone.

Which files count, in which order, and how devices are matched: NetworkManager.conf(5), and NetworkManager's
src/core/nm-config.c and src/libnm-core-impl (nm_match_spec_device).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from netprobe.questions import Failed, File, FileList, Files
from netprobe.requirements import _services
from netprobe.requirements._settings import Setting, boolean, name_of, settings, unreadable, unshadowed
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Requirement,
    failed,
    not_applicable,
    passed,
    unknown,
    warned,
)

_MAIN: Final = "/etc/NetworkManager/NetworkManager.conf"
_INTERN: Final = "/var/lib/NetworkManager/NetworkManager-intern.conf"
_DIRECTORIES: Final = (
    "/usr/lib/NetworkManager/conf.d",
    "/run/NetworkManager/conf.d",
    "/etc/NetworkManager/conf.d",
)
"""In the order in which they are read, the main file before the last of them; a later one's file shadows."""
_CONFIGURATION: Final = Files(
    patterns=(
        *(f"{directory}/*.conf" for directory in _DIRECTORIES[:2]),
        _MAIN,
        f"{_DIRECTORIES[2]}/*.conf",
        _INTERN,
    )
)
_RULE_DIRECTORIES: Final = (
    "/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/run/udev/rules.d",
    "/etc/udev/rules.d",
)
_RULES: Final = Files(
    patterns=tuple(
        f"{directory}/{name}"
        for directory, name in zip(
            _RULE_DIRECTORIES, ("*nm*.rules", "*nm*.rules", "*.rules", "*.rules"), strict=True
        )
    )
)
_VERSIONS: Final = Files(
    patterns=(
        "/usr/lib/NetworkManager/[0-9]*",
        "/usr/lib64/NetworkManager/[0-9]*",
        "/usr/lib/*/NetworkManager/[0-9]*",
    ),
    most=0,
)
"""Where its plugins are: a directory that is called by its version."""
_SERVICE: Final = "NetworkManager"
_DEVICE: Final = "device"

FILE: Final = f"{_DIRECTORIES[2]}/calico.conf"
"""Calico, "Configure NetworkManager": the file, and what is in it."""
_FIX: Final = (
    f"printf '[keyfile]\\nunmanaged-devices=interface-name:cali*;interface-name:tunl*;"
    f"interface-name:vxlan.calico;interface-name:vxlan-v6.calico;interface-name:wireguard.cali;"
    f"interface-name:wg-v6.cali\\n' > {FILE} && systemctl reload NetworkManager"
)

_IPIP: Final = ("ipip", "ipip-crosssubnet")
_VXLAN: Final = ("vxlan", "vxlan-crosssubnet")
_WIREGUARD: Final = ("wireguard",)


class Device(msgspec.Struct, frozen=True):
    """
    An interface that Calico makes: what it is told of as, an example's name, and the modes that have it.

    `kind` is its driver, `type` NetworkManager's name for that.
    """

    label: str
    name: str
    kind: str
    type: str
    modes: tuple[str, ...] = ()


DEVICES: Final = (
    Device("cali*", "cali0123456789a", "veth", "veth"),
    Device("tunl0", "tunl0", "ipip", "iptunnel", _IPIP),
    Device("vxlan.calico", "vxlan.calico", "vxlan", "vxlan", _VXLAN),
    Device("vxlan-v6.calico", "vxlan-v6.calico", "vxlan", "vxlan", _VXLAN),
    Device("wireguard.cali", "wireguard.cali", "wireguard", "wireguard", _WIREGUARD),
    Device("wg-v6.cali", "wg-v6.cali", "wireguard", "wireguard", _WIREGUARD),
)


class Spec(msgspec.Struct, frozen=True):
    """One of a list of devices, and where it is written."""

    text: str
    where: str


def split(value: str) -> list[str]:
    """The specs of a list: separated by `,` and `;`, each of which a backslash escapes."""
    pieces = re.findall(r"(?:\\.|[^,;\\]|\\$)+", value, re.DOTALL)
    return [re.sub(r"\\(.)", _unescaped, each.strip(), flags=re.DOTALL) for each in pieces if each.strip()]


def _unescaped(match: re.Match[str]) -> str:
    return {"s": " ", "t": "\t", "n": "\n"}.get(match[1], match[1])


def matching(specs: Iterable[Spec], device: Device) -> Spec | None:
    """The spec by which a list is one that has this device; an exception wins over all others."""
    found: Spec | None = None
    exceptions: Spec | None = None
    only_exceptions = True
    for spec in specs:
        is_exception = spec.text.lower().startswith("except:")
        text = spec.text[len("except:") :] if is_exception else spec.text
        only_exceptions = only_exceptions and is_exception
        is_match = _is_match(text, device, by_name=not is_exception)
        if is_exception:
            if is_match:
                return None
            exceptions = exceptions or spec
        elif is_match:
            found = found or spec
    return found or (exceptions if only_exceptions else None)


def _is_match(text: str, device: Device, *, by_name: bool) -> bool:
    """Whether a spec has a device. By addresses it has none that Calico makes: they have no permanent one."""
    if text == "*":
        return True
    tag, colon, value = text.partition(":")
    tag = tag.lower() if colon else ""
    if tag == "interface-name":
        if value.startswith("="):
            return value[1:] == device.name
        return _glob(value.removeprefix("~"), device.name)
    if tag == "type":
        return value == device.type
    if tag == "driver":
        return value.partition("/")[0] == device.kind and value.partition("/")[2] in ("", "*")
    return by_name and text == device.name


def _glob(pattern: str, name: str) -> bool:
    """As GLib has it: `*` and `?`, and no more."""
    parts = (".*" if each == "*" else "." if each == "?" else re.escape(each) for each in pattern)
    return pattern == name or re.fullmatch(re.sub(r"(\.\*)+", ".*", "".join(parts)), name) is not None


class Section(msgspec.Struct, frozen=True):
    """A section [device…]: its name, which devices it is for (None: all), and its settings."""

    name: str
    specs: tuple[Spec, ...] | None
    settings: Mapping[str, Setting]


class Configuration(msgspec.Struct, frozen=True):
    """What NetworkManager reads: the devices it leaves alone, and its sections, the first of which counts."""

    unmanaged: tuple[Spec, ...]
    sections: tuple[Section, ...]

    def managed(self, device: Device) -> tuple[bool, str] | None:
        """Whether it manages a device, and where that is written; None where nothing is."""
        spec = matching(self.unmanaged, device)
        if spec is not None:
            return False, f"{spec.where} unmanaged-devices {spec.text}"
        for section in self.sections:
            if section.specs is not None and matching(section.specs, device) is None:
                continue
            setting = section.settings.get("managed")
            value = None if setting is None else boolean(setting.value)
            if setting is not None and value is not None:
                return value, f"{setting.where} managed={setting.value} of [{section.name}]"
            stop = section.settings.get("stop-match")
            if stop is not None and boolean(stop.value):
                break
        return None


def configuration(files: Iterable[File], version: tuple[int, ...] = ()) -> Configuration:
    """What the files, in the order of `_CONFIGURATION`, say together to NetworkManager of this version."""
    unmanaged: list[Spec] = []
    sections: dict[str, dict[str, Setting]] = {}
    for file in unshadowed(files, _DIRECTORIES):
        read = list(settings(file.text, file.path, comments="#"))
        if file.path == _INTERN:
            unmanaged = _intern(unmanaged, read)
            continue
        if file.path != _MAIN and not _is_enabled(read, version):
            continue
        keyfile = [each for each in read if each.section == "keyfile"]
        # Of a key that is there twice, GLib has the last one, in its place.
        last = {each.key: each for each in keyfile}
        for setting in keyfile:
            if last[setting.key] is setting:
                unmanaged = _changed(unmanaged, setting)
        _merge(sections, read)
    return Configuration(tuple(unmanaged), tuple(_in_order(sections)))


def _specs(setting: Setting) -> list[Spec]:
    return [Spec(text, setting.where) for text in split(setting.value)]


def _changed(unmanaged: list[Spec], setting: Setting) -> list[Spec]:
    """The list after a setting that replaces it, adds to it, or takes from it."""
    if setting.key == "unmanaged-devices":
        return _specs(setting)
    if setting.key == "unmanaged-devices+":
        return unmanaged + _specs(setting)
    if setting.key == "unmanaged-devices-":
        taken = set(split(setting.value))
        return [each for each in unmanaged if each.text not in taken]
    return unmanaged


def _intern(unmanaged: list[Spec], read: list[Setting]) -> list[Spec]:
    """What NetworkManager wrote itself counts as long as what it found before has not changed since."""
    own = {each.key: each for each in read if each.section == "keyfile"}
    before = own.get(".was.unmanaged-devices")
    known = [] if before is None else split(before.value)
    if "unmanaged-devices" in own and known == [each.text for each in unmanaged]:
        return _specs(own["unmanaged-devices"])
    return unmanaged


def _is_enabled(read: list[Setting], version: tuple[int, ...]) -> bool:
    """
    Whether a file is not disabled by its own [.config].

    Of what depends on the version, where nobody knows that, it is taken that the file is for this one.
    """
    said = [each.value for each in read if (each.section, each.key) == (".config", "enable")]
    if not said:
        return True
    value = boolean(said[-1])
    if value is not None:
        return value
    specs = split(said[-1])
    exceptions = [each[len("except:") :] for each in specs if each.startswith("except:")]
    wanted = [each for each in specs if not each.startswith("except:")]
    if any(_is_for(each, version, otherwise=False) for each in exceptions):
        return False
    return not wanted or any(_is_for(each, version, otherwise=True) for each in wanted)


def _is_for(spec: str, version: tuple[int, ...], *, otherwise: bool) -> bool:
    """Whether a condition of [.config] is so; those on the environment are none that NetworkManager has."""
    tag, _colon, text = spec.partition(":")
    if not tag.startswith("nm-version"):
        return False
    if not version:
        return otherwise
    numbers = _numbers(text)
    same = version[: len(numbers)] == numbers
    if tag == "nm-version" or not numbers:
        return same and bool(numbers)
    # With three numbers it is about that series only: the last one alone is compared.
    in_series = len(numbers) < 3 or version[:2] == numbers[:2]
    if tag == "nm-version-min":
        return in_series and version[: len(numbers)] >= numbers
    return tag == "nm-version-max" and in_series and version[: len(numbers)] <= numbers


def _numbers(text: str) -> tuple[int, ...]:
    match = re.match(r"\d{1,6}(?:\.\d{1,6}){0,2}", text)
    return () if match is None else tuple(int(part) for part in match[0].split("."))


def version_of(found: FileList) -> tuple[int, ...]:
    """The version of NetworkManager that is installed, () where that is not known, or there are several."""
    versions = {_numbers(name_of(file.path)) for file in found.files}
    return versions.pop() if len(versions) == 1 else ()


def _merge(sections: dict[str, dict[str, Setting]], read: list[Setting]) -> None:
    """Add the sections [device…] of a file, or what it has for those that are there; its last one first."""
    names = dict.fromkeys(each.section for each in read if each.section.startswith(_DEVICE))
    for name in reversed(names):
        own = {each.key: each for each in read if each.section == name}
        sections.setdefault(name, {}).update(own)


def _in_order(sections: dict[str, dict[str, Setting]]) -> list[Section]:
    """The sections as they are searched: those of later files first, and the one without a suffix last."""
    found = [
        Section(name, tuple(_specs(values["match-device"])) if "match-device" in values else None, values)
        for name, values in reversed(sections.items())
    ]
    return sorted(found, key=lambda section: section.name == _DEVICE)


_CONDITION: Final = re.compile(r'\s*([A-Z]+(?:\{[^}]*\})?)\s*(==|!=|\+?=|:=)\s*"([^"]*)"\s*')


def by_udev(rules: FileList, device: Device) -> str:
    """
    Where a rule of udev(7) says that NetworkManager is to leave a device alone, or "".

    Rules with conditions on what is not known before the device is there are left out.
    """
    known = {
        "SUBSYSTEM": "net",
        "KERNEL": device.name,
        "NAME": device.name,
        "ENV{INTERFACE}": device.name,
        "ENV{ID_NET_DRIVER}": device.kind,
    }
    where = ""
    for file in unshadowed(rules.files, _RULE_DIRECTORIES):
        for number, line in enumerate(file.text.split("\n"), 1):
            if "NM_UNMANAGED" not in line or line.lstrip().startswith("#"):
                continue
            parts = [(match[1], match[2], match[3]) for match in _CONDITION.finditer(line)]
            if not all(_holds(known, each) for each in parts if each[1] in ("==", "!=")):
                continue
            for key, operator, value in parts:
                if key == "ENV{NM_UNMANAGED}" and operator in ("=", ":="):
                    where = f"{file.path}:{number} NM_UNMANAGED" if boolean(value) else ""
    return where


def _holds(known: Mapping[str, str], condition: tuple[str, str, str]) -> bool:
    key, operator, value = condition
    if key == "ACTION":
        return True
    if key not in known:
        return False
    is_equal = any(fnmatch.fnmatchcase(known[key], each) for each in value.split("|"))
    return is_equal == (operator == "==")


def _judge(context: Context) -> Judgement:
    running = _services.running(context, _SERVICE)
    if isinstance(running, Failed):
        return unknown(running)
    services = _services.enabled(context, _SERVICE)
    if isinstance(services, Failed):
        return unknown(services)
    enabled = services.get(_SERVICE, "")
    if not running and not enabled:
        return not_applicable("no NetworkManager runs, nor begins with the next boot")
    files, rules = context.of(_CONFIGURATION), context.of(_RULES)
    versions = context.of(_VERSIONS)
    if isinstance(files, Failed) or isinstance(rules, Failed) or isinstance(versions, Failed):
        return unknown(next(each for each in (files, rules, versions) if isinstance(each, Failed)))
    if hole := unreadable(files) or unreadable(rules):
        return unknown(hole)
    runs = f"{running[0].label} runs" if running else f"NetworkManager begins with the next boot ({enabled})"
    return _judged(
        context, configuration(files.files, version_of(versions)), rules, runs, is_running=bool(running)
    )


def _judged(
    context: Context, found: Configuration, rules: FileList, runs: str, *, is_running: bool
) -> Judgement:
    left: list[str] = []
    managed: list[str] = []
    for device in DEVICES:
        if device.modes and context.modes is not None and not set(device.modes) & set(context.modes):
            continue
        decided = found.managed(device)
        if decided is None and (rule := by_udev(rules, device)):
            decided = False, rule
        is_managed, where = decided or (True, "")
        (managed if is_managed else left).append(f"{device.label} ({where})" if where else device.label)
    if not managed:
        return passed(f"{runs}, and leaves alone {', '.join(left)}")
    seen = f"{runs}; nothing keeps it from {', '.join(managed)}" + (
        f"; it leaves alone {', '.join(left)}" if left else ""
    )
    return failed(seen) if is_running else warned(seen)


GROUP: Final = Group(
    name="Interfaces",
    rank=21,
    requirements=(
        Requirement(
            id="networkmanager",
            title="NetworkManager leaves Calico's interfaces alone",
            source=(
                "Many Linux distributions, such as most of the above, include NetworkManager. By default, "
                "NetworkManager does not allow Calico to manage interfaces. If your nodes have "
                "NetworkManager, complete the steps in Preventing NetworkManager from controlling Calico "
                "interfaces before installing Calico."
            ),
            method=(
                "Whether NetworkManager runs in the host's network namespace, or begins at boot; its "
                "configuration files by its own rules: unmanaged-devices, managed=0, and udev's NM_UNMANAGED"
            ),
            fix=_FIX,
            asks=(_services.DAEMONS, _services.ENABLED, _CONFIGURATION, _RULES, _VERSIONS),
            judge=_judge,
        ),
    ),
)
