"""The datastore: etcd, or the API of Kubernetes, asked from the nodes themselves."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from netprobe.model import Host, Inventory, Role
from netprobe.questions import Failed, Fetch, Page, Visit
from netprobe.requirements._api import api_question, decoded, etcd_questions, visits
from netprobe.requirements.base import (
    Context,
    Group,
    Judgement,
    Requirement,
    failed,
    not_applicable,
    passed,
    unknown,
    warned,
)
from netprobe.requirements.given import Given


def _about(inventory: Inventory, _host: Host, given: Given) -> tuple[Fetch, ...]:
    api = api_question(inventory, given)
    return (*((api,) if api else ()), *etcd_questions(inventory, given))


class _Worth(enum.IntEnum):
    """What an answer is worth: whoever wants a certificate first may be anything."""

    NONE = 0
    BAD = 1
    UNCLEAR = 2
    GOOD = 3


class _Said(NamedTuple):
    """A server's answer in words."""

    worth: _Worth
    words: str


def _none(words: str) -> _Said:
    return _Said(_Worth.NONE, words)


def _bad(words: str) -> _Said:
    return _Said(_Worth.BAD, words)


def _unclear(words: str) -> _Said:
    return _Said(_Worth.UNCLEAR, words)


def _good(words: str, visit: Visit) -> _Said:
    until = f", its certificate is good until {visit.expires[:40]}" if visit.expires else ""
    return _Said(_Worth.GOOD, words + until)


_SILENCE: Final[Mapping[str, str]] = {
    "ECONNREFUSED": "nothing listens (ECONNREFUSED)",
    "ETIMEDOUT": "no answer",
    "EHOSTUNREACH": "not reached (EHOSTUNREACH)",
    "ENETUNREACH": "no route there (ENETUNREACH)",
}
_HANGS_UP: Final = "EOF"
_ALERT: Final = "ALERT"
"""What OpenSSL calls the refusals of the other end (RFC 8446 §6)."""


def _trouble(visit: Visit) -> _Said:
    if visit.error.startswith("tls:"):
        return _tls_trouble(visit.error)
    if visit.error.startswith("http:"):
        return _none(f"what it says is no HTTP ({visit.error[6:100]})")
    if visit.met and visit.error in ("ECONNRESET", "EPIPE"):
        return _unclear("hangs up, as servers do that want a client certificate (ECONNRESET)")
    if visit.met and visit.error == "ETIMEDOUT":
        return _none("takes the connection and says nothing")
    return _none(_SILENCE.get(visit.error, visit.error or "an empty answer"))


def _tls_trouble(error: str) -> _Said:
    if _ALERT in error.upper():
        return _unclear(f"wants a client certificate, and got none that it takes ({error[5:80]})")
    if _HANGS_UP in error.upper():
        return _unclear("hangs up, as servers do that want another client certificate")
    return _none(error)


def etcd_version(page: Page) -> tuple[str, str] | None:
    """The versions of server and cluster that etcd's `/version` tells; None where that is no etcd's."""
    found = decoded(page)
    if not isinstance(found, dict):
        return None
    server, cluster = found.get("etcdserver"), found.get("etcdcluster", "")
    return (server[:40], cluster[:40]) if isinstance(server, str) and isinstance(cluster, str) else None


def _major(version: str) -> int | None:
    match = re.match(r"(\d{1,4})\.\d", version)
    return int(match[1]) if match else None


def _etcd(visit: Visit) -> _Said:
    if not visit.pages:
        return _trouble(visit)
    page = visit.pages[0]
    if page.status in (401, 403):
        return _unclear(f"does not let it in (HTTP {page.status})")
    versions = etcd_version(page) if page.status == 200 else None
    if versions is None:
        return _bad(f"does not answer as etcd does (HTTP {page.status})")
    server, cluster = versions
    majors = [_major(each) for each in versions if each]
    if None in majors:
        # `not_decided`, while the members do not find to each other.
        return _bad(f"etcd {server}, cluster version {cluster}: it has not come up")
    if any(major is not None and major < 3 for major in majors):
        return _bad(f"etcd {server}, cluster version {cluster}: it speaks the v2 API only")
    return _good(f"etcd {server}", visit)


