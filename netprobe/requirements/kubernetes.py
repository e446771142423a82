"""The versions of Kubernetes and of Istio, and what kube-proxy does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from netprobe.questions import Failed, Files
from netprobe.requirements._api import (
    ISTIOD,
    NODES,
    about_api,
    api_question,
    cells,
    cluster_page,
    cluster_question,
    decoded,
    visits,
)
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

Version = tuple[int, int]

_TESTED: Final = ((1, 27), (1, 30))
_OLDEST: Final = (1, 21)
_NUMBERS: Final = re.compile(r"v?(\d{1,3})\.(\d{1,4})(?![\d])")
MANIFESTS: Final = Files(patterns=("/etc/kubernetes/manifests/*.yaml",))
_IMAGE: Final = re.compile(
    r"image:\s*[\"']?[^\s\"']*/kube-(?:apiserver|controller-manager|scheduler):(v[^\s\"'@]{1,40})"
)
_SAY_ISTIO: Final = "Say which version it is: --istio 1.10."
_SAY: Final = "Say which version it is or will be: --kubernetes 1.29."


def version(text: str) -> Version | None:
    """The first two numbers of a version (`v1.29.3`, `1.29`, `v1.30.1-eks-1`); None where there are none."""
    match = _NUMBERS.match(text)
    return (int(match[1]), int(match[2])) if match else None


def kubernetes_versions(context: Context) -> dict[str, list[str]]:
    """The versions of Kubernetes that were seen or given, each with where."""
    found: dict[str, list[str]] = {}

    def add(text: str, where: str) -> None:
        places = found.setdefault(text[:40], [])
        if where not in places:
            places.append(where)

    if context.given.kubernetes:
        add(context.given.kubernetes, "given")
    api = api_question(context.inventory, context.given)
    answers = visits(context, api) if api else []
    for target, visit in [] if isinstance(answers, Failed) else answers:
        page = decoded(visit.pages[0]) if visit.pages and visit.pages[0].status == 200 else None
        text = page.get("gitVersion") if isinstance(page, dict) else None
        if isinstance(text, str):
            add(text, f"API server {target.label}")
    for text in cells(cluster_page(context, NODES), "Version"):
        add(text, "kubelet")
    files = context.of(MANIFESTS)
    for file in [] if isinstance(files, Failed) else files.files:
        for text in _IMAGE.findall(file.text):
            add(text, file.path)
    return found


def _shown(found: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{text} ({', '.join(places)})" for text, places in found.items())


def _kubernetes(context: Context) -> Judgement:
    found = kubernetes_versions(context)
    if not found:
        return _no_version(context)
    shown = _shown(found)
    numbers = [number for text in found if (number := version(text)) is not None]
    if len(numbers) < len(found):
        wrong = next(text for text in found if version(text) is None)
        return unknown(f"{shown}: {wrong!r} is no version", _SAY)
    if min(numbers) < _OLDEST:
        return failed(f"{shown}: Calico 3.28 does not work on 1.20 or below")
    if min(numbers) < _TESTED[0]:
        return warned(f"{shown}: may work; Calico 3.28 is tested with 1.27 to 1.30")
    if max(numbers) > _TESTED[1]:
        return warned(
            f"{shown}: newer than the 1.27 to 1.30 that Calico 3.28 is tested with",
            "Install the release of Calico that is tested with this version of Kubernetes.",
        )
    return passed(shown)


def _no_version(context: Context) -> Judgement:
    api = api_question(context.inventory, context.given)
    if api is None:
        return not_applicable("no Kubernetes was seen, and no version was given")
    answers = visits(context, api)
    if isinstance(answers, Failed):
        return unknown(answers, _SAY)
    return unknown(f"no API server tells it: {', '.join(target.label for target, _ in answers)}", _SAY)


# Istio: the page's sentences, as (of Istio, from and to of Kubernetes).

_ISTIO_FROM: Final = ((1, 16), (1, 2))
"""From this version of Kubernetes on, this version of Istio at least."""
_ISTIO: Final[Mapping[Version, tuple[Version, Version]]] = {
    (1, 9): ((1, 17), (1, 20)),
    (1, 10): ((1, 18), (1, 22)),
}
"""Versions of Istio, and the first and last one of Kubernetes for each."""
_IMAGE_TAG: Final = re.compile(r"/(?:pilot|istiod)[^\s:@,]*:([^\s@,]{1,40})")


def istio_versions(context: Context) -> list[str]:
    """What was given, or else the tags of istiod's images, where a kubeconfig lets them be seen."""
    if context.given.istio:
        return [context.given.istio]
    images = cells(cluster_page(context, ISTIOD), "Images")
    return list(dict.fromkeys(tag for text in images for tag in _IMAGE_TAG.findall(text)))


