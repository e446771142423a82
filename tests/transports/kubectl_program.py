"""
A `kubectl` for a cluster that is a directory, with what the real one prints and the states that it passes.

It is a program of its own (`kubectl_program.py VERB …`), standard library only. A node is a network namespace
of this machine, a container a process in it with a mount namespace of its own. The directory, named by
NETPROBE_CLUSTER, has `cluster.json` (nodes, faults), a file for each Job and each pod, and `calls`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(os.environ.get("NETPROBE_CLUSTER", ""))
LOOK_S = 0.02
TIME = 100
"""How much faster the cluster's own clocks run: the controllers' TTLs need not be waited for."""


def fail(text: str, status: int = 1) -> None:
    """End as kubectl does."""
    sys.stderr.write(text + "\n")
    sys.exit(status)


def write(path: Path, value: object) -> None:
    """Write a file that is never half there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value))
    draft.rename(path)


def read(path: Path) -> Any:  # noqa: ANN401 (whatever stands there)
    """What stands in a file, None where it is not there."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def parted(words: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Options with their values, operands, and what stands behind `--`."""
    end = words.index("--") if "--" in words else len(words)
    options = dict(word.partition("=")[::2] for word in words[:end] if word.startswith("-"))
    return options, [word for word in words[:end] if not word.startswith("-")], words[end + 1 :]


def job_path(name: str) -> Path:
    """Where a Job is."""
    return HERE / f"job-{name}"


def pod_path(name: str) -> Path:
    """Where a pod is."""
    return HERE / f"pod-{name}"


def create() -> None:
    """`kubectl create -f -`: the Job is there, and controller and kubelet go to work."""
    job = json.load(sys.stdin)
    name = job["metadata"]["name"]
    write(job_path(name), job)
    argv = [sys.executable, "-S", "-E", __file__, "run-job", name]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(argv, start_new_session=True, **quiet)  # type: ignore[call-overload]
    sys.stdout.write(f"job.batch/{name}\n")


def run_job(name: str) -> None:
    """The Job controller, the kubelet and the TTL-after-finished controller, for one Job."""
    faults = read(HERE / "cluster.json")["faults"]
    job = read(job_path(name))
    spec = job["spec"]["template"]["spec"]
    pod = {
        "metadata": {"name": f"{name}-abcde", "labels": {"job-name": name}},
        "spec": spec,
        "status": {"phase": "Pending"},
    }
    path = pod_path(pod["metadata"]["name"])
    node = read(HERE / "cluster.json")["nodes"].get(spec["nodeName"])
    if "FailedCreate" not in faults:
        write(path, pod)
    if "FailedCreate" in faults or node is None or "NotReady" in faults:
        return
    container = start(pod, path, node, faults)
    if container is None:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        container.wait(job["spec"]["activeDeadlineSeconds"])
    kill_all(mount_namespace(container.pid))
    finish(path, pod)
    time.sleep(job["spec"]["ttlSecondsAfterFinished"] / TIME)
    path.unlink(missing_ok=True)
    job_path(name).unlink(missing_ok=True)


def start(pod: Any, path: Path, node: str, faults: Any) -> subprocess.Popen[bytes] | None:  # noqa: ANN401
    """What the kubelet does: states that a watcher sees one after the other, and a container at last."""
    states = [{"waiting": {"reason": "ContainerCreating"}}, *faults.get("waiting", [])]
    for state in states:
        if not job_path(pod["metadata"]["labels"]["job-name"]).exists():
            return None
        pod["status"] = {"phase": "Pending", "startTime": "now", "containerStatuses": [{"state": state}]}
        write(path, pod)
        time.sleep(4 * LOOK_S)
    if "waiting" in faults or "slow" in faults:
        return None
    (container,) = pod["spec"]["containers"]
    cover = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    inside = ["nsenter", f"--net=/run/netns/{node}", "unshare", "--mount", "sh", "-c", cover, "sh"]
    process = subprocess.Popen([*inside, *container["command"]], start_new_session=True)
    pod["pid"] = process.pid
    command_line = Path(f"/proc/{process.pid}/cmdline")
    # It has none for a moment, between one program and the next.
    on_the_way = (b"nsenter", b"unshare", b"sh", b"")
    while process.poll() is None and command_line.read_bytes().split(b"\0")[0] in on_the_way:
        time.sleep(LOOK_S)
    pod["status"].update(phase="Running", containerStatuses=[{"state": {"running": {}}}])
    write(path, pod)
    if not job_path(pod["metadata"]["labels"]["job-name"]).exists():
        # Deleted meanwhile, by somebody who has not seen what runs.
        kill_all(mount_namespace(process.pid))
        path.unlink(missing_ok=True)
    return process


