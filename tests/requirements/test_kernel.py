"""What the kernel is asked, against what the kernel does: with the real tools, and where it refuses."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import pytest

from netprobe.findings import Finding, Result
from netprobe.model import Family
from netprobe.requirements import registry
from netprobe.requirements._xtables import Variant
from tests.agent.driver import VERSIONS, interpreters
from tests.requirements.asking import checked, differing, found, host, refusing, results

pytestmark = pytest.mark.lab

KERNEL: Final = tuple(
    name
    for name, each in registry().items()
    if name.startswith(("device-", "table-", "match-", "target-"))
    or name in ("iptables", "ipset", "conntrack", "conntrack-sctp", "sctp", "ipvs", "ebpf-tc", "xdp")
)
_BOTH: Final = ("IPv4", "IPv6")


@cache
def here() -> Mapping[str, Finding]:
    """The findings of this machine, as it is."""
    return found()


_TOOLS: Final = re.compile(r"\b(?:ip6?tables-\w+|ipset|conntrack|tc)\b(?= -| \w)")


def _tool_can(command: str) -> bool:
    """Whether a command of the machine's own tools works, in a network namespace of its own."""
    absent = [tool for tool in _TOOLS.findall(command) if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"no {', '.join(absent)} to compare with")
    ran = subprocess.run(
        ["unshare", "--net", "sh", "-ec", command], capture_output=True, text=True, check=False, timeout=30
    )
    return ran.returncode == 0


_DEVICES: Final = {
    "device-veth": "ip link add cali1 type veth peer name cali2",
    # The kernel makes it in each namespace, where it has the module.
    "device-ipip": "ip link show tunl0 || ip link add tunl0 type ipip",
    "device-vxlan": "ip link add vxlan.calico type vxlan id 4096 dstport 4789",
    "device-wireguard": "ip link add wireguard.cali type wireguard",
    "ebpf-tc": "ip link add cali1 type veth peer name cali2 && tc qdisc add dev cali1 clsact",
    "ipset": "ipset create a hash:ip && ipset create b hash:net && ipset create c hash:ip,port",
    "conntrack": "conntrack -I -s 192.0.2.1 -d 192.0.2.2 -p udp --sport 1 --dport 2 -t 9",
    "conntrack-sctp": (
        "conntrack -I -s 192.0.2.1 -d 192.0.2.2 -p sctp --orig-port-src 1 --orig-port-dst 2 -t 9 "
        "--state ESTABLISHED --orig-vtag 1 --reply-vtag 2 && conntrack -L | grep -q dport=2"
    ),
}


@pytest.mark.parametrize("name", _DEVICES)
def test_the_kernels_answer_is_what_the_tools_get(name: str) -> None:
    """`ip`, `tc`, `ipset` and `conntrack` succeed exactly where the requirement passes."""
    assert (Result.PASS if _tool_can(_DEVICES[name]) else Result.FAIL) is here()[name].result


_RULES: Final = {
    "match-set": "-m set --match-set s src -j ACCEPT",
    "match-rpfilter": "-m rpfilter -j ACCEPT",
    "match-addrtype": "-m addrtype --dst-type LOCAL -j ACCEPT",
    "match-comment": "-m comment --comment netprobe -j ACCEPT",
    "match-conntrack": "-m conntrack --ctstate NEW -j ACCEPT",
    "match-icmp": "-p icmp -m icmp --icmp-type 8 -j ACCEPT",
    "match-tcp": "-p tcp -m tcp --dport 179 -j ACCEPT",
    "match-udp": "-p udp -m udp --dport 4789 -j ACCEPT",
    "match-ipvs": "-m ipvs --ipvs -j ACCEPT",
    "match-icmpv6": "-p icmpv6 -m icmp6 --icmpv6-type 128 -j ACCEPT",
    "match-mark": "-m mark --mark 1 -j ACCEPT",
    "match-multiport": "-p tcp -m multiport --dports 1,2 -j ACCEPT",
    "match-sctp": "-p sctp -m sctp --dport 1 -j ACCEPT",
    "match-u32": "-m u32 --u32 0=0 -j ACCEPT",
    "match-bpf": "-m bpf --bytecode '1,6 0 0 1' -j ACCEPT",
    "target-REJECT": "-j REJECT",
    "target-ACCEPT": "-j ACCEPT",
    "target-DROP": "-j DROP",
    "target-LOG": "-j LOG",
    "target-NFLOG": "-j NFLOG",
    "target-MARK": "-j MARK --set-mark 1",
    "target-MASQUERADE": "-j MASQUERADE",
    "target-DNAT": "-j DNAT --to-destination {address}",
}
"""A rule that cannot be made without the extension."""
_TABLES: Final = {
    "match-rpfilter": "raw -I PREROUTING",
    "target-MARK": "mangle -I PREROUTING",
    "target-MASQUERADE": "nat -I POSTROUTING",
    "target-DNAT": "nat -I PREROUTING",
}


