"""
The rules for what keeps us from a host's shell, and for connections that drop.

The messages are those of OpenSSH's ssh.c, sshconnect.c, sshconnect2.c, clientloop.c and packet.c, 7.4 to 9.9,
of the C libraries' resolvers, and of the kernel.
"""

from __future__ import annotations

import re
from typing import Final

from netprobe import launch
from netprobe.failures.story import Rule

_CONNECT: Final = r"^ssh: connect to host (?P<name>\S+) port (?P<port>\d+): "
_OPEN: Final = r"^channel \d+: open failed: "
_EXCHANGE: Final = r"(?:kex|ssh)_exchange_identification: "

LOGIN: Final = (
    Rule(
        r"^ssh: Could not resolve hostname (?P<name>\S+): (?P<error>.+)",
        "cannot resolve {name}{hop} ({error}): correct {setting}, or add it to DNS or ~/.ssh/config",
    ),
    Rule(
        _CONNECT + "Connection refused",
        "{name} port {port}{hop} refuses the connection: is sshd running, and is the port right?",
    ),
    Rule(
        _CONNECT + "(?:Connection|Operation) timed out",
        "no answer from {name} port {port}{hop}: is the host up, and does a firewall drop ssh?",
    ),
    Rule(
        _CONNECT + "(?P<error>.+)",
        "no way to {name} port {port}{hop} ({error}): is it up, routed, and not rejected by a firewall?",
    ),
    Rule(
        rf"{_OPEN}connect failed: (?P<error>.+)\n(?:.*\n)*?stdio forwarding failed",
        "no way to {where} from the jump host ({error}): is it up, and known there by this name and port?",
    ),
    Rule(
        rf"{_OPEN}(?P<error>.+)\n(?:.*\n)*?stdio forwarding failed",
        "the jump host forwards no connection ({error}): see AllowTcpForwarding and PermitOpen of its sshd",
    ),
    Rule(
        r"^Connection timed out during banner exchange|^Connection to \S+ port \d+ timed out",
        "{where} takes the connection and says nothing: it is overloaded, or is no ssh server{behind}",
    ),
    Rule(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED(?:.*\n)*?Host key verification failed",
        "the host key of {where} has changed{server_key}: it was installed anew, or another machine answers; "
        "compare it with the host's own, and take the old one out of {offending}",
    ),
    Rule(
        r"REVOKED HOST KEY DETECTED|is marked as revoked|revoked by file",
        "the host key of {where} is revoked{server_key}: nobody may trust it; give the host a new one",
    ),
    Rule(
        r"^Host key verification failed",
        "the host key of {where} is not known{server_key}: compare it with the host's own and add it to "
        "known_hosts{accept}",
    ),
    Rule(
        r"(?P<what>(?:Your password|Your account|User account) has expired.*|Password change required.*"
        r"|You are required to change your password.*)",
        "{where} lets {user} in no more ({what}): renew the account or the password, or log in by hand once",
    ),
    Rule(
        r"Too many authentication failures",
        "{where} heard of too many keys before the right one for {user} ({keys}): name it with "
        "connection.identity, and add -oIdentitiesOnly=yes to connection.options",
    ),
    Rule(
        r"^(?:\S+: )?Permission denied \((?P<methods>[\w,-]+)\)",
        "permission denied for {user} at {where}: {keys}; the server takes {methods}: authorize a key there, "
        "load it into ssh-agent, or correct connection.user and connection.identity",
    ),
    Rule(
        r"^Unable to negotiate with .*: (?P<what>no matching .+ found)\. Their offer: (?P<offer>\S+)",
        "{where} has no algorithm that this ssh takes ({what}; it offers {offer}): allow it in ~/.ssh/config",
    ),
    Rule(
        # Since OpenSSH 9.8: PerSourcePenalties, MaxStartups.
        r"(?P<what>Not allowed at this time|Exceeded MaxStartups)",
        "{where} takes no more logins just now ({what}): try --forks with a smaller number",
        may_pass=True,
    ),
    Rule(
        rf"^(?:debug1: )?{_EXCHANGE}banner line|^Bad remote protocol version|^Protocol major versions differ",
        "what answers at {where} is no ssh server: is the port right?",
    ),
    Rule(
        rf"^{_EXCHANGE}.*(?:Connection closed|[Cc]onnection reset)",
        "{where} closed the connection before it said anything: too many logins at once (MaxStartups of "
        "sshd), or it takes none from here; try --forks with a smaller number",
        may_pass=True,
    ),
    Rule(
        r"^Cannot execute command-line and remote command",
        "your ssh configuration has a RemoteCommand for {host}: add -oRemoteCommand=none to "
        "connection.options",
    ),
    Rule(
        rf"{_OPEN}(?P<error>.+)",
        "{where} opens no session ({error}): see MaxSessions of its sshd, and the key in authorized_keys",
    ),
    Rule(
        rf"^{launch.UNREAD}",
        "a profile of the login shell (~/.bashrc) of {user} at {where} reads what is meant for our command: "
        "let it return at once where the shell is not interactive",
    ),
    Rule(
        rf"{launch.KEYWORD}:.*not found|(?:not found|nknown command).*{launch.KEYWORD}:",
        "a profile of the login shell (~/.bashrc) of {user} at {where} starts another shell in its place: "
        "let it return at once where the shell is not interactive",
    ),
    Rule(
        # sshd's process for the session has ended: no command does that, whatever runs in the place of ours.
        r"^(?P<what>client_loop: .+|Connection to \S+ closed by remote host.*|Timeout, server \S+ not .+)",
        "the connection to {where} dropped while we logged in: {what}",
    ),
    Rule(
        r"^debug1: (?:Entering interactive session|mux_client_request_session: master session id)",
        "logged in at {where} as {user}, but our command did not run: {forced}{instead}",
    ),
    Rule(
        r"^(?P<what>Connection (?:closed|reset) by .+|Received disconnect from .+|.*: Broken pipe)",
        "the connection to {where} dropped while we logged in: {what}",
    ),
)

DROPPED: Final = (
    Rule(
        r"^Timeout, server \S+ not responding",
        "the connection to {where} dropped: nothing came back any more",
    ),
    Rule(
        r"^(?P<what>client_loop: .+|Connection (?:reset|closed) by .+"
        r"|Connection to \S+ closed by remote host.*|Read from remote host .+"
        r"|packet_write_wait: .+|ssh_packet_.+|Bad packet length.+|Corrupted MAC.+)",
        "the connection to {where} dropped: {what}",
    ),
)


def added_key(line: str) -> str:
    """What a line of ssh's says of a host key that it has added to the known ones, "" where it says none."""
    match = re.match(r"Warning: Permanently added '(.+)' \((\S+)\) to the list of known hosts", line)
    return f"ssh has added the {match[2]} host key of {match[1]} to known_hosts" if match else ""
