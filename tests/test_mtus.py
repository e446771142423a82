"""What path MTUs mean: the MTU for Calico, in each mode, and the exit status."""

from __future__ import annotations

import json

import msgspec
import pytest

from netprobe.model import Family, Inventory, PathMtu, Run
from netprobe.mtus import CalicoMtu, calico_mtus, exit_status
from netprobe.reports import Options, ReportError, registry
from netprobe.reports.json import load
from tests.golden.made_up import hosts, run
from tests.golden.paths import measured, narrow_paths, narrower, paths, unmeasured, wide

IPV4, IPV6 = Family.IPV4, Family.IPV6


def calico(found: Run) -> dict[tuple[str, Family], CalicoMtu]:
    """What to give Calico, by mode and family."""
    return {(each.mode, each.family): each for each in calico_mtus(found)}


def of(*replaced: PathMtu, subnets: int = 1) -> Run:
    """Three hosts, all of whose paths are as wide as can be but these."""
    inventory = Inventory(hosts=hosts("abc", subnets, dual=True))
    ours = {(path.src, path.dst, path.family): path for path in [*paths(inventory), *replaced]}
    return measured(run(inventory), list(ours.values()))


@pytest.mark.parametrize(
    ("mode", "family", "mtu"),
    [
        ("none", IPV4, 1500),
        ("none", IPV6, 1500),
        ("ipip", IPV4, 1480),
        ("vxlan", IPV4, 1450),
        ("vxlan", IPV6, 1430),
        ("wireguard", IPV4, 1440),
        ("wireguard", IPV6, 1420),
    ],
)
def test_on_ethernet_the_mtus_are_those_of_calicos_page(mode: str, family: Family, mtu: int) -> None:
    """The column for a network of 1500 bytes; there is no IP-in-IP over IPv6."""
    found = calico(of())

    assert mtu == found[mode, family].mtu
    assert ("ipip", IPV6) not in found


def test_the_narrowest_pair_sets_it() -> None:
    """For all pairs: Calico has one MTU."""
    found = calico(of(narrower(wide("b", "c", IPV4), 1400, "10.0.0.1")))["vxlan", IPV4]

    assert (1350, 1400, 50, "b", "c") == (found.mtu, found.path_mtu, found.overhead, found.src, found.dst)
    assert (6, 1) == (found.pairs, found.alike)


def test_in_a_subnet_a_cross_subnet_mode_takes_nothing() -> None:
    """Pods' packets go there as they are: a path of 1460 bytes has more room than a tunnel in one of 1500."""
    apart = calico(of(narrower(wide("a", "b", IPV4), 1460, "10.0.0.1"), subnets=3))
    together = calico(of(narrower(wide("a", "b", IPV4), 1460, "10.0.0.1")))

    assert 1410 == apart["vxlan-crosssubnet", IPV4].mtu
    assert 1460 == together["vxlan-crosssubnet", IPV4].mtu == together["ipip-crosssubnet", IPV4].mtu
    assert 1410 == together["vxlan", IPV4].mtu


def test_what_was_not_measured_sets_nothing() -> None:
    """The others do, and the report says so."""
    found = of(unmeasured(wide("a", "b", IPV4), "a: gone"))

    assert 5 == calico(found)["none", IPV4].pairs
    assert "1 pair could not be measured" in registry()["text"].render(found, Options())


def test_the_exit_status_is_that_of_the_worst_path() -> None:
    """A black hole is worse than what is not known; a router that tells is no fault."""
    told = narrower(wide("a", "b", IPV4), 1400, "10.0.0.1")
    silent = narrower(wide("a", "b", IPV4), 1400)
    unknown = unmeasured(wide("b", "a", IPV4), "b: gone")

    assert 0 == exit_status([])
    assert 0 == exit_status([told, wide("b", "a", IPV4)])
    assert 1 == exit_status([silent, unknown])
    assert 3 == exit_status([told, unknown])


def test_the_document_has_the_paths_and_what_to_give_calico() -> None:
    """And comes back as it was; a document without them does not mention them."""
    found = narrow_paths()
    text = registry()["json"].render(found, Options())
    document = json.loads(text)

    assert found == load(text.encode())
    assert len(found.mtus) == len(document["mtus"])
    assert {"mode": "none", "family": "ipv4", "mtu": 1380}.items() <= document["calico_mtus"][0].items()
    bare = json.loads(registry()["json"].render(msgspec.structs.replace(found, mtus=()), Options()))
    assert not {"mtus", "calico_mtus"} & set(bare)


def test_a_path_between_strangers_is_refused() -> None:
    """Every reader of a run relies on hosts that are there."""
    found = msgspec.structs.replace(narrow_paths(), mtus=(wide("node-a", "nobody", IPV4),))
    text = registry()["json"].render(found, Options())

    with pytest.raises(ReportError, match="a path MTU is between hosts that the inventory does not have"):
        load(text.encode())