def _istio(context: Context) -> Judgement:
    found = istio_versions(context)
    if not found and cluster_question(context.inventory, context.given) and not cluster_page(context, ISTIOD):
        return unknown("the API does not tell which deployments there are", _SAY_ISTIO)
    if not found:
        return not_applicable("no Istio was seen, and no version was given (--istio)")
    clusters = kubernetes_versions(context)
    shown = f"Istio {', '.join(found)}, Kubernetes {_shown(clusters) or 'of a version that is not known'}"
    ours = [version(text) for text in found]
    theirs = [version(text) for text in clusters]
    if not clusters or None in theirs:
        return unknown(shown, _SAY)
    if None in ours:
        return unknown(f"{shown}: that is no version", _SAY_ISTIO)
    problems = [
        problem
        for istio in ours
        for kubernetes in theirs
        if istio and kubernetes and (problem := istio_problem(istio, kubernetes))
    ]
    return failed(f"{shown}: {problems[0]}") if problems else passed(shown)


def istio_problem(istio: Version, kubernetes: Version) -> str:
    """What the page has against these two together, "" for nothing."""
    since, least = _ISTIO_FROM
    if kubernetes >= since and istio < least:
        return "Kubernetes 1.16+ requires Istio 1.2 or greater"
    first, last = _ISTIO.get(istio, (kubernetes, kubernetes))
    if first <= kubernetes <= last:
        return ""
    return f"Istio {_text(istio)} is for Kubernetes {_text(first)} to {_text(last)}"


def _text(numbers: Version) -> str:
    return ".".join(map(str, numbers))


GROUP: Final = Group(
    name="Kubernetes",
    rank=65,
    requirements=(
        Requirement(
            id="kubernetes-version",
            title="Version of Kubernetes",
            source=(
                "We test Calico v3.28 against the following Kubernetes versions: v1.27, v1.28, v1.29, v1.30. "
                "Calico v3.28 will not work on Kubernetes v1.20 or below. v1.21 may work, but is no longer "
                "tested. Newer versions may also work, but we recommend upgrading to a version of Calico "
                "that is tested against the newer Kubernetes version."
            ),
            method=(
                "The API servers' /version, the kubelets' versions where a kubeconfig lets them be seen, the "
                "images of static pods, and what --kubernetes says"
            ),
            fix="Upgrade Kubernetes, to a version from 1.27 to 1.30.",
            asks=(MANIFESTS,),
            asks_about=about_api,
            judge=_kubernetes,
        ),
        Requirement(
            id="istio",
            title="Version of Istio, for application layer policy",
            source=(
                "Note that Kubernetes version 1.16+ requires Istio version 1.2 or greater. Note that Istio "
                "version 1.9 requires Kubernetes version 1.17-1.20. Note that Istio version 1.10 is "
                "supported on Kubernetes version 1.18-1.21, but has been tested on Kubernetes version 1.22."
            ),
            method="istiod's images where a kubeconfig lets them be seen, or --istio; Kubernetes' version",
            fix="Install a version of Istio that is for this version of Kubernetes.",
            asks=(MANIFESTS,),
            asks_about=about_api,
            judge=_istio,
        ),
    ),
)
