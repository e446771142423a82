"""On the way to root: sudo with and without a password, its rules, doas, su; and that no password is seen."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import trio

from netprobe.access import Access, Secret
from tests.ssh.site import PASSWORD, ROOT, WITHOUT_PROGRAMS, Site, misfits, outcome
from tests.transports.sshd import obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

KNOWING: Final = Access(sudo_password=Secret(PASSWORD))
MISTAKEN: Final = Access(sudo_password=Secret("wrong horse"))

WANTED: Final = (
    r"sudo wants a password for {user}: give it with --ask-sudo-password, or allow .* \(NOPASSWD\)"
)


async def test_sudo_that_does_not_let_us_pass_is_told(site: Site) -> None:
    """With who may not, and what to do."""
    cases = {
        **{user: WANTED.format(user=user) for user in ("asks", "asks-pty", "no-rule", "other-rule")},
        "requiretty": r"sudo wants a terminal \(requiretty\): add Defaults:requiretty !requiretty .*",
        "python-rule": ROOT,
    }

    assert {} == await misfits({name: (site.user(name), how) for name, how in cases.items()})


async def test_a_password_is_given_where_it_is_asked_for(site: Site) -> None:
    """Through a pseudo-terminal of sudo's too, behind a lecture, and nowhere else."""
    users = ("asks", "asks-pty", "asks-lecture", "bash", "root")

    assert {} == await misfits({user: (site.user(user), ROOT) for user in users}, KNOWING)


async def test_a_right_password_does_not_help_without_a_rule(site: Site) -> None:
    """Which sudo tells only to who has given it."""
    cases = {
        "no-rule": "no-rule may not use sudo: add a rule with visudo, or log in as another user",
        "other-rule": r"sudo does not allow it to other-rule: a rule must allow the interpreter, .*",
    }

    assert {} == await misfits({name: (site.user(name), how) for name, how in cases.items()}, KNOWING)


async def test_a_password_that_sudo_remembers_is_not_asked_for(site: Site) -> None:
    """And what follows is not taken for one."""
    host = site.user("asks-once")

    assert ROOT == await outcome(host, KNOWING)
    assert ROOT == await outcome(host, MISTAKEN)


async def test_a_wrong_password_is_told(site: Site) -> None:
    """It is tried once: a second failure could lock an account."""
    users = ("asks", "asks-pty", "no-rule")
    told = "sudo did not take the password for {}"

    assert {} == await misfits({user: (site.user(user), told.format(user)) for user in users}, MISTAKEN)


DOAS: Final = "permit nopass bash cmd /usr/bin/python3\n"
PREPARE: Final = """
cp -a /etc /run/etc
mount --bind /run/etc /etc
echo 'permit nopass doas' >/etc/doas.conf
chmod 400 /etc/doas.conf
sed -i '1i auth sufficient pam_wheel.so trust group=su' /etc/pam.d/su
"""


async def test_other_commands_make_root_as_well(site: Site) -> None:
    """As the documentation has them: doas, and su where PAM lets it pass."""
    become = {
        "doas": ("doas", "-n"),
        "su": ("su", "root", "-c", 'exec "$0" "$@"', "--"),
    }
    documented = (Path(__file__).parents[2] / "docs" / "inventory.md").read_text()
    cases = {
        user: (site.user(user, port=2201, sudo=False, become=argv), ROOT) for user, argv in become.items()
    }
    cases["fish"] = (
        site.user("fish", port=2201, sudo=False, become=become["doas"]),
        r"doas does not let us pass \(Operation not permitted\): it must do so without a question",
    )
    cases["bash"] = (
        site.user("bash", port=2201, sudo=False, become=become["su"]),
        "su asks for a password: it must let us pass without a question",
    )
    cases["dash"] = (
        site.user("dash", port=2201, sudo=False, become=("dzdo", "-n")),
        r"dzdo is not found on the host: correct python: \[\.\.\.\] or become: \[\.\.\.\], .*",
    )

    with site.another("n1", 2201, prepare=PREPARE):
        assert {} == await misfits(cases, within_s=4)
    assert "`[doas, -n]`" in documented
    assert """`[su, root, -c, 'exec "$0" "$@"', --]`""" in documented


NO_SUDO: Final = f"{WITHOUT_PROGRAMS} rm /run/bin/sudo; mount --bind /run/bin /usr/bin"
# It asks as it is told to, and repeats everywhere what it hears, whole, in pieces and many times.
ECHOES: Final = """#!/bin/sh
while [ "$1" != -p ]; do shift; done
printf %s "$2" >&2
IFS= read -r heard
printf 'out %s\\n' "$heard"
printf '%s\\n' "$heard" >&2
printf '%300s%s\\n' '' "$heard" >&2
printf '%290s%s\\n' x "$heard" >&2
printf '%290s%s\\n' x "$heard"
printf 'sudo: %s: command not found\\n' "$heard" >&2
exit 1
"""


async def test_a_host_without_sudo_is_told(site: Site) -> None:
    """As such, and not as a host without an interpreter."""
    told = "there is no sudo on the host: log in as root, or say how to become it with become: [...]"
    with site.another("n1", 2202, prepare=NO_SUDO):
        assert told == await outcome(site.user("dash", port=2202))


async def test_a_password_is_in_no_message(site: Site) -> None:
    """Though the host repeats it; nor in the command line or the environment of any process here."""
    (site.directory / "echoes").write_text(ECHOES)
    take = f"rm /run/bin/sudo; install -m 755 {site.directory}/echoes /run/bin/sudo"
    prepare = f"{WITHOUT_PROGRAMS} {take}; mount --bind /run/bin /usr/bin"
    seen: set[bytes] = set()
    with site.another("n1", 2203, prepare=prepare):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, seen)
            said = [
                await outcome(site.user("dash", port=2203), KNOWING),
                await outcome(site.user("asks"), KNOWING),
                await outcome(site.user("asks-pty"), KNOWING),
            ]
            nursery.cancel_scope.cancel()

    assert [ROOT, ROOT] == said[1:]
    assert "***" in said[0]
    assert not re.search("h.rse|taple|orrect", " ".join(said))
    assert any(b"sshd_config.n1.2203" in text for text in seen)
    assert [] == [text for text in seen if PASSWORD.encode() in text]


async def _watch(seen: set[bytes]) -> None:
    """Read what ps shows, again and again."""
    while True:
        for entry in Path("/proc").iterdir():  # noqa: ASYNC240 - these files are none
            for name in ("cmdline", "environ"):
                # One that has ended has neither.
                with suppress(OSError):
                    seen.add((entry / name).read_bytes())
        await trio.sleep(0.02)
