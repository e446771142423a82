"""How kube-proxy carries services: its configuration, and what it has left in the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from netprobe.questions import Failed, File, Files, Look, Named, Processes
from netprobe.requirements._api import KUBE_PROXY, about_api, cluster_page
from netprobe.requirements._hosts import NETWORK
from netprobe.requirements._netlink import NETFILTER, attributes, step
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Requirement,
    failed,
    not_applicable,
    passed,
)
from netprobe.requirements.kubernetes import MANIFESTS, kubernetes_versions, version
from netprobe.requirements.texts import yaml_texts

_PROCESSES: Final = Processes(pattern=r"(^|/)kube-proxy$")
_NAMED: Final = Named(pattern=r"(^|/)kube-proxy$", flag="--config")
_FILES: Final = Files(
    patterns=(
        "/var/lib/kubelet/pods/*/volumes/kubernetes.io~configmap/kube-proxy/config.conf",
        "/var/lib/kubelet/pods/*/volumes/kubernetes.io~configmap/config/config",
        "/var/lib/kube-proxy/config.conf",
        "/var/lib/kube-proxy/kube-proxy-config.yaml",
        "/etc/kubernetes/kube-proxy*.yaml",
    )
)
_IP_VS: Final = Files(patterns=("/proc/net/ip_vs",), most=4096)

_NFT_GETTABLE, _NFT_GETCHAIN = 0xA01, 0xA04  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_*
_NFTA_TABLE_NAME, _NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME = 1, 1, 3
_DUMP: Final = 0x300
_ANY_FAMILY: Final = bytes(4)  # struct nfgenmsg: NFPROTO_UNSPEC
_CHAINS: Final = Look(
    protocol=NETFILTER,
    steps=(step(_NFT_GETTABLE, _ANY_FAMILY, _DUMP), step(_NFT_GETCHAIN, _ANY_FAMILY, _DUMP)),
)

_IPTABLES, _IPVS = "iptables", "ipvs"
_SUPPORTED: Final = (_IPTABLES, _IPVS)
_FIRST_IPVS: Final = (1, 9)
_KIND: Final = "KubeProxyConfiguration"
_DEFAULTS: Final = ("", "null", "~")
_MAX_FILES: Final = 10


class Mode(NamedTuple):
    """A mode, and where it was seen."""

    name: str
    where: str


def mode_of_configuration(text: str) -> str | None:
    """The mode in a kube-proxy configuration; None where the text is none."""
    # What a host says may be anything, and long.
    document = yaml_texts(text) if _KIND in text else None
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        return None
    mode = document.get("mode", "")
    if not isinstance(mode, str):
        return None
    return _IPTABLES if mode in _DEFAULTS else mode


def mode_of_arguments(argv: list[str]) -> str:
    """What --proxy-mode says, the default where it says nothing."""
    for word, following in zip(argv[1:], [*argv[2:], ""], strict=False):
        if word == "--proxy-mode":
            return following or _IPTABLES
        if word.startswith("--proxy-mode="):
            return word.partition("=")[2] or _IPTABLES
    return _IPTABLES


def _configured(context: Context) -> Iterator[Mode]:
    """What kube-proxy was told: a configuration file beats the arguments."""
    named, files, processes = context.of(_NAMED), context.of(_FILES), context.of(_PROCESSES)
    found = _of_files([] if isinstance(named, Failed) else named)
    if not found and not isinstance(processes, Failed):
        found = [
            Mode(mode_of_arguments(process.argv), f"kube-proxy's arguments (pid {process.pid})")
            for process in processes
            if process.is_here is not False
            and not any(word.partition("=")[0] == "--config" for word in process.argv)
        ]
    if not found:
        found += _of_files([] if isinstance(files, Failed) else files.files)
    if not found:
        page = cluster_page(context, KUBE_PROXY)
        data = page.get("data") if isinstance(page, dict) else None
        texts = data.values() if isinstance(data, dict) else ()
        for text in texts:
            if isinstance(text, str) and (mode := mode_of_configuration(text)):
                found.append(Mode(mode, "the ConfigMap kube-proxy"))
    yield from dict.fromkeys(found)


def _of_files(files: list[File]) -> list[Mode]:
    modes = ((file.path, mode_of_configuration(file.text)) for file in files[:_MAX_FILES] if not file.error)
    return [Mode(mode, path) for path, mode in modes if mode]


def _in_the_kernel(context: Context) -> Iterator[Mode]:
    """What kube-proxy has made; iptables' legacy rules are not looked at."""
    facts, services, outcomes = context.of(NETWORK), context.of(_IP_VS), context.of(_CHAINS)
    if not isinstance(facts, Failed) and any(link.name == "kube-ipvs0" for link in facts.links):
        yield Mode(_IPVS, "the interface kube-ipvs0")
    elif not isinstance(services, Failed) and re.search(
        r"^(TCP|UDP|SCTP) ", services.text("/proc/net/ip_vs") or "", re.MULTILINE
    ):
        yield Mode(_IPVS, "services of IPVS")
    if isinstance(outcomes, Failed) or len(outcomes) != len(_CHAINS.steps):
        return
    tables, chains = (
        [attributes(body[4:]) for body in outcome.bodies] if not outcome.error else [] for outcome in outcomes
    )
    if any(_text(each, _NFTA_TABLE_NAME) == "kube-proxy" for each in tables):
        yield Mode("nftables", "the table kube-proxy of nftables")
    if any(map(_is_services, chains)):
        yield Mode(_IPTABLES, "the chain KUBE-SERVICES of iptables-nft")


