"""
Why a host was lost, in one line with its fix: what ssh, kubectl, sudo, shells and others say, understood.

The rules are patterns over what stood on stderr and stdout, first to last; whatever no rule knows is told as
it was said. The sources of the messages are named where they come from one program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from netprobe import launch
from netprobe.model import Host

LINE_CHARACTERS: Final = 300
_LAST_LINES: Final = 5
_NOISE_LINES: Final = 2
_CHATTER: Final = re.compile(
    rb"(?:debug[123]: |Authenticated to |Transferred: sent |Bytes per second: sent |OpenSSH_\d)[^\n]*\r\n"
)


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a conversation with a host ended.

    `reason` is what the session itself saw; `stdout` what was printed before the hello, `stderr` everything
    there but ssh's `log`; all in lines.
    """

    host: Host
    reason: str
    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    greeted: bool = False


def one_line(text: str) -> str:
    """A text as part of a line, shortened: without what a terminal would take for a line's end."""
    return " ".join(text.split())[:LINE_CHARACTERS]


def without_log(data: bytes) -> tuple[bytes, list[str]]:
    """
    What came on stderr without the lines that ssh logs there, and these lines.

    Each comes in one piece, and may stand between two pieces of a line of the host's own.
    """
    log = [one_line(line.decode("utf-8", "replace")) for line in _CHATTER.findall(data)]
    return _CHATTER.sub(b"", data), log


def explain(story: Story) -> tuple[str, bool]:
    """The reason in one line, and whether the host refused a connection that it may take later."""
    said = "\n".join((story.reason, *story.stdout, *story.stderr, *story.log))
    for stage in _stages(story):
        for pattern, tell in stage:
            if match := re.search(pattern, said, re.MULTILINE):
                return tell(match, story), tell is _refused
    return f"{story.reason}{_last_words(story)}", False


def last_words(story: Story) -> list[str]:
    """What was said last, without what is always said."""
    noise = [one_line(line) for line in story.stdout if not line.startswith(launch.KEYWORD)]
    heard = [rest for line in story.stderr if (rest := re.sub(_ALWAYS_SAID, "", line))]
    return [*([] if story.greeted else noise[-_NOISE_LINES:]), *heard[-_LAST_LINES:]]


# Of kubectl: its log of what it tries again, and the status that it ends with as well, which may stand behind
# a line that the host has not ended.
_ALWAYS_SAID: Final = (
    r"^Connection to \S+ closed\.$|^[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ .*|^Defaulted container .*|^Warning: .*"
    r"|command terminated with exit code \d+$"
)


def _last_words(story: Story) -> str:
    said = last_words(story)
    return f": {' | '.join(said)}" if said else ""


_Tell = Callable[[re.Match[str], Story], str]
_Rule = tuple[str, _Tell]


def _stages(story: Story) -> list[tuple[_Rule, ...]]:
    """The rules for where it ended: on the way there, on the way to root, at the interpreter, or at work."""
    login, dropped = _WAYS.get(story.host.connection.type, ((), ()))
    if story.greeted:
        return [dropped]
    if launch.AT_INTERPRETER in story.stdout:
        return []
    return [() if launch.AT_SHELL in story.stdout else login, _START]


def _says(text: str) -> _Tell:
    """What a match means: `{name}` are its groups, `{where}`, `{user}` and `{become}` the host's."""

    def tell(match: re.Match[str], story: Story) -> str:
        groups = {name: value or "" for name, value in match.groupdict().items()}
        words = {"where": _where(story), "user": _user(story), "become": _become(story.host)}
        return text.format(**{**words, **groups})

    return tell


def _where(story: Story) -> str:
    connection = story.host.connection
    port = f" port {connection.port}" if connection.port else ""
    return f"{connection.host or story.host.name}{port}"


def _become(host: Host) -> str:
    return "sudo" if host.sudo else next(iter(host.become), "")


def _found(pattern: str, story: Story) -> list[tuple[str, ...]]:
    return [match.groups() for line in (*story.stderr, *story.log) if (match := re.match(pattern, line))]


