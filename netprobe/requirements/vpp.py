"""What only the VPP dataplane uses, and `calicoctl node checksystem` looks for on every node."""

from __future__ import annotations

from typing import Final

from netprobe.questions import Files, System
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Level,
    Requirement,
    failed,
    passed,
)

_SYSTEM: Final = System()
_DRIVER: Final = "/sys/bus/pci/drivers/vfio-pci"
_FILES: Final = Files(patterns=(_DRIVER, "/lib/modules/*/kernel/drivers/vfio/pci/vfio-pci.ko*"), most=0)


def _judge(context: Context) -> Judgement:
    system, found = context.need(_SYSTEM), context.need(_FILES)
    if any(file.path == _DRIVER for file in found.files):
        return passed(f"the driver is there: {_DRIVER}")
    running = f"/lib/modules/{system.release}/"
    for file in found.files:
        if file.path.startswith(running):
            return passed(f"{file.path} is loaded when a device is bound to it")
    return failed(f"no driver {_DRIVER}, and no module in {running}")


GROUP: Final = Group(
    name="Kernel dependencies",
    rank=113,
    requirements=(
        Requirement(
            id="vfio-pci",
            title="Drivers in user space (vfio-pci)",
            source="calicoctl node checksystem looks for vfio-pci, which is for the VPP dataplane",
            method=f"{_DRIVER}, or the module: to try it would take a network card from the host",
            fix="Install the kernel's module vfio-pci.",
            level=Level.RECOMMENDED,
            modes=("vpp",),
            asks=(_SYSTEM, _FILES),
            judge=_judge,
        ),
    ),
)