def _is_services(chain: dict[int, bytes]) -> bool:
    return _text(chain, _NFTA_CHAIN_TABLE) == "nat" and _text(chain, _NFTA_CHAIN_NAME) == "KUBE-SERVICES"


def _text(values: dict[int, bytes], kind: int) -> str:
    return values.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")


def _mode(context: Context) -> Judgement:
    configured, kernel = list(_configured(context)), list(_in_the_kernel(context))
    # In IPVS' mode, and where the mode was changed, there are chains of iptables as well.
    found = configured or [mode for mode in kernel if mode.name != _IPTABLES] or kernel
    if not found:
        # Where nobody may look for it, that there is none is not known.
        context.need(_PROCESSES)
        return not_applicable("no kube-proxy runs here, and nothing of one is in the kernel")
    shown = "; ".join(f"{mode.name} ({mode.where})" for mode in found)
    wrong = next((mode for mode in found if mode.name not in _SUPPORTED), None)
    if wrong is not None:
        return failed(f"{shown}: Calico 3.28 supports iptables and ipvs")
    if any(mode.name == _IPVS for mode in found):
        return _ipvs(context, shown)
    return passed(shown)


def _ipvs(context: Context, shown: str) -> Judgement:
    old = [
        text
        for text in kubernetes_versions(context)
        if (numbers := version(text)) and (numbers < _FIRST_IPVS or re.match(r"v?1\.9\.[0-2](?!\d)", text))
    ]
    if old:
        return failed(f"{shown}, with Kubernetes {', '.join(old)}: it requires 1.9.3", "Upgrade Kubernetes.")
    return passed(f"{shown}; see ipvs for the kernel's part")


GROUP: Final = Group(
    name="kube-proxy",
    rank=80,
    requirements=(
        Requirement(
            id="kube-proxy-mode",
            title="Mode of kube-proxy",
            source=(
                "Calico supports the following kube-proxy modes: iptables (default), ipvs Requires "
                "Kubernetes v1.9.3."
            ),
            method=(
                "kube-proxy's --config file or its arguments, its ConfigMap in kubelet's volumes or by "
                "--kubeconfig; else kube-ipvs0, IPVS' services and the chains in the kernel"
            ),
            fix="Set kube-proxy's mode to iptables or ipvs in its ConfigMap, and restart it on every node.",
            asks=(_PROCESSES, _NAMED, _FILES, _IP_VS, _CHAINS, NETWORK, MANIFESTS),
            asks_about=about_api,
            judge=_mode,
        ),
    ),
)
