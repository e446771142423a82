"""What programs say when a host is lost, understood: one line that names what is wrong, and the fix."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netprobe import bundle, launch
from netprobe.failures import Story, added_key, explain, explain_answer, without_log
from netprobe.model import Connection, Host

AT_SHELL: Final = (launch.AT_SHELL,)
AT_INTERPRETER: Final = (*AT_SHELL, launch.AT_INTERPRETER)


def _host(**fields: object) -> Host:
    connection = Connection(type="ssh", host="h.example", user="ops", port=22)
    return Host(name="h", addresses=("10.0.0.1",), connection=connection, **fields)  # type: ignore[arg-type]


def _told(said: str, stdout: tuple[str, ...] = (), *, greeted: bool = False, **fields: object) -> str:
    story = Story(
        host=_host(**fields),
        reason="it ended",
        stdout=stdout,
        stderr=tuple(said.splitlines()),
        greeted=greeted,
    )
    return explain(story)[0]


# OpenSSH 7.4, as of RHEL 7.
OLD: Final = (
    (
        "ssh: Could not resolve hostname h.example: Name or service not known",
        "cannot resolve h.example (Name or",
    ),
    (
        "ssh: connect to host h.example port 22: Connection refused",
        "h.example port 22 refuses the connection",
    ),
    (
        "ssh: connect to host h.example port 22: Connection timed out",
        "no answer from h.example port 22: ",
    ),
    (
        "ssh: connect to host h.example port 22: No route to host",
        "no way to h.example port 22 (No route to host)",
    ),
    (
        "Connection timed out during banner exchange",
        "h.example port 22 takes the connection and says nothing",
    ),
    (
        "ssh_exchange_identification: Connection closed by remote host",
        "h.example port 22 closed the connection",
    ),
    (
        "ssh_exchange_identification: read: Connection reset by peer",
        "h.example port 22 closed the connection",
    ),
    (
        "Permission denied (publickey,gssapi-keyex,gssapi-with-mic).",
        (
            "permission denied for ops at h.example port 22: no key was offered; the server takes "
            "publickey,gssapi-keyex,gssapi-with-mic: "
        ),
    ),
    (
        "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
        "h.example port 22 heard of",
    ),
    (
        (
            "No ECDSA host key is known for h.example and you have requested strict checking.\n"
            "Host key verification failed."
        ),
        "the host key of h.example port 22 is not known: ",
    ),
    (
        (
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
            "Offending ECDSA key in /home/ops/.ssh/known_hosts:7\n"
            "Host key verification failed."
        ),
        (
            "the host key of h.example port 22 has changed: it was installed anew, or another "
            "machine answers; compare it with the host's own, and take the old one out of "
            "/home/ops/.ssh/known_hosts:7"
        ),
    ),
    (
        (
            "Unable to negotiate with 10.0.0.1 port 22: no matching key exchange method found. Their "
            "offer: diffie-hellman-group1-sha1"
        ),
        "h.example port 22 has no algorithm that this ssh takes",
    ),
    (
        "WARNING: Your password has expired.\nPassword change required but no TTY available.",
        "h.example port 22 lets ops in no more (Your password has expired.)",
    ),
)
NEW: Final = (
    (
        "ops@h.example: Permission denied (publickey).",
        "permission denied for ops at h.example port 22: ",
    ),
    (
        "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 10.0.0.1 port 22",
        "h.example port 22 closed the connection before it said anything",
    ),
    (
        "kex_exchange_identification: Connection closed by remote host",
        "h.example port 22 closed the connection",
    ),
    (
        "Not allowed at this time",
        "h.example port 22 takes no more logins just now (Not allowed at this time)",
    ),
)


@pytest.mark.parametrize(("said", "expected"), [*OLD, *NEW])
def test_what_keeps_us_from_a_login_is_told(said: str, expected: str) -> None:
    """As OpenSSH says it, old and new."""
    assert _told(said).startswith(expected)


# sudo 1.8 and 1.9, sudo-rs, opendoas, util-linux' su.
ROOT: Final = (
    (
        "python3: libm.so.6: cannot apply additional memory protection after relocation: Permission denied",
        "SELinux does not let the interpreter run: ",
    ),
    (
        "sudo: sorry, you must have a tty to run sudo",
        "sudo wants a terminal (requiretty): add Defaults:ops !",
    ),
    (
        "sudo: you must have a tty to run sudo",
        "sudo wants a terminal (requiretty): ",
    ),
    (
        "sudo: a password is required",
        "sudo wants a password for ops: give it with --ask-sudo-password, or ",
    ),
    (
        "sudo: no tty present and no askpass program specified",
        "sudo wants a password for ops: ",
    ),
    (
        "sudo: interactive authentication is required",
        "sudo wants a password for ops: ",
    ),
    (
        "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt",
        "sudo did not take the",
    ),
    (
        "sudo: Authentication failed, try again.",
        "sudo did not take the password for ops",
    ),
    (
        "ops is not in the sudoers file.  This incident will be reported.",
        "ops may not use sudo: add a rule with visudo",
    ),
    (
        "Sorry, user ops may not run sudo on h.",
        "ops may not use sudo: ",
    ),
    (
        "sudo: I'm sorry ops. I'm afraid I can't do that",
        "ops may not use sudo: ",
    ),
    (
        "Sorry, user ops is not allowed to execute '/usr/bin/python3 -I' as root on h.",
        "sudo does not allow it to ops: ",
    ),
    (
        (
            "sudo: effective uid is not 0, is /usr/bin/sudo on a file system with the 'nosuid' "
            "option set or an NFS file system without root privileges?"
        ),
        "sudo makes no root of ops there (effective uid is not 0, ",
    ),
    (
        'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.',
        "sudo makes no root of ",
    ),
    (
        "sudo: python3.9: command not found",
        "there is no python3.9 where sudo looks for it (secure_path): ",
    ),
    (
        "sudo: unable to execute /opt/python3: Permission denied",
        "/opt/python3 may not be executed there: its mode",
    ),
)
OTHER: Final = (
    (
        "doas: Operation not permitted",
        "doas does not let us pass (Operation not permitted): it must do so",
    ),
    (
        "doas: Authorization required",
        "doas does not let us pass (Authorization required): ",
    ),
    (
        "doas (ops@h) password:",
        "doas asks for a password: it must let us pass without a question",
    ),
    (
        "Password:",
        "doas asks for a password: ",
    ),
    (
        "Password: su: Authentication failure",
        "doas asks for a password: ",
    ),
)


@pytest.mark.parametrize(("said", "expected"), ROOT)
def test_what_sudo_says_is_told(said: str, expected: str) -> None:
    """Of whichever version."""
    assert _told(said, AT_SHELL, sudo=True).startswith(expected)


@pytest.mark.parametrize(("said", "expected"), OTHER)
def test_what_others_say_is_told(said: str, expected: str) -> None:
    """By the name of the command that the inventory has."""
    assert _told(said, AT_SHELL, become=("doas", "-n")).startswith(expected)


SH: Final = (
    "sh: 1: exec: {}: not found",  # dash
    "/bin/sh: line 1: exec: {}: not found",  # bash
    "sh: exec: line 1: {}: not found",  # busybox
)


@pytest.mark.parametrize("form", SH)
@pytest.mark.parametrize("name", ["sudo", "/opt/python3"])
def test_what_shells_do_not_find_is_told(form: str, name: str) -> None:
    """A command that makes root, or the interpreter."""
    expected = (
        "there is no sudo on the host: " if name == "sudo" else "/opt/python3 is not found on the host: "
    )

    assert _told(form.format(name), AT_SHELL, sudo=True).startswith(expected)


@pytest.mark.parametrize(
    "said",
    [
        "sh: 1: exec: /opt/python3: Permission denied",
        "/bin/sh: line 1: /opt/python3: Permission denied",
        "/bin/sh: line 1: exec: /opt/python3: cannot execute: Permission denied",
        "sh: exec: line 1: /opt/python3: Permission denied",
    ],
)
def test_what_shells_may_not_execute_is_told(said: str) -> None:
    """With what may be the cause."""
    assert _told(said, AT_SHELL).startswith("/opt/python3 may not be executed there: ")


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_what_the_shells_of_this_machine_say_is_told(shell: str, tmp_path: Path) -> None:
    """Of a file that is not there, and of one that may not be executed."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    (tmp_path / "python3").touch(mode=0o644)
    expected = {"absent": "is not found on the host: ", "python3": "may not be executed there: "}
    for name, words in expected.items():
        path = str(tmp_path / name)
        argv = [program, *(["sh"] if shell == "busybox" else []), *launch.SHELL[1:]]
        line = launch.line(_host(python=(path,)))
        done = subprocess.run(argv, input=line, capture_output=True, check=False, timeout=10)

        assert _told(done.stderr.decode(), AT_SHELL).startswith(f"{path} {words}"), done.stderr


