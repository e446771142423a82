"""
The rules for what keeps a host's shell from becoming an agent: root's rights, and an interpreter.

The messages are those of sudo's check.c, logging.c, sudo.c and exec_common.c, 1.8 to 1.9, of sudo-rs, doas
and su, of dash, bash, busybox and the kernel.
"""

from __future__ import annotations

from typing import Final

from netprobe import bundle, launch
from netprobe.failures.story import Rule

_EXEC: Final = r"(?:\S*sh: )(?:\d+: |line \d+: )?(?:exec: )?(?:line \d+: )?"
_NOT_EXECUTED: Final = "Permission denied|[Oo]peration not permitted|[Cc]annot execute.*|Exec format error"

START: Final = (
    Rule(
        r"^sudo: (?:sorry, )?you must have a tty to run sudo",
        "sudo wants a terminal (requiretty): add Defaults:{user} !requiretty with visudo",
    ),
    Rule(
        r"\d+ incorrect (?:password|authentication) attempts?|^[Ss]orry, try again"
        r"|^sudo: Authentication failed, try again|^sudo: [Mm]aximum \d+ incorrect authentication attempts",
        "sudo did not take the password for {user}",
    ),
    Rule(
        r"^sudo: (?:.*(?:a password is required|authentication is required)|a terminal is required"
        r"|no tty present|timed out reading password)",
        "sudo wants a password for {user}: give it with --ask-sudo-password, or allow sudo without one "
        "(NOPASSWD)",
    ),
    Rule(
        r"^(?:sudo: )?(?P<who>\S+) is not in the sudoers file|^Sorry, user (?P<whom>\S+) may not run sudo"
        r"|^sudo: I'm sorry (?P<rs>\S+)\. I'm afraid I can't do that",
        "{who}{whom}{rs} may not use sudo: add a rule with visudo, or log in as another user",
    ),
    Rule(
        r"^Sorry, user (?P<who>\S+) is not allowed to execute",
        "sudo does not allow it to {who}: a rule must allow the interpreter, with any arguments; name "
        "the one that it allows with python: [PATH]",
    ),
    Rule(
        r"^sudo: (?P<what>effective uid is not 0.*|.*no new privileges.*|.*must be owned by uid 0.*)",
        "sudo makes no root of {user} there ({what}): a nosuid mount, or an unprivileged container",
    ),
    Rule(
        rf"{_EXEC}(?P<what>(?:/\S*/)?(?:sudo|doas|su)): .*not found",
        "there is no {what} on the host: log in as root, or say how to become it with become: [...]",
    ),
    Rule(
        r"^sudo: (?P<what>\S+): command not found|^sudo: unable to execute (?P<path>\S+): No such file",
        "there is no {what}{path} where sudo looks for it (secure_path): name its path with python: [PATH]",
    ),
    Rule(
        rf"^{launch.NO_INTERPRETER}(?P<tried>.*)",
        "no Python 3.6 or later{outcomes}: install one, or say where it is with python: [PATH]; it may be "
        "one in a container",
    ),
    Rule(
        rf"^{bundle.TOO_OLD} (?P<version>\S+) is too old",
        "Python {version} is too old: 3.6 or later is needed; say where one is with python: [PATH]",
    ),
    Rule(
        r"^Unknown option: -I",
        "the interpreter is a Python 2: 3.6 or later is needed; say where one is with python: [PATH]",
    ),
    Rule(
        r"cannot apply additional memory protection",
        "SELinux does not let the interpreter run: look at `ausearch -m avc` on the host",
    ),
    Rule(
        rf"^(?:{_EXEC}|(?:sudo|nsenter|setpriv): (?:unable to execute |failed to execute )?)"
        rf"(?P<what>\S+?): (?:{_NOT_EXECUTED})",
        "{what} may not be executed there: its mode, a noexec mount, SELinux, or seccomp",
    ),
    Rule(
        rf"^{_EXEC}(?P<what>\S+?): .*(?:not found|No such file)",
        "{what} is not found on the host: correct python: [...] or become: [...], or leave python: out",
    ),
    Rule(
        r"^(?:.*\b)?[Pp]ass(?:word|phrase|code)\b[^:]*:(?:$| *(?:su|doas): )",
        "{become} asks for a password: it must let us pass without a question",
    ),
    Rule(
        r"^(?:doas|su): (?P<what>.+)",
        "{become} does not let us pass ({what}): it must do so without a question",
    ),
)
