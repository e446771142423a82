"""A site with real servers, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ssh.site import Site

# Before anybody imports it; the modules that it imports have their own conftest.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three hosts with a server each, and many users."""
    from netprobe.lab import Lab
    from tests.ssh.site import Site

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
