"""Servers that speak real TLS and real HTTP, with certificates made for the test; and a real etcd."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

TIMEOUT_S: Final = 20.0


class Pair(NamedTuple):
    """A certificate and its key, both files in PEM."""

    certificate: Path
    key: Path


class Authority:
    """Who signs certificates; its own is `certificate`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._own = self._pair("ca", "/CN=authority", "-x509", "-days", "2")
        self.certificate = self._own.certificate

    def _pair(self, name: str, subject: str, *more: str) -> Pair:
        pair = Pair(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", subject, "-keyout", str(pair.key), "-out", str(pair.certificate), *more),
        )
        return pair

    def signed(self, name: str, *, address: str = "127.0.0.1", days: int = 1) -> Pair:
        """A certificate for an address, good for so many days, and for clients as well."""
        pair = self._pair(name, f"/CN={name}", "-new")
        extensions = self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:{address},DNS:{name}\n")
        _openssl(
            *("x509", "-req", "-in", str(pair.certificate), "-out", str(pair.certificate)),
            *("-CA", str(self.certificate), "-CAkey", str(self._own.key), "-CAcreateserial"),
            *("-days", str(days), "-extfile", str(extensions)),
        )
        return pair


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=TIMEOUT_S)


class Served(NamedTuple):
    """A server: its port, and what it was asked, as (path, the header Authorization)."""

    port: int
    asked: list[tuple[str, str]]


@contextmanager
def serving(
    pages: Mapping[str, tuple[int, Any]], pair: Pair | None = None, clients: Path | None = None
) -> Iterator[Served]:
    """A server of pages (status, JSON or text), with TLS if it has a certificate, for `clients` if given."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            status, page = pages.get(self.path, (404, {"kind": "Status"}))
            body = (page if isinstance(page, str) else json.dumps(page)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:  # noqa: ANN401 - http.server's own
            """Write nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: Any) -> None:  # noqa: ANN401 - socketserver's own
            """Clients may hang up."""

        def get_request(self) -> tuple[socket.socket, Any]:
            plain, address = super().get_request()
            return (plain if context is None else self._wrapped(context, plain)), address

        @staticmethod
        def _wrapped(context: ssl.SSLContext, plain: socket.socket) -> socket.socket:
            return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)

    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        if clients is not None:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Served(server.server_address[1], asked)
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        return int(handle.getsockname()[1])


@contextmanager
def etcd(directory: Path, pair: Pair | None = None, authority: Path | None = None) -> Iterator[int]:
    """A real etcd, by TLS and for clients with a certificate if there are files for that; its port."""
    if shutil.which("etcd") is None:
        pytest.skip("no etcd in the PATH")
    port, peers = free_port(), free_port()
    url, peer = f"http{'s' if pair else ''}://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    words = [
        "etcd",
        "--data-dir",
        str(directory),
        "--listen-client-urls",
        url,
        "--advertise-client-urls",
        url,
    ]
    words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    words += ["--initial-cluster", f"default={peer}", "--unsafe-no-fsync"]
    if pair and authority:
        words += ["--cert-file", str(pair.certificate), "--key-file", str(pair.key)]
        words += ["--trusted-ca-file", str(authority), "--client-cert-auth"]
    metrics = f"http://127.0.0.1:{free_port()}"
    words += ["--listen-metrics-urls", metrics]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_well(f"{metrics}/health", process)
            yield port
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def _wait_until_well(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "etcd ended"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - of this test's own making
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    pytest.fail("etcd does not come up")