def test_an_old_interpreter_is_told() -> None:
    """In its own words, or in those of the agent's first lines."""
    wanted = "3.6 or later is needed; say where one is with python: [PATH]"

    assert f"the interpreter is a Python 2: {wanted}" == _told("Unknown option: -I", AT_SHELL)
    assert f"Python 3.4.10 is too old: {wanted}" == _told(f"{bundle.TOO_OLD} 3.4.10 is too old", AT_SHELL)


@pytest.mark.parametrize(
    "said",
    [
        "packet_write_wait: Connection to 10.0.0.1 port 22: Broken pipe",
        "client_loop: send disconnect: Broken pipe",
        "Connection reset by 10.0.0.1 port 22",
        "Connection to h.example closed by remote host.",
    ],
)
def test_a_connection_that_drops_is_told(said: str) -> None:
    """In whichever version's words, at work and before."""
    assert f"the connection to h.example port 22 dropped: {said}" == _told(said, greeted=True)
    assert f"the connection to h.example port 22 dropped: {said}" == _told(said, AT_INTERPRETER)


def test_what_no_rule_knows_is_told_as_it_was_said() -> None:
    """The last of it."""
    assert "it ended: one | two" == _told("one\ntwo", AT_INTERPRETER)


def test_only_a_refused_connection_is_tried_again() -> None:
    """Not one that is denied."""
    again = {
        said: explain(Story(host=_host(), reason="", stderr=(said,)))[1]
        for said in (
            "ssh_exchange_identification: Connection closed by remote host",
            "Permission denied (publickey).",
        )
    }

    assert [True, False] == list(again.values())


