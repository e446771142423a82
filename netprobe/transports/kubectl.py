"""
A pod, or a node by way of a pod of its own, through the `kubectl` program and the user's own configuration.

For a node a Job is made whose pod runs there in the host's network, and our agent by `kubectl exec` in that
pod. Not by `attach`: what an attached process prints, all that our agent answers, goes to the container's
log, and from there to wherever logs are gathered. So that the pod goes with the agent nevertheless, its own
process reads a FIFO that the agent's shell holds open for writing: it ends when that does, of whatever cause,
or where nobody comes; then the Job is finished, and the TTL-after-finished controller deletes it
(https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import trio

from netprobe.access import Access
from netprobe.model import Connection, Host
from netprobe.transports.base import NoPlaceError, Transport

IMAGE: Final = "docker.io/library/python:3-slim"
NAMESPACE: Final = "kube-system"
"""Where the pod for a node is made: it is on every cluster, and has other pods with the host's network."""

ARRANGE_S: Final = 120.0
"""How long a pod may take until it runs; the image is pulled in that time."""

TTL_S: Final = 60
LIFETIME_S: Final = 3600
"""What a Job may take at all: far more than any run."""
_UNUSED_S: Final = 60
"""How long a pod that runs waits for somebody to come; an agent is started there at once."""
_GRACE_S: Final = 2

_CALL_S: Final = 15.0
_REQUEST_S: Final = 10
"""What kubectl is told to wait at most, so that it is kubectl who says for what it waited in vain."""
_HASTE_S: Final = 5.0
"""How long somebody who does not want to wait any more, waits."""
_SOON_S: Final = 5.0
"""Within this a kubelet takes note of a new pod; where it has not, the reason is looked for."""
_PAUSE_S: Final = 1.0
_CHUNK: Final = 1 << 16

_CONTAINER: Final = "agent"
_FIFO: Final = "/dev/shm/netprobe"  # noqa: S108 (each pod has one of its own, in memory)
_MAKE: Final = f"mkfifo -m 600 {_FIFO} 2>/dev/null"

# To open a FIFO waits for the other end: whoever comes first. The sleeper's end is closed as soon as it is
# open, which is the end of the file where nobody else has come. Among the host's processes, as here, what a
# container's first one leaves behind may stay: the sleeper is told to go.
_SLEEPER: Final = f"{{ sleep {_UNUSED_S} & s=$!; trap 'kill $s; exit' TERM; wait $s; : >{_FIFO}; }}"
_WAIT: Final = f"{_MAKE}; {_SLEEPER} & w=$!; read -r _ <{_FIFO}; kill $w; exit 0"
_HOLD: Final = ("/bin/sh", "-c", f'{_MAKE}; exec 9>{_FIFO}; exec "$@"', "sh")

_HOPELESS: Final = (
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
)
"""Why a container waits for what will not come (kubelet's pkg/kubelet/images and pkg/kubelet/container)."""


_T = TypeVar("_T")


class _Reason(msgspec.Struct):
    reason: str = ""
    message: str = ""
    type: str = ""
    status: str = ""


class _State(msgspec.Struct):
    waiting: _Reason | None = None
    running: dict[str, Any] | None = None
    terminated: _Reason | None = None


class _Container(msgspec.Struct):
    state: _State = msgspec.field(default_factory=_State)


class _Status(msgspec.Struct):
    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str = msgspec.field(name="startTime", default="")
    containers: list[_Container] = msgspec.field(name="containerStatuses", default_factory=list)
    conditions: list[_Reason] = msgspec.field(default_factory=list)


class _Named(msgspec.Struct):
    name: str = ""


class _Object(msgspec.Struct):
    """A pod or a node, as far as it matters."""

    metadata: _Named = msgspec.field(default_factory=_Named)
    status: _Status = msgspec.field(default_factory=_Status)


class _Events(msgspec.Struct):
    items: list[_Reason] = msgspec.field(default_factory=list)


