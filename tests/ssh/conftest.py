"""A site with real servers, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netprobe.lab import Lab
from tests.ssh.site import Site


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three hosts with a server each, and many users."""
    with Lab.mesh(3) as lab:
        yield Site(lab, tmp_path_factory.mktemp("site"))


@pytest.fixture
def site(built: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site, with the client in the PATH and nothing of the user's about it."""
    monkeypatch.setenv("PATH", built.path)
    for name in ("SSH_AUTH_SOCK", "DISPLAY", "SSH_ASKPASS"):
        monkeypatch.delenv(name, raising=False)
    built.forget()
    return built
