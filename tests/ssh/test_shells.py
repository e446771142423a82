"""What stands between the login and the agent: shells, profiles, forced commands, interpreters."""

from __future__ import annotations

import pytest

from tests.ssh.site import ROOT, Site, misfits
from tests.transports.sshd import obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

NOT_RUN = r"logged in at 10\.77\.1\.11 port 2022 as {user}, but our command did not run: {why}"
CONFINED = r"a ForceCommand of sshd, a login shell that runs no commands, or a profile .*"
PROFILE = r"a profile of the login shell \(~/\.bashrc\) of {user} at 10\.77\.1\.11 port 2022 {does}: .*"


async def test_any_login_shell_will_do(site: Site) -> None:
    """It has nothing but one command to run."""
    shells = ("root", "bash", "dash", "zsh", "fish", "tcsh")

    assert {} == await misfits({name: (site.user(name), ROOT) for name in shells})


async def test_a_login_shell_that_runs_nothing_is_told(site: Site) -> None:
    """With what it says instead."""
    said = {
        "rbash": ".*restricted.*",
        "nologin": ".*This account is currently not available.*",
        "false": "",
    }

    assert {} == await misfits(
        {
            name: (site.user(name), NOT_RUN.format(user=name, why=f"{CONFINED}{what}"))
            for name, what in said.items()
        }
    )


async def test_what_a_profile_or_a_banner_prints_does_no_harm(site: Site) -> None:
    """Before our command, on stdout and stderr."""
    assert {} == await misfits({name: (site.user(name), ROOT) for name in ("prints", "banner")})


async def test_a_profile_that_is_in_the_way_is_told(site: Site) -> None:
    """It reads, ends or replaces what our command needs, and nothing of ours runs as something else."""
    reads, execs = "reads what is meant for our command", "starts another shell in its place"
    cases = {
        "reads": PROFILE.format(user="reads", does=reads),
        "reads-all": PROFILE.format(user="reads-all", does=reads),
        "echoes": PROFILE.format(user="echoes", does=reads),
        "execs-zsh": PROFILE.format(user="execs-zsh", does=execs),
        "execs-tcsh": NOT_RUN.format(user="execs-tcsh", why=f"{CONFINED}; what ran instead said .*"),
        "exits": NOT_RUN.format(user="exits", why=f'{CONFINED}; what ran instead said "goodbye"'),
        "floods": NOT_RUN.format(user="floods", why=f'{CONFINED}; what ran instead said "y \\| y"'),
    }

    assert {} == await misfits({name: (site.user(name), how) for name, how in cases.items()}, within_s=4)


async def test_a_forced_command_is_told(site: Site) -> None:
    """By sshd_config or authorized_keys; one that runs what was asked for does no harm."""
    cases = {
        "sftp": NOT_RUN.format(user="sftp", why=CONFINED),
        "fixed": NOT_RUN.format(user="fixed", why=f'{CONFINED}; what ran instead said "no shell here"'),
        "mute": NOT_RUN.format(user="mute", why=CONFINED),
        "key-command": NOT_RUN.format(
            user="key-command",
            why=r"authorized_keys has a command= for this key \(.*\); what ran instead said \"forced\"",
        ),
        "original": ROOT,
        "key-restrict": ROOT,
        "no-tty": ROOT,
        "no-session": r"10\.77\.1\.11 port 2022 opens no session \(.*\): see MaxSessions .*",
    }

    assert {} == await misfits({name: (site.user(name), how) for name, how in cases.items()}, within_s=4)