def _user(story: Story) -> str:
    """Who logs in, as ssh says; it may stand in the user's own configuration."""
    told = _found(r"debug1: Authenticating to \S+ as '(.*)'", story)
    return told[-1][0] if told else story.host.connection.user or "the user of your ssh configuration"


def _denied(match: re.Match[str], story: Story) -> str:
    # OpenSSH sshconnect2.c: "Offering public key: PATH TYPE HASH [agent|explicit]".
    offered = [f"{path} ({kind} {hash_})" for path, kind, hash_ in _found(_OFFERED, story)]
    missing = [path for (path,) in _found(r"Warning: Identity file (.+) not accessible", story)]
    unreadable = [path for (path,) in _found(r'Load key "(.+)": ', story)]
    keys = f"offered {', '.join(offered)}" if offered else "no key was offered"
    if missing:
        keys += f"; there is no {', '.join(missing)}"
    if unreadable:
        keys += f"; cannot use {', '.join(unreadable)}, which has a passphrase or may not be read"
    at = match["at"] or _where(story)
    return (
        f"permission denied for {match['user'] or _user(story)} at {at}: {keys}; the server takes "
        f"{match['methods']}: authorize a key there, load it into ssh-agent, or correct connection.user "
        "and connection.identity"
    )


_OFFERED: Final = r"debug1: Offering public key: (.+) (\S+) (SHA256:\S+)"


def _host_key(story: Story) -> str:
    told = _found(r"debug1: Server host key: (\S+ \S+)", story)
    return f" ({told[-1][0]})" if told else ""


def _unknown_key(_match: re.Match[str], story: Story) -> str:
    return (
        f"the host key of {_where(story)} is not known{_host_key(story)}: compare it with the host's own and "
        "add it to known_hosts, or let --accept-new-host-keys add it"
    )


def _changed_key(_match: re.Match[str], story: Story) -> str:
    known = next((entry for (entry,) in _found(r"Offending \S+ key in (.+)", story)), "known_hosts")
    return (
        f"the host key of {_where(story)} has changed{_host_key(story)}: it was installed anew, or another "
        f"machine answers; compare it with the host's own, and take the old one out of {known}"
    )


def _refused(_match: re.Match[str], story: Story) -> str:
    return (
        f"{_where(story)} closed the connection before it said anything: too many logins at once "
        "(MaxStartups of sshd, or of a jump host), or it takes none from here; try --forks with a "
        f"smaller number{_last_words(story)}"
    )


def _not_run(_match: re.Match[str], story: Story) -> str:
    heard = [line for line in last_words(story) if not line.startswith("Connection to ")]
    said = f'; what ran instead said "{" | ".join(heard)}"' if heard else ""
    forced = _found(r"debug1: Remote: (.*\bcommand\b.*)", story)
    why = f"authorized_keys has a command= for this key ({forced[-1][0]})" if forced else _CONFINED
    return f"logged in at {_where(story)} as {_user(story)}, but our command did not run: {why}{said}"


_CONFINED: Final = "a ForceCommand of sshd, or a login shell that runs no commands"


def _no_interpreter(match: re.Match[str], _story: Story) -> str:
    tried = [word.split("=", 1) for word in match["tried"].split()]
    outcomes = {name: _outcome(how) for name, how in tried}
    there = [f"{name} {how}" for name, how in outcomes.items() if how]
    absent = "no Python 3.6 or later" + (f" ({', '.join(there)})" if there else "")
    return f"{absent}: install one, or say where it is with python: [PATH]; it may be one in a container"


def _outcome(how: str) -> str:
    """What came of trying an interpreter, "" where there is none."""
    status, _, version = how.partition(":")
    if version:
        return f"is {version}"
    if status == "127":
        return ""
    if status == "126":
        return "may not be executed (its mode, a noexec mount, or SELinux)"
    return f"was killed by signal {int(status) - 128}" if int(status) > 128 else f"ends with status {status}"