def manifest(connection: Connection) -> dict[str, object]:
    """
    The Job whose one pod runs on the node of a connection.

    It is pinned by name, so that no scheduler has a say, tolerates every taint, and has the host's network;
    the host's processes as well, because only so can the agent name the program that holds a port.
    """
    labels = {"app.kubernetes.io/name": "netprobe"}
    container = {
        "name": _CONTAINER,
        "image": connection.image or IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", _WAIT],
        "securityContext": {"privileged": True, "runAsUser": 0},
    }
    pod = {
        "nodeName": connection.node,
        "hostNetwork": True,
        "hostPID": True,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": connection.name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": TTL_S,
            "activeDeadlineSeconds": LIFETIME_S,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _argv(host: Host, remote: Sequence[str], _access: Access) -> list[str]:
    connection = host.connection
    container = [f"--container={connection.container}"] if connection.container else []
    hold = _HOLD if connection.name else ()
    return [*_kubectl(connection, "exec"), "--stdin", *container, connection.pod, "--", *hold, *remote]


def _kubectl(connection: Connection, verb: str) -> list[str]:
    given = {name: getattr(connection, name) for name in ("kubeconfig", "context", "namespace")}
    words = [f"--{name}={value}" for name, value in given.items() if value]
    # kubectl takes the last value of an option: the inventory's own come behind ours.
    return ["kubectl", verb, *words, *connection.options]


async def _arrange(host: Host) -> Host:
    connection = host.connection
    if connection.pod:
        return host
    connection = msgspec.structs.replace(
        connection,
        name=f"netprobe-{secrets.token_hex(5)}",
        node=connection.node or host.name,
        namespace=connection.namespace or NAMESPACE,
        container=_CONTAINER,
    )
    made = msgspec.structs.replace(host, connection=connection)
    try:
        text = msgspec.json.encode(manifest(connection))
        # To look at our manifest, kubectl would fetch the whole schema from the API server first.
        words = ("--validate=false", "--output=name", "--filename=-")
        await _call(connection, "create", *words, stdin=text, timeout_s=_CALL_S)
        pod = await _running(connection)
    except BaseException:
        # Also where it is cancelled, or not known whether it was made.
        with trio.CancelScope(shield=True), contextlib.suppress(NoPlaceError):
            await _delete(connection, _HASTE_S)
        raise
    return msgspec.structs.replace(made, connection=msgspec.structs.replace(connection, pod=pod))


async def _dismiss(host: Host) -> None:
    connection = host.connection
    if connection.name:
        await _delete(connection, _CALL_S)


async def _delete(connection: Connection, timeout_s: float) -> None:
    words = ("--ignore-not-found", "--wait=false", f"job/{connection.name}")
    await _call(connection, "delete", *words, timeout_s=timeout_s)


async def _running(connection: Connection) -> str:
    """The name of the Job's pod when its container runs; `NoPlaceError` where it does not, or not in time."""
    deadline = trio.current_time() + ARRANGE_S
    patience = _SOON_S
    said: list[str] = []
    while (left := deadline - trio.current_time()) > 0:
        for pod in await _pods(connection, min(patience, left)):
            if _is_running(pod):
                return pod.metadata.name
            said.extend(each for each in _words(pod) if each not in said)
            if _is_hopeless(pod):
                raise NoPlaceError(f"no container runs on the node {connection.node}", said)
            patience = left if pod.status.start_time else patience
        if patience < left:
            await _look_for_reason(connection)
            patience = left
        await trio.sleep(_PAUSE_S)
    raise NoPlaceError(f"no container ran on the node {connection.node} within {ARRANGE_S:g} s", said)


async def _pods(connection: Connection, timeout_s: float) -> list[_Object]:
    """What became of the Job's pod, state after state, until it is clear or the time is over."""
    words = (f"--selector=job-name={connection.name}", "--watch", "--output=json", "pods")

    def is_clear(output: bytes) -> bool:
        return any(_is_running(pod) or _is_hopeless(pod) for pod in _objects(output))

    return _objects(await _call(connection, "get", *words, timeout_s=timeout_s, until=is_clear))


def _objects(output: bytes) -> list[_Object]:
    """Those that have come whole: kubectl prints one after the other, each from a line of its own."""
    texts = re.split(rb"^(?=\{)", output, flags=re.MULTILINE)
    return [_decoded(text, _Object) for text in texts if text.endswith(b"\n}\n")]


def _decoded(text: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise NoPlaceError(f"kubectl get prints what is no object of the API: {error}") from None


def _is_running(pod: _Object) -> bool:
    return any(container.state.running is not None for container in pod.status.containers)


def _is_hopeless(pod: _Object) -> bool:
    states = [container.state for container in pod.status.containers]
    waits = any(state.waiting and state.waiting.reason in _HOPELESS for state in states)
    return waits or pod.status.phase in ("Failed", "Succeeded") or any(state.terminated for state in states)


def _words(pod: _Object) -> list[str]:
    """What is said of a pod and its container: reasons and messages."""
    states = [container.state for container in pod.status.containers]
    reasons = [reason for state in states for reason in (state.waiting, state.terminated) if reason]
    reasons.append(_Reason(pod.status.reason, pod.status.message))
    return [": ".join(filter(None, (each.reason, each.message))) for each in reasons if each.reason]


async def _look_for_reason(connection: Connection) -> None:
    """`NoPlaceError` where it can be seen why no kubelet has taken note of the pod."""
    about = f"--field-selector=involvedObject.kind=Job,involvedObject.name={connection.name}"
    why = f"no pod was made for the node {connection.node}"
    if (found := await _asked(connection, "events", about)) is not None:
        events = _decoded(found, _Events).items
        said = [f"{each.reason}: {each.message}" for each in events if each.reason == "FailedCreate"]
        if said:
            raise NoPlaceError(why, said)
    if (found := await _asked(connection, f"node/{connection.node}")) is not None:
        conditions = _decoded(found, _Object).status.conditions
        for each in conditions:
            if each.type == "Ready" and each.status != "True":
                raise NoPlaceError(f"the node {connection.node} is not ready", [f"NotReady: {each.message}"])


async def _asked(connection: Connection, *words: str) -> bytes | None:
    """What kubectl has to say; None where we may not ask that, which is no reason to go."""
    try:
        return await _call(connection, "get", *words, "--output=json", timeout_s=_CALL_S)
    except NoPlaceError as error:
        if any("is forbidden: User" in line for line in error.said):
            return None
        raise


async def _call(
    connection: Connection,
    verb: str,
    *words: str,
    timeout_s: float,
    stdin: bytes = b"",
    until: Callable[[bytes], bool] | None = None,
) -> bytes:
    """
    What kubectl prints, to its end, or `until` this is enough or the time over.

    Without an `until` it is an error to take longer than `timeout_s`. `NoPlaceError` with what kubectl said.
    """
    bound = [] if until else [f"--request-timeout={_REQUEST_S}s"]
    argv = [*_kubectl(connection, verb), *bound, *words]
    output = b""
    with tempfile.TemporaryFile() as stderr:
        try:
            process = await trio.lowlevel.open_process(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        except OSError as error:
            raise NoPlaceError(f"cannot run kubectl: {error.strerror}") from None
        try:
            with trio.move_on_after(timeout_s) as scope:
                await _send(process, stdin)
                while not (until and until(output)) and (data := await _received(process)):
                    output += data
                if not (until and until(output)):
                    await process.wait()
        finally:
            await _end(process)
        stderr.seek(0)
        said = stderr.read(_CHUNK).decode("utf-8", "replace").splitlines()
    if until is None and scope.cancelled_caught:
        raise NoPlaceError(f"kubectl {verb} did not end within {timeout_s:g} s", said)
    if process.returncode and process.returncode > 0:
        raise NoPlaceError(f"kubectl {verb} failed (exit status {process.returncode})", said)
    return output


async def _send(process: trio.Process, data: bytes) -> None:
    if process.stdin is not None:
        # Where it does not read it, it will say why.
        with contextlib.suppress(trio.BrokenResourceError):
            await process.stdin.send_all(data)
        await process.stdin.aclose()


async def _received(process: trio.Process) -> bytes:
    return b"" if process.stdout is None else bytes(await process.stdout.receive_some(_CHUNK))


async def _end(process: trio.Process) -> None:
    """Kill it, with the programs that it has started to log in, and reap it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True):
        await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


TRANSPORT = Transport(name="kubectl", argv=_argv, arrange=_arrange, dismiss=_dismiss)
