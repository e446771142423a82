"""The way to a host: names, routes, firewalls, servers that are none, host keys, jump hosts."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from netprobe.access import Access
from netprobe.model import Connection, Host
from tests.ssh.site import ROOT, Site, misfits, outcome
from tests.transports.sshd import PORT, obstacle

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(obstacle()), reason=obstacle())]

DROPPED, REJECTED, SILENT, WEB, MUTE = range(2101, 2106)
ELSEWHERE: Final = "198.51.100"
FINGERPRINT: Final = r"\(ssh-ed25519 SHA256:\S+\)"
AT: Final = r"10\.77\.1\.11 port 2022"
JUMP: Final = r"the jump host 10\.77\.2\.11 port 2022"

# Every connection is taken and told the same, and held until the end unless that is the end.
_LISTENER: Final = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
held = []
while True:
    held.append(server.accept()[0])
    held[-1].sendall(sys.argv[2].encode())
    if sys.argv[2].startswith("HTTP"):
        held.pop()
"""


@pytest.fixture(scope="module")
def ways(built: Site) -> None:
    """A firewall at the first host, servers that are none, and networks where no way leads."""
    built.lab.nft("n1", f"tcp dport {DROPPED} drop")
    built.lab.nft("n1", f"tcp dport {REJECTED} reject with icmp type admin-prohibited")
    for number, kind in enumerate(("unreachable", "prohibit", "throw")):
        built.lab.run("router", ["ip", "route", "add", kind, f"{ELSEWHERE}.{number}"])
    for port, says in ((SILENT, ""), (WEB, "HTTP/1.1 400 Bad Request\r\n\r\n"), (MUTE, "SSH-2.0-mute\r\n")):
        argv = [sys.executable, "-c", _LISTENER, str(port), says]
        listener = built.lab.popen("n1", argv, stdout=subprocess.PIPE)
        assert listener.stdout is not None
        assert listener.stdout.readline()


@pytest.mark.usefixtures("ways")
async def test_a_way_that_leads_nowhere_is_told(site: Site) -> None:
    """Which name, which port, what the kernel said, and what to look at."""
    short = "-oConnectTimeout=1"
    no_way = r"no way to {} port 2022 \({}\): is it up, routed, and not rejected by a firewall\?"

    def to(address: str) -> Connection:
        return Connection(type="ssh", host=address, port=PORT, options=("-F", "none"))

    assert {} == await misfits(
        {
            "name": (
                site.by(to("nowhere.invalid")),
                r"cannot resolve nowhere\.invalid \(.+\): correct connection\.host, or add it to DNS or .*",
            ),
            "unreachable": (
                site.by(to(f"{ELSEWHERE}.0")),
                no_way.format(rf"{ELSEWHERE}.0", "No route to host"),
            ),
            "prohibit": (
                site.by(to(f"{ELSEWHERE}.1")),
                no_way.format(rf"{ELSEWHERE}.1", "Permission denied"),
            ),
            "network": (
                site.by(to(f"{ELSEWHERE}.2")),
                no_way.format(rf"{ELSEWHERE}.2", "Network is unreachable"),
            ),
            "refused": (
                site.user("root", port=2999),
                r"10\.77\.1\.11 port 2999 refuses the connection: is sshd running, and is the port right\?",
            ),
            "rejected": (
                site.user("root", port=REJECTED),
                no_way.format(r"10\.77\.1\.11", "No route to host").replace("2022", str(REJECTED)),
            ),
            "dropped": (
                site.user("root", port=DROPPED, options=[short]),
                r"no answer from 10\.77\.1\.11 port 2101: is the host up, and does a firewall drop ssh\?",
            ),
            "silent": (
                site.user("root", port=SILENT, options=[short]),
                r"10\.77\.1\.11 port 2103 takes the connection and says nothing: .*",
            ),
            "web": (
                site.user("root", port=WEB),
                r"what answers at 10\.77\.1\.11 port 2104 is no ssh server: is the port right\?",
            ),
        }
    )


