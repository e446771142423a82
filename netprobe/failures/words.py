"""What the texts of rules may name: each word is looked up in a story when a text asks for it."""

from __future__ import annotations

import re
from typing import Final

from netprobe.failures.story import Story

# OpenSSH's sshconnect.c, sshconnect2.c and ssh.c, since 7.0; "Authenticated" has a port, or "(via proxy)".
_HOP: Final = r"debug1: Setting implicit ProxyCommand from ProxyJump: .* (?:'?\[?%h\]?:%p'?|-W \S+) (\S+)"
_LOGIN: Final = r"debug1: Authenticating to (\S+):(\d+) as '(.*)'"
_PASSED: Final = r"Authenticated to (\S+)"
_OFFERED: Final = r"debug1: Offering public key: (.+) (\S+) (SHA256:\S+)"
_ACCEPTED: Final = r"debug1: Server accepts key: (.+) (\S+) (SHA256:\S+)"
_UNUSABLE: Final = r"(?:Load key|sign_and_send_pubkey: signing failed for \S+) \"(.+)\"(?: from agent)?: (.+)"
_ABSENT: Final = r"(?:Warning: |no such identity: )(?:Identity file )?(.+?)(?: not accessible)?: No such file"
_SERVER_KEY: Final = r"debug1: Server host key: (\S+ \S+)"
_OFFENDING: Final = r"Offending (?:\S+ )?key (?:for IP )?in (.+)"
_FORCED: Final = r"debug1: Remote: (.*\bcommand\b.*)"


class Words(dict[str, str]):
    """The groups of a match, and by name everything that has a method here."""

    def __init__(self, story: Story, match: re.Match[str] | None = None) -> None:
        groups = match.groupdict() if match else {}
        super().__init__({name: value or "" for name, value in groups.items()})
        self._story = story
        # With ProxyJump, the nearest first: each hop logs in before the next one can.
        jumps = [name for (name,) in self._found(_HOP)][::-1]
        self._has_jumps = bool(jumps)
        self._is_jump = len(self._found(_PASSED)) < len(jumps)
        passed = min(len(self._found(_PASSED)), len(jumps))
        logins = self._found(_LOGIN)
        self._address, self._port, self._login = logins[passed] if passed < len(logins) else ("", "", "")
        if self._is_jump and not self._address:
            self._address = jumps[passed]

    def __missing__(self, word: str) -> str:
        return str(getattr(self, f"_{word}")())

    def _found(self, pattern: str) -> list[tuple[str, ...]]:
        lines = (*self._story.stderr, *self._story.log)
        return [match.groups() for line in lines if (match := re.match(pattern, line))]

    def _reason(self) -> str:
        return self._story.reason

    def _host(self) -> str:
        return self._story.host.connection.host or self._story.host.name

    def _where(self) -> str:
        """Whom it is about: the host, or the jump host that we did not pass."""
        if self._is_jump:
            return f"the jump host {self._address}{f' port {self._port}' if self._port else ''}"
        port = self._port or self._story.host.connection.port
        return f"{self._host()}{f' port {port}' if port else ''}"

    def _hop(self) -> str:
        """What stands behind a name that ssh gives, where that may be a jump host's."""
        return ", the jump host," if self._is_jump else ""

    def _behind(self) -> str:
        """What else may be wrong, where a jump host leads to it."""
        return ", or its jump host does not reach it" if self._has_jumps and not self._is_jump else ""

    def _setting(self) -> str:
        return "ProxyJump" if self._is_jump else "connection.host"

    def _user(self) -> str:
        """Who logs in, as ssh says; it may stand in the user's own configuration."""
        return self._login or self._story.host.connection.user or "the user of your ssh configuration"

    def _become(self) -> str:
        return "sudo" if self._story.host.sudo else next(iter(self._story.host.become), "")

    def _heard(self) -> str:
        said = self._story.last_words
        return f": {' | '.join(said)}" if said else ""

    def _instead(self) -> str:
        """What ran in the place of our command."""
        said = [line for line in self._story.last_words if not line.startswith("Connection to ")]
        return f'; what ran instead said "{" | ".join(said)}"' if said else ""

    def _stage(self) -> str:
        """How far the login came, where that is not said yet."""
        if self._story.stdout or not self._found("OpenSSH_"):
            return ""
        return f" (it was at the login at {self['where']})"

    def _keys(self) -> str:
        """Which keys were offered, and which could not be."""
        offered = [f"{path} ({kind} {hash_})" for path, kind, hash_ in self._found(_OFFERED)]
        keys = f"offered {', '.join(dict.fromkeys(offered))}" if offered else "no key was offered"
        unusable = dict.fromkeys(self._found(_UNUSABLE))
        for path, why in unusable:
            keys += f"; {path} cannot be used ({why})"
        for path, _kind, _hash in self._found(_ACCEPTED):
            # Nobody is asked for a passphrase, and ssh does not say that it would have been.
            if path not in {key for key, _why in unusable}:
                keys += f"; the server would take {path}, which has a passphrase: load it into ssh-agent"
        for (path,) in dict.fromkeys(self._found(_ABSENT)):
            if path == self._story.host.connection.identity:
                keys += f"; there is no {path}"
        return keys

    def _server_key(self) -> str:
        told = self._found(_SERVER_KEY)
        return f" ({told[-1][0]})" if told else ""

    def _accept(self) -> str:
        """What else helps against an unknown host key."""
        return " (log in there by hand once)" if self._is_jump else ", or let --accept-new-host-keys add it"

    def _offending(self) -> str:
        told = self._found(_OFFENDING)
        return told[-1][0] if told else "known_hosts"

    def _forced(self) -> str:
        """Why our command did not run."""
        told = self._found(_FORCED)
        if told:
            return f"authorized_keys has a command= for this key ({told[-1][0]})"
        return (
            "a ForceCommand of sshd, a login shell that runs no commands, or a profile (~/.bashrc) that "
            "ends, replaces it, or prints without end"
        )

    def _outcomes(self) -> str:
        """What came of trying each interpreter that is there."""
        tried = (word.partition("=") for word in self["tried"].split())
        there = [f"{name} {outcome}" for name, _, how in tried if (outcome := _outcome(how))]
        return f" ({', '.join(there)})" if there else ""


def _outcome(how: str) -> str:
    """What `STATUS:VERSION` means, "" where there is no interpreter."""
    status, _, version = how.partition(":")
    if version:
        return f"is {version}"
    if status == "127" or not status.isdecimal():
        return ""
    if status == "126":
        return "may not be executed (its mode, a noexec mount, or SELinux)"
    return f"was killed by signal {int(status) - 128}" if int(status) > 128 else f"ends with status {status}"
