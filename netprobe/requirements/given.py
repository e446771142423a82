"""What a user says of the cluster besides the inventory: versions, and how to talk to its datastore."""

from __future__ import annotations

import msgspec

from netprobe.access import Secret

_NO_SECRET = Secret("")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """
    How to talk to servers by TLS, everything in PEM.

    `ca` is who signs their certificates, `certificate` and `key` are one's own. With `verify` a server has to
    prove who it is, by `ca` or, without it, by the host's own authorities. `token` is for servers that have.
    """

    ca: str = ""
    certificate: str = ""
    key: Secret = _NO_SECRET
    token: Secret = _NO_SECRET
    verify: bool = False

    @property
    def can_log_in(self) -> bool:
        """Whether there is something to log in with."""
        return bool(self.certificate or self.token.encode())


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster's API as a kubeconfig has it: server and port, the name in its certificate, how to log in."""

    host: str
    port: int
    name: str
    credentials: Credentials


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """
    All of it.

    `kubernetes` and `istio` are versions, "" where they are not known. `etcd` is None where etcd talks HTTP
    without TLS, or has not been spoken of: then both are tried.
    """

    kubernetes: str = ""
    istio: str = ""
    etcd: Credentials | None = None
    cluster: Cluster | None = None
