"""What the user has: keys, agents, certificates, and what `~/.ssh/config` says for work at a terminal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from netprobe.model import Host
from tests.ssh.site import ROOT, Site, misfits
from tests.transports.sshd import PORT, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

FEW: Final = 2501


def _denied(keys: str, *, user: str = "root", at: str = r"10\.77\.1\.11", port: int = PORT) -> str:
    return rf"permission denied for {user} at {at} port {port}: {keys}; the server takes publickey: .*"


def _done(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)


def _generate(path: Path, *options: str, phrase: str = "") -> str:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-C", path.name, "-f", str(path), *options]
    _done(argv)
    return str(path)


@contextmanager
def _agent(directory: Path, *keys: str) -> Iterator[str]:
    """An ssh-agent that has some keys; its socket."""
    address = str(directory / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline()
            environment = {**os.environ, "SSH_AUTH_SOCK": address}
            subprocess.run(["ssh-add", "-q", *keys], check=True, env=environment)
            yield address
        finally:
            agent.terminate()


async def test_a_refusal_says_which_keys_were_offered(site: Site, tmp_path: Path) -> None:
    """And of one that the server would take why it could not be used."""
    for name in ("locked", "shared"):
        (tmp_path / name).write_bytes((site.directory / "key").read_bytes())
        (tmp_path / name).chmod(0o600)
        (tmp_path / f"{name}.pub").write_bytes((site.directory / "key.pub").read_bytes())
    locked, shared = tmp_path / "locked", tmp_path / "shared"
    _done(["ssh-keygen", "-q", "-p", "-P", "", "-N", "a phrase", "-f", str(locked)])
    shared.chmod(0o644)
    offered = r"offered \S+/{} \(ED25519 SHA256:\S+\)"
    cases = {
        "other": (site.user("root", key="other_key"), _denied(offered.format("other_key"))),
        "absent": (
            site.user("root", key="no_such_key"),
            _denied(r"no key was offered; there is no \S+/no_such_key"),
        ),
        "shared": (
            site.user("root", key=str(shared)),
            _denied(rf"{offered.format('shared')}; {shared} cannot be used \(bad permissions\)"),
        ),
        "locked": (
            site.user("root", key=str(locked)),
            _denied(
                rf"{offered.format('locked')}; the server would take {locked}, which has a passphrase: .*"
            ),
        ),
        "user": (
            site.user("nobody-at-all", sudo=False),
            _denied(offered.format("key"), user="nobody-at-all"),
        ),
    }

    assert {} == await misfits(cases)


async def test_an_agent_with_many_keys_is_told(site: Site, tmp_path: Path) -> None:
    """All that were offered, and that the server did not want to hear of more."""
    many = [_generate(tmp_path / f"k{number}") for number in range(5)]
    key = r"\S+ \(ED25519 SHA256:\S+\)"
    with _agent(site.directory, *many) as address, site.another("n1", FEW, settings="MaxAuthTries 3"):

        def host(port: int) -> Host:
            connection = site.connection("n1", port=port, key=many[0])
            options = ("-oIdentitiesOnly=no", f"-oIdentityAgent={address}", *connection.options)
            return site.by(msgspec.structs.replace(connection, options=options))

        few = (
            rf"10\.77\.1\.11 port {FEW} heard of too many keys before the right one for root "
            rf"\(offered {key}, {key}, {key}\): name it with connection\.identity, and add .*"
        )

        assert {} == await misfits(
            {
                "few": (host(FEW), few),
                "all": (host(PORT), _denied(rf"offered {', '.join([key] * 5)}")),
            }
        )


async def test_a_certificate_logs_in(site: Site, tmp_path: Path) -> None:
    """And one that has expired is told as what was offered."""
    authority = _generate(site.directory / "authority")
    settings = f"TrustedUserCAKeys {authority}.pub\nAuthorizedKeysFile none"
    for name, validity in (("good", "-1h:+1h"), ("old", "20200101:20200102")):
        key = _generate(tmp_path / name)
        argv = ["ssh-keygen", "-q", "-s", authority, "-I", name, "-n", "root", "-V", validity, f"{key}.pub"]
        _done(argv)
    with site.another("n1", 2502, settings=settings):
        cases = {
            "good": (site.user("root", port=2502, key=str(tmp_path / "good")), ROOT),
            "old": (
                site.user("root", port=2502, key=str(tmp_path / "old")),
                _denied(rf"offered .*, {tmp_path}/old \(ED25519-CERT SHA256:\S+\)", port=2502),
            ),
        }

        assert {} == await misfits(cases)


async def test_an_account_that_is_over_is_told(site: Site) -> None:
    """With PAM, which says why; sshd alone says nothing of an account."""
    over = r"10\.77\.1\.11 port {port} lets {user} in no more \({what}\): .*"
    with site.another("n1", 2503, settings="UsePAM yes"):
        cases = {
            "expired": (
                site.user("expired", port=2503),
                over.format(user="expired", port=2503, what="Your account has expired; .*"),
            ),
            "aged": (
                site.user("aged", port=2503),
                over.format(user="aged", port=2503, what="(?:You are|Password|WARNING: Your password).*"),
            ),
            "expired without PAM": (
                site.user("expired"),
                _denied("offered .*", user="expired"),
            ),
        }

        assert {} == await misfits(cases)


async def test_the_users_own_configuration_counts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alias, user, port, key; what is meant for a terminal does no harm, and no master is begun."""
    config = f"""
LogLevel QUIET
RequestTTY force
RemoteCommand sleep 60
ForwardX11 yes
ForwardAgent yes
LocalForward 127.0.0.1:2599 127.0.0.1:22
ExitOnForwardFailure yes
PermitLocalCommand yes
LocalCommand echo connected
ControlMaster auto
ControlPath ~/.ssh/master-%C
ControlPersist 20
Host alias
    HostName {site.address("n1")}
    User bash
    Port {PORT}
    IdentityFile {site.directory / "key"}
Host wrong
    HostName {site.address("n1")}
    Port {PORT}
    User nobody-at-all
    IdentityFile {site.directory / "key"}
"""
    monkeypatch.setenv("PATH", site.at_home(config))

    assert {} == await misfits(
        {
            "one": (site.named("alias"), r"uid \d{5}"),
            "two": (site.named("alias"), r"uid \d{5}"),
            "by -F": (site.named("alias", "-F", site.config), r"uid \d{5}"),
            "wrong": (
                site.named("wrong"),
                _denied("offered .*", user="nobody-at-all", at="wrong"),
            ),
        }
    )
    assert ["config", "known_hosts"] == site.user_files