_NO_WAY: Final = (
    "No route to host|Network is unreachable|Host is down|Permission denied|Cannot assign requested address"
    "|Invalid argument"
)
_EXPIRED: Final = (
    r"(Your password|Your account|User account) has expired[^\n]*|Password change required[^\n]*"
)
_BROKEN: Final = (
    r"client_loop: .+|Connection (reset|closed) by .+|Connection to \S+ closed by remote host.*"
    r"|Read from remote host .+|packet_write_wait: .+|ssh_packet_.+|Bad packet length.+|Corrupted MAC.+"
)
_NOT_EXECUTED: Final = "Permission denied|[Oo]peration not permitted|cannot execute.*"
_EXEC: Final = r"(exec: |sh: )(\d+: |line \d+: )?(exec: )?"

# The errors of OpenSSH's ssh.c, sshconnect.c, sshconnect2.c and packet.c, of the resolver and the kernel.
_LOGIN: Final[tuple[_Rule, ...]] = (
    (
        r"^ssh: Could not resolve hostname (?P<name>\S+): (?P<error>.+)",
        _says("cannot resolve {name} ({error}): correct connection.host, or add it to DNS or ~/.ssh/config"),
    ),
    (
        r"^ssh: connect to host (?P<name>\S+) port (?P<port>\d+): Connection refused",
        _says("{name} port {port} refuses the connection: is sshd running, and is connection.port right?"),
    ),
    (
        rf"^ssh: connect to host (?P<name>\S+) port (?P<port>\d+): (?P<error>{_NO_WAY})",
        _says("no way to {name} port {port} ({error}): is it up, routed, and not rejected by a firewall?"),
    ),
    (
        r"^ssh: connect to host (?P<name>\S+) port (?P<port>\d+): (Connection|Operation) timed out",
        _says("no answer from {name} port {port}: is the host up, and does a firewall drop ssh?"),
    ),
    (
        r"^Connection timed out during banner exchange",
        _says("{where} takes the connection and says nothing: overloaded, or no ssh server"),
    ),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", _changed_key),
    (r"REVOKED HOST KEY DETECTED", _says("the host key of {where} is revoked: it must not be trusted")),
    (r"^Host key verification failed", _unknown_key),
    (
        r"Too many authentication failures",
        _says("too many keys were offered to {where} for {user}: name one, and add -oIdentitiesOnly=yes"),
    ),
    (r"^((?P<user>\S+)@(?P<at>\S+): )?Permission denied \((?P<methods>[\w,-]+)\)", _denied),
    (
        r"^Unable to negotiate with .*: (?P<what>no matching .+ found)\. Their offer: (?P<offer>\S+)",
        _says("{where} has no algorithm that this ssh takes ({what}; it offers {offer}): see ~/.ssh/config"),
    ),
    (rf"(?P<what>{_EXPIRED})", _says("{where} wants {user} to log in once by hand: {what}")),
    (r"Not allowed at this time|[Ee]xceeded MaxStartups", _refused),
    (r"^(kex|ssh)_exchange_identification: .*(Connection closed|Connection reset|reset by peer)", _refused),
    (r"^debug1: Entering interactive session", _not_run),
)

_REFUSES: Final = r"dial tcp (?P<to>\S+): connect: connection refused"
_NO_API: Final = (
    r"i/o timeout|TLS handshake timeout|deadline exceeded|Client\.Timeout exceeded|request canceled"
)

_FORBIDDEN: Final = (
    r'is forbidden: User "(?P<user>[^"]+)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" '
    r'in API group "(?P<group>[^"]*)" (at the cluster scope|in the namespace "(?P<namespace>[^"]+)")'
)

_log_in_again: Final = _says(
    "the API server does not know who we are: log in again, or correct connection.context and "
    "connection.kubeconfig"
)


def _forbidden(match: re.Match[str], _story: Story) -> str:
    namespace = f"the namespace {match['namespace']}" if match["namespace"] else "the cluster"
    return (
        f"{match['user']} may not {match['verb']} {match['resource']} in {namespace}: a role there must have "
        f'{{apiGroups: ["{match["group"]}"], resources: ["{match["resource"]}"], verbs: ["{match["verb"]}"]}}'
    )