def finish(path: Path, pod: Any) -> None:  # noqa: ANN401
    """The container has ended."""
    pod["status"].update(phase="Succeeded", containerStatuses=[{"state": {"terminated": {"exitCode": 0}}}])
    if path.exists():
        write(path, pod)


def mount_namespace(pid: int) -> str:
    """Which one a process is in, "" where it has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""


def kill_all(namespace: str) -> None:
    """Kill what runs in a container."""
    if not namespace or namespace == mount_namespace(os.getpid()):
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and mount_namespace(int(entry.name)) == namespace:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def get(options: dict[str, str], operands: list[str]) -> None:
    """`kubectl get`: pods that are watched, events, a node."""
    cluster = read(HERE / "cluster.json")
    kind, _, name = operands[0].partition("/")
    if kind == "pods":
        watch(options["--selector"].partition("=")[2])
    elif kind == "events":
        message = cluster["faults"].get("FailedCreate")
        print_json({"items": [{"reason": "FailedCreate", "message": message}] if message else []})
    elif name not in cluster["nodes"]:
        fail(f'Error from server (NotFound): nodes "{name}" not found')
    else:
        message = cluster["faults"].get("NotReady")
        ready = {"type": "Ready", "status": "False" if message else "True", "message": message or ""}
        print_json({"metadata": {"name": name}, "status": {"conditions": [ready]}})


def watch(job: str) -> None:
    """Print each state of a Job's pod, until it is killed."""
    path, last = pod_path(f"{job}-abcde"), None
    while True:
        pod = read(path)
        if pod is not None and pod != last:
            print_json(pod)
            last = pod
        time.sleep(LOOK_S)


def print_json(value: object) -> None:
    """As `--output=json` prints it; a pipe's reader may have it in pieces, of whole lines as well."""
    for line in json.dumps(value, indent=4).splitlines(keepends=True):
        sys.stdout.write(line)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def delete(operands: list[str]) -> None:
    """`kubectl delete job/NAME --wait=false`: the Job, its pod, and what runs there."""
    name = operands[0].partition("/")[2]
    job_path(name).unlink(missing_ok=True)
    path = pod_path(f"{name}-abcde")
    pod = read(path)
    path.unlink(missing_ok=True)
    if pod and "pid" in pod:
        kill_all(mount_namespace(pod["pid"]))


def execute(options: dict[str, str], operands: list[str], command: list[str]) -> None:
    """`kubectl exec -i`: stdin, stdout and stderr are carried, and the end of each."""
    pod = read(pod_path(operands[0]))
    if pod is None:
        fail(f'Error from server (NotFound): pods "{operands[0]}" not found')
    names = [container["name"] for container in pod["spec"]["containers"]]
    if options.get("--container", names[0]) not in names:
        what = f"container {options['--container']} is not valid for pod {operands[0]}"
        fail(f"Error from server (BadRequest): {what}")
    phase = pod["status"]["phase"]
    if phase != "Running":
        fail(f"error: cannot exec into a container in a completed pod; current phase is {phase}")
    argv = ["nsenter", "--net", "--mount", f"--target={pod['pid']}", "--", *command]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    stdin = threading.Thread(target=carry, args=(0, process.stdin.fileno(), process.stdin), daemon=True)
    outputs = [
        threading.Thread(target=carry, args=(process.stdout.fileno(), 1)),
        threading.Thread(target=carry, args=(process.stderr.fileno(), 2)),
    ]
    for thread in (stdin, *outputs):
        thread.start()
    status = process.wait()
    for thread in outputs:
        thread.join()
    if status:
        status = status if status > 0 else 128 - status
        sys.stderr.write(f"command terminated with exit code {status}\n")
        sys.stderr.flush()
    os._exit(status)


def carry(source: int, sink: int, closes: Any = None) -> None:  # noqa: ANN401 (a stream, or none)
    """Carry bytes until there are no more."""
    with contextlib.suppress(OSError):
        while data := os.read(source, 1 << 16):
            while data:
                data = data[os.write(sink, data) :]
    if closes is not None:
        with contextlib.suppress(OSError):
            closes.close()


def main() -> None:
    """Do what the command line says."""
    verb, *words = sys.argv[1:]
    if verb == "run-job":
        run_job(words[0])
        return
    with (HERE / "calls").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    options, operands, command = parted(words)
    fault = read(HERE / "cluster.json")["faults"].get(verb)
    if fault == "hangs":
        time.sleep(600)
    if fault:
        fail(fault)
    if verb == "create":
        create()
    elif verb == "get":
        get(options, operands)
    elif verb == "delete":
        delete(operands)
    else:
        execute(options, operands, command)


if __name__ == "__main__":
    main()