def _api(visit: Visit) -> _Said:
    if not visit.pages:
        return _trouble(visit)
    page = visit.pages[0]
    found = decoded(page)
    if isinstance(found, dict) and page.status == 200 and isinstance(found.get("gitVersion"), str):
        return _good(f"Kubernetes {found['gitVersion'][:40]}", visit)
    if isinstance(found, dict) and page.status in (401, 403) and found.get("kind") == "Status":
        return _good(
            f"the API of Kubernetes, which tells its version to users only (HTTP {page.status})", visit
        )
    return _bad(f"does not answer as the API of Kubernetes does (HTTP {page.status})")


class _Kind(NamedTuple):
    """What was found of one kind of datastore: what each server said, by its address and port."""

    name: str
    said: dict[str, _Said]

    def all_are(self, worth: _Worth) -> bool:
        """Whether every server's answer is worth that."""
        return all(said.worth is worth for said in self.said.values())

    def any_is(self, worth: _Worth) -> bool:
        """Whether one server's answer is worth that."""
        return any(said.worth is worth for said in self.said.values())

    @property
    def shown(self) -> str:
        """Who said what, those that said the same as one."""
        by_words: dict[str, list[str]] = {}
        for server, said in self.said.items():
            by_words.setdefault(said.words, []).append(server)
        told = "; ".join(f"{words} ({', '.join(servers)})" for words, servers in by_words.items())
        return f"{self.name}: {told}"


def _kind(
    context: Context, name: str, judge: Callable[[Visit], _Said], questions: tuple[Fetch, ...]
) -> _Kind | Failed:
    """Of a server that was asked in several ways, or at several ports, the best answer counts."""
    best: dict[str, tuple[str, _Said]] = {}
    for question in questions:
        found = visits(context, question)
        if isinstance(found, Failed):
            return found
        for target, visit in found:
            said = judge(visit)
            if target.host not in best or said.worth > best[target.host][1].worth:
                best[target.host] = target.label, said
    return _Kind(name, dict(best.values()))


_LOG_IN: Final = "Give what it wants of its clients: --etcd-ca, --etcd-cert and --etcd-key, or --kubeconfig."


def _datastore(context: Context) -> Judgement:
    if Role.NODE not in context.own.host.roles:
        return not_applicable("no node: nothing of Calico runs there")
    api = api_question(context.inventory, context.given)
    kinds = []
    for name, judge, questions in (
        ("API", _api, (api,) if api else ()),
        ("etcd", _etcd, etcd_questions(context.inventory, context.given)),
    ):
        kind = _kind(context, name, judge, questions)
        if isinstance(kind, Failed):
            return unknown(kind)
        if kind.said:
            kinds.append(kind)
    return _judged(kinds)


def _judged(kinds: list[_Kind]) -> Judgement:
    """One of both is enough; of that, all servers have to answer."""
    shown = "; ".join(kind.shown for kind in kinds)
    if not kinds:
        return not_applicable("the inventory has no apiserver and no etcd, and no kubeconfig was given")
    for kind in kinds:
        if kind.all_are(_Worth.GOOD):
            return passed(kind.shown)
    if any(kind.any_is(_Worth.GOOD) for kind in kinds):
        return warned(shown)
    if any(kind.any_is(_Worth.UNCLEAR) for kind in kinds):
        return unknown(shown, _LOG_IN)
    return failed(shown)


GROUP: Final = Group(
    name="Key/value store",
    rank=60,
    requirements=(
        Requirement(
            id="datastore",
            title="A datastore that the nodes reach",
            source="Calico requires a key/value store accessible by all Calico components.",
            method=(
                "Every API server and every etcd of the inventory is asked for /version, from each node; "
                "etcd has to be of version 3"
            ),
            fix=(
                "Start the API servers (or etcd 3), let the nodes through to their ports, and give what they "
                "want of their clients: --kubeconfig, or --etcd-ca, --etcd-cert and --etcd-key."
            ),
            asks_about=_about,
            judge=_datastore,
        ),
    ),
)
