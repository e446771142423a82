"""
HTTP from the host to several servers at once, bounded in bytes and seconds: who answers, and what.

Keys and certificates come as text and go into OpenSSL through pipes: nothing of them is on a disk, in an
argument or in the environment.
"""

import errno
import os
import time

from netprobe.agent import throwaway, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl

_MAX_TARGETS = 200
_MAX_PATHS = 10
_MAX_BYTES = 1 << 20
_MAX_PEM_BYTES = 1 << 15
"""What any pipe has room for while nobody reads it: 64 KiB, and less where a user has many of them."""
_MAX_S = 3.0


class _Visit:
    """A server to ask for some paths; what is known of it so far can be told at any time."""

    def __init__(self, host: str, port: int, name: str, paths: "list[str]") -> None:
        self.host = host
        self.port = port
        self.name = name
        self.paths = paths
        self.error = throwaway.name(errno.ETIMEDOUT)
        self.is_met = False
        self.expires = ""
        self.pages: list[object] = []

    def told(self) -> "list[object]":
        """[errno's name, "tls: …" or "http: …"; connected; the certificate's end; pages]."""
        return [self.error, self.is_met, self.expires, list(self.pages)]


def fetch(question: "dict[str, object]") -> "list[object]":
    """
    What each of the `targets` ([host, port, the name in its certificate or "", paths]) answers.

    [error, whether TCP connected, until when the certificate is good, pages as [status, cut short, body]].
    They are asked all at once; who has not answered `within` so many seconds has not. With `tls`, `verify` is
    whether the certificate must be one of `ca` ("": of the system's authorities); a `token` goes to nobody
    else. `certificate` and `key` are the client's own.
    """
    import threading

    visits = [_visit(each) for each in wire.items(question.get("targets"), "targets")]
    if len(visits) > _MAX_TARGETS:
        raise wire.RequestError(f"targets: {_MAX_TARGETS} at most")
    most = wire.integer(question.get("most"), "most", 0, _MAX_BYTES)
    within_s = wire.number(question.get("within"), "within", 0.0, _MAX_S)
    context = _context(question) if wire.flag(question.get("tls"), "tls") else None
    headers = _headers(question, context)
    deadline = time.monotonic() + within_s
    threads = [
        threading.Thread(target=_go, args=(visit, context, headers, most, within_s), daemon=True)
        for visit in visits
    ]
    for thread in threads:
        thread.start()
    # Whoever is still waited for then is left to wait, until this process ends.
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [visit.told() for visit in visits]


def _visit(value: object) -> _Visit:
    host, port, name, paths = wire.items(value, "targets", 4)
    found = [wire.text(each, "targets.paths") for each in wire.items(paths, "targets.paths")]
    if len(found) > _MAX_PATHS:
        raise wire.RequestError(f"targets.paths: {_MAX_PATHS} at most")
    number = wire.integer(port, "targets.port", 1, 0xFFFF)
    return _Visit(wire.text(host, "targets.host"), number, wire.text(name, "targets.name"), found)


def _headers(question: "dict[str, object]", context: "ssl.SSLContext | None") -> "dict[str, str]":
    headers = {"User-Agent": "netprobe", "Accept": wire.text(question.get("accept"), "accept")}
    token = wire.text(question.get("token"), "token")
    if any(not "!" <= character <= "~" for character in token):
        # Whoever refuses it later would say what it is.
        raise wire.RequestError("token: expected visible ASCII characters")
    if token and context is not None and context.check_hostname:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _context(question: "dict[str, object]") -> "ssl.SSLContext":
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if wire.flag(question.get("verify"), "verify"):
        authorities = wire.text(question.get("ca"), "ca")
        if authorities:
            try:
                context.load_verify_locations(cadata=authorities)
            except ssl.SSLError as error:
                raise wire.RequestError(f"ca: {_reason(error)}") from None
        else:
            context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = (wire.text(question.get(each), each) for each in ("certificate", "key"))
    if certificate:
        pipes = [_pipe(each) for each in (certificate, key)]
        try:
            # A password is never asked for: there is no terminal, and the stdin is the coordinator's.
            names = [f"/proc/self/fd/{each}" for each in pipes]
            context.load_cert_chain(names[0], names[1], password="")
        except ssl.SSLError as error:
            raise wire.RequestError(f"certificate and key: {_reason(error)}") from None
        finally:
            for each in pipes:
                os.close(each)
    return context


def _pipe(text: str) -> int:
    """The reading end of a pipe that has a text in it."""
    data = text.encode()
    if len(data) > _MAX_PEM_BYTES:
        raise wire.RequestError(f"certificate, key: {_MAX_PEM_BYTES} bytes at most")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.write(writing, data)
    os.close(writing)
    return reading


def _go(
    visit: _Visit, context: "ssl.SSLContext | None", headers: "dict[str, str]", most: int, within_s: float
) -> None:
    import http.client
    import socket

    try:
        with socket.create_connection((visit.host, visit.port), timeout=within_s) as plain:
            visit.is_met = True
            handle = plain if context is None else _wrapped(visit, context, plain)
            try:
                _ask(visit, handle, headers, most, within_s)
            finally:
                handle.close()
        visit.error = ""
    except socket.timeout:
        # Which was the error all along.
        return
    except socket.gaierror as error:
        visit.error = f"no address: {error.strerror}"
    except http.client.HTTPException as error:
        visit.error = f"http: {error!r}"
    except OSError as error:
        visit.error = f"tls: {_reason(error)}" if _is_tls(error) else throwaway.name(error.errno or 0)
    except ValueError as error:
        # ssl's own, for names that it cannot compare (CertificateError), and socket's (UnicodeError).
        visit.error = f"tls: {error}"


def _wrapped(visit: _Visit, context: "ssl.SSLContext", plain: "socket.socket") -> "ssl.SSLSocket":
    handle = context.wrap_socket(plain, server_hostname=visit.name or visit.host)
    visit.expires = str((handle.getpeercert() or {}).get("notAfter", ""))
    return handle


def _ask(
    visit: _Visit, handle: "socket.socket", headers: "dict[str, str]", most: int, within_s: float
) -> None:
    import http.client

    connection = http.client.HTTPConnection(visit.host, visit.port, timeout=within_s)
    # A connection of its own would be one without TLS.
    connection.auto_open = 0
    connection.sock = handle
    for path in visit.paths:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read(most + 1)
        visit.pages.append([response.status, len(body) > most, body[:most].decode("utf-8", "replace")])
        if len(body) > most or connection.sock is None:
            return


def _is_tls(error: OSError) -> bool:
    import ssl

    return isinstance(error, ssl.SSLError)


def _reason(error: OSError) -> str:
    """OpenSSL's words, without where in its source they stand."""
    verification = getattr(error, "verify_message", "")
    return str(verification or getattr(error, "reason", "") or error.strerror or error).partition(" (_ssl")[0]