def _rule(name: str, variant: Variant, family: Family) -> str:
    """The commands that make a rule with an extension."""
    tool = f"{'iptables' if family is Family.IPV4 else 'ip6tables'}-{variant.value}"
    sets = f"ipset create s hash:ip family {'inet' if family is Family.IPV4 else 'inet6'}"
    address = "192.0.2.1" if family is Family.IPV4 else "2001:db8::1"
    words = _RULES[name].format(address=address)
    return f"{sets if name == 'match-set' else ':'}; {tool} -t {_TABLES.get(name, 'filter -I INPUT')} {words}"


def _cases() -> Iterator[tuple[str, Variant, Family]]:
    for name in _RULES:
        for variant in Variant:
            for family in Family:
                if (name, family) not in (("match-icmp", Family.IPV6), ("match-icmpv6", Family.IPV4)):
                    yield name, variant, family


@pytest.mark.parametrize(("name", "variant", "family"), list(_cases()))
def test_an_extension_is_there_where_iptables_can_use_it(name: str, variant: Variant, family: Family) -> None:
    """Each variant's own program makes a rule with it exactly where the kernel said that it has it."""
    (told,) = (part for part in here()[name].seen.split("; ") if part.startswith(variant.value))
    words = told.partition(": ")[2].split(", ")

    assert _tool_can(_rule(name, variant, family)) == (family.label in words)


@pytest.mark.parametrize("name", ["filter", "nat", "mangle", "raw"])
@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("tool", ["iptables", "ip6tables"])
def test_a_table_is_there_where_iptables_lists_it(tool: str, variant: Variant, name: str) -> None:
    """The same for tables."""
    (told,) = (part for part in here()[f"table-{name}"].seen.split("; ") if part.startswith(variant.value))
    label = "IPv4" if tool == "iptables" else "IPv6"

    assert _tool_can(f"{tool}-{variant.value} -t {name} -S") == (label in told.partition(": ")[2].split(", "))


def test_what_this_kernel_lacks_fails_with_its_own_words() -> None:
    """Evidence is what the kernel answered; which of them fail depends on the machine."""
    lacking = {name: finding for name, finding in here().items() if finding.result is Result.FAIL}
    said = {
        "device-ipip": "EOPNOTSUPP",
        "device-wireguard": "EOPNOTSUPP",
        "match-ipvs": "ENOENT",
        "ipvs": "ENOENT",
    }

    assert set() == lacking.keys() - said.keys()
    for name, finding in lacking.items():
        assert said[name] in finding.seen
        assert finding.fix


_NFTA_COMPAT_NAME, _CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT = 1, 1, 2


def _of_protocol(number: int) -> str:
    """What is in every message about a connection of a protocol."""
    return struct.pack("=HHB3xHH", 5, _CTA_PROTO_NUM, number, 6, _CTA_PROTO_SRC_PORT).hex()


_SOCKET: Final = "socket@16,*,12=EPROTONOSUPPORT"
"""A kernel without nfnetlink."""
_NO_LEGACY: Final = "getsockopt@*,0=ENOPROTOOPT", "getsockopt@*,41=ENOPROTOOPT"
"""A kernel without ip_tables and ip6_tables."""


