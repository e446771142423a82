"""What a description may say, and what is said to somebody who got it wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import yaml

from netprobe import lab
from netprobe.model import Family, Role

TWO: Final = "name: two hosts\nhosts: [a, b]\n"
MISTAKES: Final = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text(encoding="utf-8"))


def test_the_least_description_has_the_defaults() -> None:
    """Both families, the role node, no networks, no faults."""
    description = lab.describe(TWO)

    assert {"a": (Role.NODE,), "b": (Role.NODE,)} == description.roles
    assert (Family.IPV4, Family.IPV6) == description.families
    assert ((), ()) == (description.networks, description.faults)


def test_on_is_a_key_and_no_is_a_name() -> None:
    """YAML 1.1 takes both for booleans; a description does not."""
    description = lab.describe("name: n\nhosts: [no, yes]\nfaults:\n- {on: no, nft: drop}\n")

    assert ["no", "yes"] == list(description.roles)
    assert ("no",) == description.faults[0].targets


def test_a_fault_may_be_on_several_hosts() -> None:
    """`on` takes a name or a list of names."""
    assert ("a", "router") == lab.describe(TWO + "faults: [{on: [a, router], nft: drop}]").faults[0].targets


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["text"])
def test_a_mistake_is_named_with_its_key(mistake: dict[str, str]) -> None:
    """One line: the file, the key, and what was expected."""
    text = mistake["text"].replace("+", TWO, 1) if mistake["text"].startswith("+") else mistake["text"]

    with pytest.raises(lab.DescriptionError) as error:
        lab.describe(text, "demo.yaml")

    assert f"demo.yaml: {mistake['message']}" == str(error.value)


@pytest.mark.parametrize("pattern", ["a -> b typha", "a -> b bgp:180", "a -> a bgp", "a -> b wireguard/ipv6"])
def test_a_pattern_that_no_flow_can_fit_is_a_mistake(pattern: str) -> None:
    """A slip of the pen in an expectation must not pass for an expectation that holds."""
    with pytest.raises(lab.DescriptionError, match="no flow fits"):
        lab.describe(TWO + f"expect: {{{pattern}: open}}")


def test_a_file_that_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    """The error is that of all descriptions, and names the file."""
    path = tmp_path / "lab.yaml"

    with pytest.raises(lab.DescriptionError, match=r"lab\.yaml: cannot read it: No such file or directory"):
        lab.Lab.from_file(path)


def test_a_lab_of_a_wrong_description_is_never_begun() -> None:
    """What was not written in YAML is checked as well."""
    fault = lab.Fault(on="a", nft="ip daddr $nobody drop")

    with pytest.raises(lab.DescriptionError, match="nobody stands for nothing"):
        lab.Lab(lab.Description(name="n", hosts=("a",), faults=(fault,)))