def test_only_what_the_kernel_forbids_is_said_to_be_forbidden() -> None:
    """An agent's errors have their names."""
    assert re.search("seccomp.*SELinux", explain_answer("arm", "EPERM: Operation not permitted"))
    assert "the agent cannot arm: ENOBUFS: No buffer space" == explain_answer(
        "arm", "ENOBUFS: No buffer space"
    )


def test_a_key_that_was_added_is_seen() -> None:
    """As OpenSSH says it."""
    said = "Warning: Permanently added '[10.0.0.1]:2022' (ED25519) to the list of known hosts."

    assert "ssh has added the ED25519 host key of [10.0.0.1]:2022 to known_hosts" == added_key(said)
    assert "" == added_key("Warning: something else")


LINES: Final = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            [*(said for said, _told in (*OLD, *NEW, *ROOT, *OTHER)), *AT_INTERPRETER, launch.UNREAD]
        ),
        st.builds(
            "{}{}".format,
            st.sampled_from(
                [
                    f"{launch.NO_INTERPRETER} python3=",
                    "debug1: Authenticating to h:22 as '",
                    "debug1: Setting implicit ProxyCommand from ProxyJump: ssh -v -W '[%h]:%p' ",
                    "Authenticated to ",
                    "debug1: Entering interactive session",
                    "channel 0: open failed: ",
                ]
            ),
            st.text(max_size=10),
        ),
    ),
    max_size=8,
).map(tuple)


@given(
    LINES,
    LINES,
    LINES,
    st.booleans(),
    st.sampled_from(["ssh", "local"]),
    st.sampled_from([{}, {"sudo": True}, {"become": ("doas",)}]),
)
def test_whatever_is_said_makes_one_line(
    stdout: tuple[str, ...],
    stderr: tuple[str, ...],
    log: tuple[str, ...],
    greeted: bool,
    kind: str,
    fields: dict[str, object],
) -> None:
    """And no error."""
    host = Host(name="h", addresses=("10.0.0.1",), connection=Connection(type=kind), **fields)  # type: ignore[arg-type]
    story = Story(host=host, reason="it ended", stdout=stdout, stderr=stderr, log=log, greeted=greeted)
    told, _again = explain(story)

    assert [told] == told.splitlines()


@given(st.lists(st.one_of(st.binary(max_size=20), st.just(b"debug1: Entering interactive session.\r\n"))))
def test_the_log_is_taken_out_and_nothing_else(pieces: list[bytes]) -> None:
    """Wherever it stands in what the host itself says."""
    rest, log = without_log(b"".join(pieces))

    assert b"debug1: Entering interactive session.\r\n" not in rest
    assert len(log) >= pieces.count(b"debug1: Entering interactive session.\r\n")