def _without(name: str) -> tuple[str, ...]:
    """Rules for a kernel that lacks one extension: legacy and nft ask for it by its name and a zero."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), _NFTA_COMPAT_NAME) + text
    return f"getsockopt~{text.hex()}=ENOENT", f"sendto~{attribute.hex()}=ENOENT"


def _lacking() -> Iterator[tuple[str, tuple[str, ...], set[str]]]:
    """By requirement: what the kernel refuses, and what else fails or is not known for that reason."""
    for name, kind in (("veth", "veth"), ("vxlan", "vxlan"), ("ipip", "ipip"), ("wireguard", "wireguard")):
        rules = (f"sendto~{(kind.encode() + bytes(1)).hex()}=EOPNOTSUPP",)
        yield f"device-{name}", rules, {"ebpf-tc", "xdp"} if name == "veth" else set()
    for requirement in registry():
        group, _dash, name = requirement.partition("-")
        if group in ("match", "target") and name not in ("ACCEPT", "DROP"):
            kernel = "icmp6" if name == "icmpv6" else name
            level = registry()[requirement].level.value
            needed = level == "required" and not registry()[requirement].modes
            others = {"iptables"} if needed else set()
            # tc calls its classifier by the same name, in the same place.
            yield requirement, _without(kernel), {"ebpf-tc"} if name == "bpf" else others
    for name in ("nat", "mangle", "raw"):
        needle = (name.encode() + b"\0").hex()
        yield f"table-{name}", (f"getsockopt~{needle}=ENOENT", f"sendto~{needle}=ENOENT"), {"iptables"}
    filters = ("getsockopt~66696c74657200=ENOENT", "sendto~0b00010066696c74657200=ENOENT")
    yield "table-filter", filters, {"iptables", "target-ACCEPT", "target-DROP"}
    # Legacy's standard target has no name; nft's rules are of the table filter.
    standard = (f"getsockopt~{bytes(30).hex()}=ENOENT", "sendto~0b00010066696c74657200=ENOENT", *_NO_LEGACY)
    for name in ("ACCEPT", "DROP"):
        yield f"target-{name}", standard, {"iptables", "table-filter", "target-ACCEPT", "target-DROP"}
    yield "ipset", (f"sendto~{b'hash:net'.hex()}00=ENOENT",), set()
    yield "conntrack", (f"sendto~{_of_protocol(6)}=EOPNOTSUPP",), set()
    yield "conntrack-sctp", (f"sendto~{_of_protocol(132)}=EOPNOTSUPP",), set()
    yield "sctp", ("socket@2,*,132=EPROTONOSUPPORT",), set()
    yield "ipvs", (f"sendto~{b'IPVS'.hex()}=ENOENT",), set()
    yield "ebpf-tc", ("bpf~03000000=EPERM",), set()
    yield "xdp", ("bpf~06000000=EPERM",), set()
    yield (
        "iptables",
        (_SOCKET, *_NO_LEGACY),
        {name for name in KERNEL if name.startswith(("table-", "match-", "target-"))}
        | {"ipset", "conntrack", "conntrack-sctp"},
    )


@pytest.mark.parametrize(
    ("name", "rules", "others"), [pytest.param(*each, id=each[0]) for each in _lacking()]
)
def test_a_kernel_that_lacks_it_fails_that_alone(name: str, rules: tuple[str, ...], others: set[str]) -> None:
    """Where the kernel refuses, the requirement fails (warns, where it is recommended); the others stand."""
    refused = found(*refusing(*rules))

    wanted = Result.FAIL if registry()[name].level.value == "required" else Result.WARN
    assert wanted is refused[name].result
    assert differing(refused, dict(here())).keys() <= {name, *others}


def test_every_requirement_of_the_kernel_is_refused_once() -> None:
    """The list above has all of them."""
    assert set(KERNEL) == {name for name, _rules, _others in _lacking()}


def test_one_variant_is_enough() -> None:
    """Without ip_tables, and without nfnetlink's nft_compat, the other variant carries everything."""
    without_legacy = found(*refusing(*_NO_LEGACY))
    without_nft = found(*refusing("sendto~000b0100=EINVAL"))

    assert {} == differing(without_legacy, dict(here()))
    assert "legacy lacks" in without_legacy["iptables"].seen
    assert Result.PASS is without_nft["iptables"].result


