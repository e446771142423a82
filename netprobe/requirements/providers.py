"""Other network providers: at work, or left over from earlier."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from netprobe.questions import Failed, FileList, Files
from netprobe.requirements import _links, _services
from netprobe.requirements._links import Link
from netprobe.requirements._settings import name_of
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Requirement,
    failed,
    passed,
    unknown,
    warned,
)


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """
    A network provider by what it leaves on a host.

    `interfaces` is a regular expression for their names, `types` those of its plugins in CNI configurations.
    One that is `compatible` Calico works beside, for policy only.
    """

    name: str
    interfaces: str = ""
    processes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    compatible: bool = False


_PROVIDERS: Final = (
    Provider(
        name="flannel",
        interfaces=r"flannel(\.\d+|-v6\.\d+|-wg(-v6)?)?",
        processes=("flanneld",),
        types=("flannel",),
        compatible=True,
    ),
    Provider(
        name="Weave Net",
        interfaces=r"weave|vethwe-.*|vxlan-6784",
        processes=("weaver",),
        types=("weave-net",),
    ),
    Provider(
        name="Cilium",
        interfaces=r"cilium_.*|lxc_health",
        processes=("cilium-agent",),
        types=("cilium-cni",),
    ),
    Provider(name="kube-router", interfaces=r"kube-bridge|kube-dummy-if", processes=("kube-router",)),
    Provider(name="Antrea", interfaces=r"antrea-(gw|tun)\d*", processes=("antrea-agent",), types=("antrea",)),
    Provider(name="Kube-OVN", interfaces=r"ovn0", processes=("kube-ovn-daemon",), types=("kube-ovn",)),
    Provider(
        name="OVN-Kubernetes",
        interfaces=r"ovn-k8s-.*",
        processes=("ovnkube",),
        types=("ovn-k8s-cni-overlay",),
    ),
    Provider(name="OpenShift SDN", interfaces=r"vxlan_sys_4789", types=("openshift-sdn",)),
    Provider(name="Romana", interfaces=r"romana-.*", types=("romana",)),
    Provider(name="Amazon VPC CNI", processes=("aws-k8s-agent",), types=("aws-cni",), compatible=True),
    Provider(name="Azure CNI", interfaces=r"azure\d+", types=("azure-vnet",), compatible=True),
    Provider(name="a bridge of CNI", interfaces=r"cni\d+|cbr0"),
    Provider(name="Docker Swarm", interfaces=r"docker_gwbridge"),
)
_OTHERS_PROCESSES: Final = tuple(name for each in _PROVIDERS for name in each.processes)

_CONFIGURATIONS: Final = Files(
    patterns=("/etc/cni/net.d/*.conf", "/etc/cni/net.d/*.conflist", "/etc/cni/net.d/*.json")
)
_CALICO: Final = "calico"
_CALICOS_FILE: Final = "10-calico.conflist"
"""What Calico's install-cni writes; of several the runtime takes the first by name (libcni, containerd)."""
_BESIDE: Final = frozenset(
    {"loopback", "portmap", "bandwidth", "tuning", "firewall", "sbr", "vrf", "multus", "istio-cni"}
)
"""Plugins that are no provider, and work beside one."""


class Found(msgspec.Struct):
    """Evidence of other providers: at work, beside which Calico may work, left over, and what is unclear."""

    at_work: list[str] = msgspec.field(default_factory=list)
    compatible: list[str] = msgspec.field(default_factory=list)
    left: list[str] = msgspec.field(default_factory=list)

    def add(self, provider: Provider, seen: str) -> None:
        """Evidence of a provider at work."""
        (self.compatible if provider.compatible else self.at_work).append(f"{provider.name}: {seen}")


def by_links(links: list[Link], found: Found) -> None:
    """Add the interfaces that providers have."""
    for link in links:
        for provider in _PROVIDERS:
            if provider.interfaces and re.fullmatch(provider.interfaces, link.name):
                found.left.append(f"{provider.name}: interface {link.name}")


def by_configurations(files: FileList, found: Found) -> None:
    """Add the configurations in CNI's directory that are not Calico's."""
    for file in files.files:
        if file.error:
            continue
        types = plugin_types(file.text)
        if types is None:
            found.left.append(f"{file.path} is no CNI configuration")
            continue
        if _CALICO in types:
            continue
        provider = next((each for each in _PROVIDERS if set(each.types) & set(types)), None)
        if provider is not None:
            found.add(provider, f"{file.path} (type {types[0]})")
            continue
        others = [each for each in types if each not in _BESIDE]
        if others and name_of(file.path) < _CALICOS_FILE:
            found.at_work.append(f"{file.path} (type {others[0]}), which comes before {_CALICOS_FILE}")
        elif others:
            found.left.append(f"{file.path} (type {others[0]}), until {_CALICOS_FILE} is there")


def plugin_types(text: str) -> list[str] | None:
    """The types of the plugins of a CNI configuration (CNI specification), None where it is none."""
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    plugins = document.get("plugins", [document])
    types = (
        [each.get("type") for each in plugins if isinstance(each, dict)] if isinstance(plugins, list) else []
    )
    found = [each for each in types if isinstance(each, str)]
    return found or None


def _other(context: Context) -> Judgement:
    links, files = _links.links(context), context.of(_CONFIGURATIONS)
    running = _services.running(context, *_OTHERS_PROCESSES)
    found = Found()
    holes: list[Failed | str] = [each for each in (links, files, running) if isinstance(each, Failed)]
    if not isinstance(links, Failed):
        by_links(links, found)
    if not isinstance(files, Failed):
        by_configurations(files, found)
        holes += [f"{file.path}: {file.error}" for file in files.files if file.error not in ("", "EISDIR")]
    for process in [] if isinstance(running, Failed) else running:
        for provider in _PROVIDERS:
            if any(_services.is_called(process, name) for name in provider.processes):
                found.add(provider, f"{process.label} runs")
    if found.at_work:
        return failed("; ".join([*found.at_work, *found.compatible, *found.left]))
    if holes:
        return unknown(holes[0])
    if found.compatible:
        told = "; ".join([*found.compatible, *found.left])
        return warned(f"Calico works beside these, in some of its modes: {told}")
    if found.left:
        return warned(f"left over, or in use: {'; '.join(found.left)}")
    return passed("no other provider's interfaces, CNI configurations, or processes")


GROUP: Final = Group(
    name="Other network providers",
    rank=80,
    requirements=(
        Requirement(
            id="other-provider",
            title="No other network provider",
            source=(
                "Generally, you cannot use Calico together with another network provider. If you're working "
                "with a cluster that already uses another CNI, you cannot migrate to Calico."
            ),
            method=(
                "The interfaces of the host, the CNI configurations in /etc/cni/net.d, and processes, "
                "that are those of other providers"
            ),
            fix=(
                "Remove the other provider from the cluster; on the host its files in /etc/cni/net.d, and "
                "its interfaces (ip link delete …), or reboot."
            ),
            asks=(_links.LINKS, _CONFIGURATIONS, _services.DAEMONS),
            judge=_other,
        ),
    ),
)