# The errors of kubectl's pkg/cmd and client-go, of the API server, the Job controller, kubelet and runc; the
# lines that begin with a reason and a colon are made of what an object of the API says of itself.
_KUBECTL: Final[tuple[_Rule, ...]] = (
    (
        r"error dialing backend: (?P<what>.+)",
        _says("the API server does not reach the node's kubelet ({what}): TCP port 10250 must be open to it"),
    ),
    (
        r"^cannot run kubectl: (?P<error>.+)",
        _says("there is no kubectl here that runs ({error}): install it, or have it on the PATH"),
    ),
    (
        r'context (was not found for specified context: |"(?=.*" does not exist))(?P<name>[^"\n]+)',
        _says("there is no context {name}: name one of `kubectl config get-contexts` as connection.context"),
    ),
    (
        r"^error: stat (?P<file>.+): no such file or directory",
        _says("there is no {file}: correct connection.kubeconfig, or what KUBECONFIG says"),
    ),
    (
        r"no configuration has been provided|localhost:8080\b",
        _says("kubectl has no configuration: say where it is with connection.kubeconfig or KUBECONFIG"),
    ),
    (
        r"getting credentials: (?P<what>.+)",
        _says("kubectl gets no credentials ({what}): log in again, or install what its configuration names"),
    ),
    (
        r"Please enter Username|asked for the client to provide credentials|\(Unauthorized\)|: Unauthorized$",
        _log_in_again,
    ),
    (
        rf"The connection to the server (?P<server>\S+) was refused|{_REFUSES}",
        _says("the API server at {server}{to} refuses the connection: is connection.context right?"),
    ),
    (
        r"(?P<error>x509: .+)",
        _says(
            "kubectl does not trust the API server ({error}): correct connection.context, or its certificates"
        ),
    ),
    (
        rf"^(.*dial tcp (?P<server>\S+): )?.*({_NO_API})",
        _says(
            "no answer from the API server {server}: is it up, and the way there open (a firewall, a VPN)?"
        ),
    ),
    (
        r'^(Unable to connect to the server: |error: unable to recognize "STDIN": Get "\S+": )(?P<error>.+)',
        _says("no way to the API server ({error}): is connection.context right?"),
    ),
    (
        r"^(FailedCreate: |Error from server).*violates PodSecurity \"(?P<level>[^\"]+)\"",
        _says(
            "the namespace admits no privileged pods (PodSecurity {level}): name one that does with "
            "connection.namespace, or label it pod-security.kubernetes.io/enforce=privileged"
        ),
    ),
    (_FORBIDDEN, _forbidden),
    (
        r"^FailedCreate: (Error creating: )?(?P<what>.+)",
        _says("the cluster lets no pod for this be made: {what}"),
    ),
    (
        r"namespaces \"(?P<name>[^\"]+)\" not found",
        _says("there is no namespace {name}: correct connection.namespace"),
    ),
    (
        r"nodes \"(?P<name>[^\"]+)\" not found",
        _says("there is no node {name}: name it as `kubectl get nodes` does, with connection.node"),
    ),
    (r"^NotReady: (?P<what>.*)", _says("the node is not ready: {what}")),
    (
        r"pods \"(?P<name>[^\"]+)\" not found",
        _says("there is no pod {name}: correct connection.pod, connection.namespace or connection.context"),
    ),
    (
        r"container (not found \(\")?(?P<name>[^\s\"]+)( is not valid for pod| not found in pod|\"\))",
        _says("the pod has no container {name} that runs: correct connection.container"),
    ),
    (
        r"cannot exec into a container in a completed pod; current phase is (?P<phase>\S+)",
        _says("the pod does not run any longer: its phase is {phase}"),
    ),
    (
        r"^(ErrImagePull|InvalidImageName|ErrImageNeverPull|ImagePullBackOff): (?P<what>.+)",
        _says("the image cannot be had on the node: {what}; name another one with connection.image"),
    ),
    (
        r"exec: \"(?P<what>[^\"]+)\": (stat \S+: no such file or directory|executable file not found)",
        _says("there is no {what} in the container, which is needed to start the agent: take another image"),
    ),
    (
        r"^(E|e)rror: unknown (shorthand )?flag: (?P<what>.+)",
        _says("kubectl has no option {what}: see connection.options"),
    ),
)