def test_who_may_not_load_ip_tables_does_not_know_that_it_is_missing() -> None:
    """Nothing loads it on demand but a privilege that a container may lack; the variant is then unknown."""
    refused = refusing(_SOCKET, *_NO_LEGACY)
    confined = found("setpriv", "--bounding-set=-sys_module", "--", *refused)

    assert Result.FAIL is found(*refused)["table-filter"].result
    assert Result.UNKNOWN is confined["table-filter"].result
    assert "legacy: IPv4 ENOPROTOOPT" in confined["table-filter"].seen
    assert Result.UNKNOWN is confined["iptables"].result


def test_a_mixture_of_variants_is_none() -> None:
    """One extension in legacy alone and another in nft alone: each passes, and no variant has both."""
    rules = (f"getsockopt~{b'set'.hex()}00=ENOENT", f"sendto~{b'rpfilter'.hex()}00=ENOENT")
    mixed = found(*refusing(*rules))

    assert Result.PASS is mixed["match-set"].result
    assert Result.PASS is mixed["match-rpfilter"].result
    assert Result.FAIL is mixed["iptables"].result
    assert "legacy lacks match set; nft lacks match rpfilter" == mixed["iptables"].seen


def test_ipv6_that_nobody_needs_is_a_warning() -> None:
    """Extensions of IPv6 are required where a host of the inventory has an IPv6 address."""
    rules = ("getsockopt@*,41=ENOPROTOOPT", f"sendto~0a0000000d000100{b'rpfilter'.hex()}=ENOENT")
    here_ipv4 = found(*refusing(*rules), addresses=("192.0.2.1",))
    here_both = found(*refusing(*rules), addresses=("192.0.2.1", "2001:db8::1"))

    assert Result.WARN is here_ipv4["match-rpfilter"].result
    assert Result.PASS is here_ipv4["iptables"].result
    assert Result.FAIL is here_both["match-rpfilter"].result
    assert Result.FAIL is here_both["iptables"].result


def test_a_kernel_without_ipv6_needs_none_of_it() -> None:
    """Where no IPv6 socket can be opened, IPv4 is all there is to ask for."""
    without = found(*refusing("socket@10=EAFNOSUPPORT"))

    assert Result.NOT_APPLICABLE is without["match-icmpv6"].result
    assert "legacy: IPv4; nft: IPv4" == without["match-set"].seen
    assert Result.PASS is without["iptables"].result


def test_the_answers_need_no_program_of_the_host() -> None:
    """With nothing in the PATH they are the same."""
    assert {} == differing(found("/usr/bin/env", "-i", "PATH=/nonexistent"), dict(here()))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_finds_the_same(version: str) -> None:
    """All questions have the same answers on the oldest and on the youngest Python of a host."""
    interpreter = interpreters().get(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} in the PATH or with pyenv")

    assert dict(here()) == found(python=interpreter)


def test_modes_choose_what_is_required() -> None:
    """What no chosen mode needs does not apply, and what was seen is told all the same."""
    chosen = found(*refusing(*_without("ipvs")), modes=("vxlan",))

    assert Result.NOT_APPLICABLE is chosen["match-ipvs"].result
    assert "ENOENT" in chosen["match-ipvs"].seen
    assert Result.PASS is chosen["device-vxlan"].result
    assert Result.FAIL is found(*refusing(*_without("ipvs")), modes=("ipvs",))["match-ipvs"].result


def test_nothing_is_left_on_the_host() -> None:
    """No device, no table, no set, no entry of connection tracking: the host's own namespace is as it was."""
    looks = (
        ["ip", "-o", "link"],
        ["nft", "list", "tables"],
        ["ipset", "list", "-n"],
        ["cat", "/proc/net/ip_tables_names"],
        ["cat", "/proc/self/mountinfo"],
    )

    def seen() -> list[str]:
        return [subprocess.run(look, capture_output=True, text=True, check=False).stdout for look in looks]

    before = seen()
    checked(host("here"))

    assert before == seen()


def test_a_host_takes_less_than_a_second_of_its_cpu() -> None:
    """The agent with all its children, from its start to its end."""
    before = os.times()
    started = before.elapsed
    checked(host("here"))
    after = os.times()

    assert 1.0 > after.children_user + after.children_system - before.children_user - before.children_system
    assert 5.0 > after.elapsed - started


def test_results_are_the_same_twice() -> None:
    """Nothing that is asked changes what is asked next."""
    assert results(found()) == results(dict(here()))
