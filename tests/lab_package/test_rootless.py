"""A lab without root, by a user who really is none."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import netprobe
from netprobe.lab import LabError, rootless

NOBODY: Final = 65534
ROOT_DIRECTORY: Final = Path(netprobe.__file__).parents[1]
TIMEOUT_S: Final = 60.0

PROGRAM: Final = """
import os
from netprobe.lab import Lab, namespaces
from netprobe.lab.rootless import reexec_in_user_namespace
print("start", os.geteuid(), flush=True)
reexec_in_user_namespace()
with Lab.from_file(os.environ["DEMO"]) as lab:
    print(len(namespaces.listed()), "hook forward" in lab.run("router", ["nft", "list", "ruleset"]).stdout)
print(len(namespaces.listed()))
"""


def _as_nobody(argv: list[str]) -> subprocess.CompletedProcess[str]:
    identity = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    # setpriv's own exec still has root's capabilities; only that of the shell is the user's.
    identity += ["/bin/sh", "-c", 'exec "$@"', "sh"]
    return _run([*(identity if os.geteuid() == 0 else ()), *argv])


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT_DIRECTORY), *(path for path in sys.path if path.endswith("-packages"))]
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DEMO": str(ROOT_DIRECTORY / "netprobe" / "lab" / "demo.yaml"),
    }
    if (mark := "NETPROBE_TEST_SESSION") in os.environ:
        env[mark] = os.environ[mark]
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd="/",
        timeout=TIMEOUT_S,
    )


@cache
def _interpreter() -> str:
    """An interpreter that nobody may run with what netprobe needs; one in root's home directory is none."""
    for path in (sys.executable, "/usr/bin/python3"):
        if _as_nobody([path, "-c", "import netprobe.lab"]).returncode == 0:
            return path
    return ""


def test_a_user_builds_a_lab_in_a_user_namespace() -> None:
    """The command starts a second time, as root of its own, and leaves nothing there either."""
    if not _interpreter():
        pytest.skip("there is no interpreter here that another user may run")
    if (refused := _as_nobody(["unshare", "--user", "--map-root-user", "true"])).returncode != 0:
        pytest.skip(f"user namespaces are not allowed here: {refused.stderr.strip()}")

    done = _as_nobody([_interpreter(), "-c", PROGRAM])

    assert (0, "") == (done.returncode, done.stderr)
    assert [f"start {os.geteuid() or NOBODY}", "start 0", "6 True", "0"] == done.stdout.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop capabilities of")
def test_a_root_that_may_not_builds_a_lab_in_a_user_namespace() -> None:
    """As in a container: uid 0, and no CAP_SYS_ADMIN."""
    dropped = ["setpriv", "--bounding-set", "-sys_admin", "--"]
    if (refused := _run([*dropped, "unshare", "--user", "--map-root-user", "true"])).returncode != 0:
        pytest.skip(f"user namespaces are not allowed here: {refused.stderr.strip()}")

    done = _run([*dropped, sys.executable, "-c", PROGRAM])

    assert (0, "") == (done.returncode, done.stderr)
    assert ["start 0", "start 0", "6 True", "0"] == done.stdout.splitlines()


def test_there_is_no_third_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the root of a user namespace may not, the command would start for ever."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(rootless, "_effective_capabilities", lambda: 1 << 12)
    monkeypatch.setattr(os, "execvpe", lambda *_: pytest.fail("it started again"))
    monkeypatch.setenv("NETPROBE_IN_USER_NAMESPACE", "1")

    with pytest.raises(LabError, match="even in a user namespace"):
        rootless.reexec_in_user_namespace()


def test_root_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to do."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(rootless, "_effective_capabilities", lambda: (1 << 41) - 1)
    monkeypatch.setattr(os, "execvpe", lambda *_: pytest.fail("it started again"))

    rootless.reexec_in_user_namespace()


def test_the_command_starts_again_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the same interpreter, its options and all arguments, and a PATH that has nft."""
    stub = tmp_path / "unshare"
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "execvpe", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "netprobe", "demo", "--probe", "bgp"])
    monkeypatch.setenv("PATH", str(tmp_path))

    rootless.reexec_in_user_namespace()

    [(program, argv, env)] = started
    assert "unshare" == program
    assert ["unshare", "--user", "--map-root-user", "--mount", "--net", "--"] == argv[:6]
    assert [sys.executable, "-X", "dev", "netprobe", "demo", "--probe", "bgp"] == argv[-7:]
    assert f"{tmp_path}:/usr/local/sbin:/usr/sbin:/sbin" == env["PATH"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1",
            "failed: Operation not permitted",
        ),
        ("exit 3", "exit status 3"),
    ],
)
def test_it_is_said_why_a_user_namespace_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str
) -> None:
    """And what to do: be root, or allow them."""
    stub = tmp_path / "unshare"
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(LabError, match=f"^no root, and no user namespace: .*{message}; run this as root "):
        rootless.reexec_in_user_namespace()


def test_without_unshare_it_is_said_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """util-linux has it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(rootless, "environment", lambda: {"PATH": str(tmp_path)})

    with pytest.raises(LabError, match=r"no program 'unshare' \(util-linux\)"):
        rootless.reexec_in_user_namespace()