# The errors of kubectl's pkg/cmd/exec and of client-go's streams.
_KUBECTL_DROPPED: Final[tuple[_Rule, ...]] = (
    (
        r"^[Ee]rror: (?P<what>.*(websocket|unexpected EOF|error stream|connection).*)",
        _says("the connection to {where} dropped: {what}"),
    ),
)

_sudo_asks: Final = _says(
    "sudo wants a password for {user}: give it with --ask-sudo-password, or allow sudo without one (NOPASSWD)"
)

# The errors of sudo's check.c, logging.c and plugins, of sudo-rs, doas and su, of shells and exec.
_START: Final[tuple[_Rule, ...]] = (
    (
        r"sudo: (sorry, )?you must have a tty to run sudo",
        _says("sudo wants a terminal (requiretty): add Defaults:{user} !requiretty with visudo"),
    ),
    (
        r"(\d+ incorrect password attempts?|[Ss]orry, try again|Authentication failed, try again)",
        _says("sudo did not take the password for {user}"),
    ),
    (r"sudo: .*(a password is required|interactive authentication is required)", _sudo_asks),
    (r"sudo: (a terminal is required|no tty present)", _sudo_asks),
    (
        r"(?P<who>\S+) is not in the sudoers file",
        _says("{who} may not use sudo: add a rule with visudo, or log in as another user"),
    ),
    (
        r"Sorry, user (?P<who>\S+) (is not allowed to execute|may not run sudo)",
        _says("sudo does not allow it to {who}: a rule must allow the interpreter that python: [PATH] names"),
    ),
    (r"I'm sorry (?P<who>\S+)\. I'm afraid I can't do that", _says("{who} may not use sudo: add a rule")),
    (
        r"sudo: (?P<what>effective uid is not 0.*|.*no new privileges.*)",
        _says("sudo makes no root of {user} there ({what}): a nosuid mount, or an unprivileged container"),
    ),
    (
        rf"{_EXEC}(?P<what>sudo|doas|su): .*not found",
        _says("there is no {what} on the host: log in as root, or say how to become it with become: [...]"),
    ),
    (
        r"^(doas|su): (?P<what>.+)",
        _says("{become} does not let us pass ({what}): it must do so without a question"),
    ),
    (rf"^{launch.NO_INTERPRETER}(?P<tried>.*)", _no_interpreter),
    (
        r"netprobe: Python (?P<version>\S+) is too old",
        _says("Python {version} is too old: 3.6 or later is needed; say where one is with python: [PATH]"),
    ),
    (
        r"Unknown option: -I",
        _says("the interpreter is a Python 2: 3.6 or later is needed; say where one is with python: [PATH]"),
    ),
    (
        r"cannot apply additional memory protection",
        _says("SELinux does not let the interpreter run: look at `ausearch -m avc` on the host"),
    ),
    (
        rf"{_EXEC}(?P<what>\S+?): ({_NOT_EXECUTED})",
        _says("{what} may not be executed there: its mode, a noexec mount, SELinux, or seccomp"),
    ),
)

# The errors of OpenSSH's clientloop.c and packet.c.
_DROPPED: Final[tuple[_Rule, ...]] = (
    (
        r"^Timeout, server \S+ not responding",
        _says("the connection to {where} dropped: nothing came back to the keep-alives of ssh"),
    ),
    (rf"^(?P<what>{_BROKEN})", _says("the connection to {where} dropped: {what}")),
)

_WAYS: Final[Mapping[str, tuple[tuple[_Rule, ...], tuple[_Rule, ...]]]] = MappingProxyType(
    {"ssh": (_LOGIN, _DROPPED), "kubectl": (_KUBECTL, _KUBECTL_DROPPED)}
)
"""What goes wrong on the way to a host, and what when it is there, by the type of connection."""
