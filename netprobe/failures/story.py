"""What was said until a host was lost, and what a rule is."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from netprobe import launch
from netprobe.model import Host

LINE_CHARACTERS: Final = 300
_LAST_LINES: Final = 5
_NOISE_LINES: Final = 2

# What ssh -v tells ends as its own messages do; a host's lines seldom begin so, and never with all of it.
_LOG: Final = re.compile(
    rb"(?:debug[123]: |Authenticated to |Transferred: sent |Bytes per second: sent |OpenSSH_\d)[^\n]*\r\n"
)

# Of ssh its farewell; of kubectl its log of what it tries again, and the status that it ends with as well,
# which may stand behind a line that the host has not ended.
_ALWAYS_SAID: Final = (
    r"^Connection to \S+ closed\.$|^[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ .*|^Defaulted container .*|^Warning: .*"
    r"|command terminated with exit code \d+$"
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

    @property
    def last_words(self) -> list[str]:
        """What was said last, without what is always said."""
        noise = [one_line(line) for line in self.stdout if not line.startswith(launch.KEYWORD)]
        heard = [rest for line in self.stderr if (rest := re.sub(_ALWAYS_SAID, "", line))]
        return [*([] if self.greeted else noise[-_NOISE_LINES:]), *heard[-_LAST_LINES:]]


class Rule(NamedTuple):
    """
    What a message means.

    `pattern` is looked for in all lines that were said; `text` may name its groups, and the words of `Words`.
    `may_pass`: the host took no connection just now, and may take one later.
    """

    pattern: str
    text: str
    may_pass: bool = False


def flat(text: str) -> str:
    """A text as one line: without what a terminal would take for a line's end."""
    return " ".join(text.split())


def one_line(text: str) -> str:
    """A text as part of a line, shortened."""
    return flat(text)[:LINE_CHARACTERS]


def without_log(data: bytes) -> tuple[bytes, list[str]]:
    """
    What came on stderr without the lines that ssh logs there, and these lines.

    Each comes in one piece, and may stand between two pieces of a line of the host's own.
    """
    log = [one_line(line.decode("utf-8", "replace")) for line in _LOG.findall(data)]
    return _LOG.sub(b"", data), log