async def test_a_master_that_is_there_is_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays; where it takes no more sessions, ssh logs in anew; what it cannot run is told."""
    config = f"""
ControlPath ~/.ssh/master-%r
Host *
    HostName {site.address("n1")}
    Port {PORT}
    IdentityFile {site.directory / "key"}
"""
    monkeypatch.setenv("PATH", site.at_home(config))
    users = ("root", "nologin", "no-session")
    for user in users:
        _done(["ssh", "-M", "-N", "-f", "-oBatchMode=yes", f"-l{user}", "n1"])
    try:
        # Without a key that would be taken, only the master leads there.
        by_master = "-oIdentityFile=none", "-oIdentitiesOnly=yes", "-oIdentityAgent=none"

        assert {} == await misfits(
            {
                "root": (site.named("n1", *by_master, "-lroot"), ROOT),
                "nologin": (
                    site.named("n1", *by_master, "-lnologin"),
                    r"logged in at n1 as .*, but our command did not run: .*not available.*",
                ),
                "no-session": (
                    site.named("n1", "-lno-session"),
                    r"n1 port 2022 opens no session \(.*open failed\): see MaxSessions .*",
                ),
            }
        )
        assert [f"master-{user}" for user in sorted(users)] == [
            name for name in site.user_files if name.startswith("master")
        ]
    finally:
        for user in users:
            _done(["ssh", "-Oexit", f"-l{user}", "n1"])