async def test_a_host_key_is_never_taken_without_a_word(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Unknown, changed, revoked: what to compare, and where the old one stands."""
    directory = tmp_path_factory.mktemp("known")
    other = " ".join((site.directory / "other_key.pub").read_text().split()[:2])
    own = " ".join((site.directory / "host_key.pub").read_text().split()[:2])
    for name, line in {
        "unknown": "",
        "changed": f"[10.77.1.11]:{PORT} {other}\n",
        "revoked": f"@revoked * {own}\n",
    }.items():
        (directory / name).write_text(line)
    unknown = rf"the host key of {AT} is not known {FINGERPRINT}: compare it .*"
    changed = (
        rf"the host key of {AT} has changed {FINGERPRINT}: .* take the old one out of {directory}/changed:1"
    )

    def knowing(name: str) -> Host:
        return site.user("root", known_hosts=str(directory / name))

    assert {} == await misfits(
        {
            "unknown": (knowing("unknown"), unknown + "--accept-new-host-keys add it"),
            "changed": (knowing("changed"), changed),
            "revoked": (
                knowing("revoked"),
                rf"the host key of {AT} is revoked {FINGERPRINT}: .*",
            ),
        }
    )
    assert "" == (directory / "unknown").read_text()

    access = Access(accept_new_host_keys=True)

    assert {} == await misfits(
        {
            "unknown": (knowing("unknown"), ROOT),
            "changed": (knowing("changed"), changed),
        },
        access,
    )
    assert f"[10.77.1.11]:{PORT} {own}\n" == (directory / "unknown").read_text()


async def test_what_a_jump_host_does_is_told_as_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way through it, its name, its key, its users; and what lies behind it."""
    key = site.directory / "key"
    config = f"""
Host n1
    HostName {site.address("n1")}
Host n2
    HostName {site.address("n2")}
Host n3
    HostName {site.address("n3")}
Host unknown-jump
    HostName n2
    HostKeyAlias never-seen
Host refusing-jump
    HostName n2
    Port 2999
Host strange-jump
    HostName {site.address("n2")}
    User somebody
Host *
    User root
    Port {PORT}
    IdentityFile {key}
    IdentitiesOnly yes
    ControlMaster auto
    ControlPath ~/.ssh/master-%C
    ControlPersist 20
"""
    monkeypatch.setenv("PATH", site.at_home(config))
    user = {
        "through": (site.named("n1", "-Jn2"), ROOT),
        "two": (site.named("n1", "-Jn2,n3"), ROOT),
        "no name": (
            site.named("n1", "-Jnowhere.invalid"),
            r"cannot resolve nowhere\.invalid, the jump host, \(.+\): correct ProxyJump, .*",
        ),
        "refused": (
            site.named("n1", "-Jrefusing-jump"),
            r"n2 port 2999, the jump host, refuses the connection: .*",
        ),
        "unknown": (
            site.named("n1", "-Junknown-jump"),
            rf"the host key of the jump host n2 port 2022 is not known {FINGERPRINT}: .* \(log in there .*\)",
        ),
        "denied": (
            site.named("n1", "-Jn2,strange-jump"),
            rf"permission denied for somebody at {JUMP}: .*",
        ),
        "behind refused": (
            site.named("n1", "-Jn2", "-p2999"),
            r"no way to n1 from the jump host \(Connection refused\): .*",
        ),
        "behind denied": (
            site.named("n1", "-Jn2", "-lsomebody"),
            rf"permission denied for somebody at n1 port 2022: offered {key} \(ED25519 \S+\); .*",
        ),
        "behind unknown": (
            site.named("n1", "-Jn2", "-oHostKeyAlias=never-seen"),
            rf"the host key of n1 port 2022 is not known {FINGERPRINT}: .*--accept-new-host-keys add it",
        ),
    }

    assert {} == await misfits(user)
    assert ["config", "known_hosts"] == site.user_files


@pytest.mark.usefixtures("ways")
async def test_a_server_that_hangs_is_not_waited_for(site: Site) -> None:
    """Where it hangs is said."""
    host = site.user("root", port=MUTE)

    assert (
        "the agent did not start within 1 s (it was at the login at 10.77.1.11 port 2105)"
        == await outcome(host, within_s=1.0)
    )
