"""What the agent is written in: the syntax of Python 3.6, the standard library, and little of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import netprobe.agent
import netprobe.agent.conversation
import netprobe.agent.templates
from netprobe import bundle, template, wire

DIRECTORY: Final = Path(netprobe.agent.__file__).parent
MODULES: Final = sorted(DIRECTORY.glob("*.py"))
OLDEST: Final = (3, 6)
VERMIN: Final = "import sys, vermin; sys.exit(vermin.main())"


def _imports(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere in a tree, by its full name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports do not work in the streamed program"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_parses_as_python_3_6(path: Path) -> None:
    """No syntax that is younger than the oldest interpreter promised."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_the_standard_library_and_the_agent_only(path: Path) -> None:
    """Nothing has to be installed on a host."""
    imports = _imports(ast.parse(path.read_text(encoding="utf-8")))
    allowed = sys.stdlib_module_names | {"netprobe"}

    assert set() == {name for name in imports if name.partition(".")[0] not in allowed}
    assert set() == {
        name for name in imports if name.startswith("netprobe") and not name.startswith("netprobe.agent")
    }


def test_vermin_finds_nothing_younger_than_python_3_6() -> None:
    """No function, argument or module of the standard library either."""
    target = f"--target={'.'.join(map(str, OLDEST))}-"
    argv = [sys.executable, "-c", VERMIN, "--no-tips", "--violations", target, str(DIRECTORY)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert 0 == ran.returncode, ran.stdout


def test_every_module_is_in_the_bundle() -> None:
    """A module that is not sent is not there."""
    assert {path.stem for path in MODULES} - {"__init__"} == set().union(*bundle._PROGRAMS.values())


def test_both_ends_speak_of_the_same() -> None:
    """What is written down at both ends, because the agent imports nothing of netprobe's, is the same."""
    assert wire.PROTOCOL == netprobe.agent.conversation.PROTOCOL
    assert template.ATTEMPT_BITS == netprobe.agent.templates.ATTEMPT_BITS
