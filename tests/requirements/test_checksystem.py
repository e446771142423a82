"""`calicoctl node checksystem`: what it looks for is here, and what it gets wrong is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from netprobe.findings import Result
from netprobe.requirements import registry
from tests.requirements.asking import found, written

_MODULES: Final = {
    "ip_set": "ipset",
    "ip6_tables": "table-filter",
    "ip_tables": "table-filter",
    "ipt_ipvs": "match-ipvs",
    "vfio-pci": "vfio-pci",
    "xt_bpf": "match-bpf",
    "ipt_REJECT": "target-REJECT",
    "ipt_rpfilter": "match-rpfilter",
    "xt_rpfilter": "match-rpfilter",
    "ipt_set": "match-set",
    "nf_conntrack_netlink": "conntrack",
    "xt_addrtype": "match-addrtype",
    "xt_conntrack": "match-conntrack",
    "xt_icmp": "match-icmp",
    "xt_icmp6": "match-icmpv6",
    "xt_mark": "match-mark",
    "xt_multiport": "match-multiport",
    "xt_set": "match-set",
    "xt_u32": "match-u32",
}
"""Its modules (calicoctl/commands/node/checksystem.go, requiredModules), and who answers for each."""


@pytest.mark.parametrize("module", _MODULES)
def test_everything_that_checksystem_checks_is_here(module: str) -> None:
    """By the requirement that proves it, where checksystem looks for the module's name."""
    assert _MODULES[module] in registry()


@pytest.mark.lab
def test_no_list_of_modules_and_no_kernel_configuration_is_no_failure(tmp_path: Path) -> None:
    """A kernel with all of it built in passes, where checksystem finds no file that says so and fails it."""
    findings = found("/usr/bin/env", "-i", "PATH=/nonexistent", root=tmp_path)

    for name in set(_MODULES.values()) - {"vfio-pci", "match-ipvs"}:
        assert Result.PASS is findings[name].result


def test_vfio_pci_is_there_as_a_driver_or_as_a_module(tmp_path: Path) -> None:
    """Only for the VPP dataplane, and only recommended."""
    release = os.uname().release
    driver = tmp_path / "driver"
    (driver / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
    path = "kernel/drivers/vfio/pci/vfio-pci.ko.xz"
    module = written(tmp_path / "module", {f"lib/modules/{release}/{path}": ""})
    other = written(tmp_path / "other", {f"lib/modules/5.10.0-older/{path}": ""})

    assert Result.PASS is found(root=driver)["vfio-pci"].result
    assert Result.PASS is found(root=module)["vfio-pci"].result
    assert Result.WARN is found(root=other)["vfio-pci"].result
    assert Result.NOT_APPLICABLE is found(root=other, modes=("ipip",))["vfio-pci"].result
