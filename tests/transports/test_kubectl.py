"""Nodes and pods by a `kubectl` that is scripted; no cluster has been tried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import netprobe
from netprobe import coordinator, launch, transports, wire
from netprobe.access import Access
from netprobe.inventory import dump
from netprobe.lab import Lab
from netprobe.model import Connection, Family, Host, Inventory
from netprobe.plan import Settings
from netprobe.session import HostLostError, Session
from netprobe.transports import kubectl
from tests.lab.probing import held
from tests.transports import programs
from tests.transports.clusters import Cluster
from tests.transports.conformance import TIMEOUT_S, Conformance, MakeHost, is_gone, opened, reason

ROOT_DIRECTORY: Final = Path(netprobe.__file__).parents[1]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The network of the cluster."""
    with Lab.mesh(3) as lab:
        yield lab


@pytest.fixture
def cluster(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster, empty before and afterwards."""
    cluster = Cluster(tmp_path, lab)
    monkeypatch.setenv("PATH", cluster.path)
    yield cluster

    assert cluster.is_empty()


@pytest.mark.lab
class TestNode(Conformance):
    """By a pod that is made for it."""

    @pytest.fixture
    def host(self, cluster: Cluster) -> MakeHost:
        """One of the nodes."""
        return lambda python: cluster.host("n1", python)

    async def test_the_agent_is_in_the_nodes_network(self, host: MakeHost, lab: Lab) -> None:
        """Its addresses are those of the node, and it is root."""
        async with opened(host(())) as (session, nursery):
            await session.start(nursery)
            facts = await session.request("facts", wire.AskFacts(), wire.Facts, TIMEOUT_S)

            assert lab.hosts["n1"].address(Family.IPV4) in {address for _, address, _ in facts.addresses}
            assert 0 == facts.uid


@pytest.mark.lab
class TestPod(Conformance):
    """One that is there already, and stays."""

    @pytest.fixture
    def host(self, cluster: Cluster) -> Iterator[MakeHost]:
        """A pod on one of the nodes."""
        with cluster.pod("n2") as name:
            yield lambda python: cluster.host("n2", python, pod=name, container="theirs")

            assert ["job-theirs", f"pod-{name}"] == cluster.left()


def node(**options: Any) -> Connection:  # noqa: ANN401 (as a connection has them)
    """A connection to a node, as it is when its Job has a name."""
    return Connection(type="kubectl", **{"node": "n1", "name": "netprobe-1", **options})


@pytest.mark.parametrize("version", ["1.25", "1.28", "1.32"])
@pytest.mark.parametrize("image", ["", "registry.example:5000/tools/python:3.12@sha256:abc"])
def test_the_manifest_is_what_the_api_takes(version: str, image: str) -> None:
    """The published schema of `batch/v1` finds nothing wrong, and knows every field."""
    kubernetes_validate.validate(kubectl.manifest(node(image=image)), version, strict=True)


def test_the_schema_would_find_a_field_that_there_is_not() -> None:
    """Nor does it let a wrong type pass: the test above can fail."""
    manifest: Any = kubectl.manifest(node())
    manifest["spec"]["template"]["spec"]["hostNet"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.28", strict=True)


def test_the_manifest_goes_by_itself_and_runs_on_any_node() -> None:
    """Whatever taints it has, without a scheduler, and in the host's network."""
    manifest: Any = kubectl.manifest(node())
    job, pod = manifest["spec"], manifest["spec"]["template"]["spec"]

    assert (0, 60, 3600) == (
        job["backoffLimit"],
        job["ttlSecondsAfterFinished"],
        job["activeDeadlineSeconds"],
    )
    assert ("n1", True, True, "Never") == (
        pod["nodeName"],
        pod["hostNetwork"],
        pod["hostPID"],
        pod["restartPolicy"],
    )
    assert [{"operator": "Exists"}] == pod["tolerations"]
    assert "docker.io/library/python:3-slim" == pod["containers"][0]["image"]
    assert {"privileged": True, "runAsUser": 0} == pod["containers"][0]["securityContext"]


def argv(connection: Connection) -> list[str]:
    """The command line that starts an agent."""
    host = Host(name="a", addresses=("10.0.0.1",), connection=connection)
    return transports.registry()["kubectl"].argv(host, launch.SHELL, Access())


def test_the_command_line_is_as_the_inventory_says() -> None:
    """The inventory's own options come last, because kubectl takes the last value."""
    given = Connection(
        type="kubectl",
        pod="calico-node-x",
        container="calico-node",
        namespace="calico-system",
        context="prod",
        kubeconfig="/k",
        options=("--as=ops",),
    )
    before = ["kubectl", "exec", "--kubeconfig=/k", "--context=prod", "--namespace=calico-system", "--as=ops"]

    assert [*before, "--stdin", "--container=calico-node", "calico-node-x", "--", *launch.SHELL] == argv(
        given
    )


@given(st.from_type(Connection))
def test_no_shell_reads_what_an_inventory_says(connection: Connection) -> None:
    """What runs in a container is always the same, whatever stands in a connection."""
    inside = argv(connection)
    inside = inside[-len(launch.SHELL) - (5 if connection.name else 1) :]

    assert ["--", *(kubectl._HOLD if connection.name else ()), *launch.SHELL] == inside


USER_MAY_NOT: Final = (
    'Error from server (Forbidden): error when creating "STDIN": jobs.batch is forbidden: User "jane" cannot '
    'create resource "jobs" in API group "batch" in the namespace "kube-system"'
)
NO_EXEC: Final = (
    'Error from server (Forbidden): pods "netprobe-1-abcde" is forbidden: User "jane" cannot create resource '
    '"pods/exec" in API group "" in the namespace "kube-system"'
)
NO_SHELL: Final = (
    "Error from server (InternalError): Internal error occurred: error executing command in container: "
    'failed to exec in container: failed to start exec "1": OCI runtime exec failed: exec failed: unable to '
    'start container process: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown'
)
NOT_RECOGNIZED: Final = 'error: unable to recognize "STDIN":'
LOGGED: Final = (
    'E1121 21:46:43.155323   32165 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API '
    'group list: Get \\"http://127.0.0.1:9/api?timeout=32s\\": dial tcp 127.0.0.1:9: connect: connection '
    'refused"'
)

# What kubectl 1.32 prints, against a server that answers as the API server does or does not.
SAID: Final = [
    (
        "create",
        "Error in configuration: context was not found for specified context: nope",
        "there is no context nope",
    ),
    ("create", 'error: context "nope" does not exist', "there is no context nope"),
    (
        "create",
        "error: stat /nope: no such file or directory",
        "there is no /nope: correct connection.kubeconfig",
    ),
    (
        "create",
        "The connection to the server localhost:8080 was refused - did you specify the right host or port?",
        "kubectl has no configuration: ",
    ),
    (
        "create",
        f"{LOGGED}\nThe connection to the server 127.0.0.1:9 was refused - did you specify the right host",
        "the API server at 127.0.0.1:9 refuses the connection: ",
    ),
    (
        "create",
        (
            f'{NOT_RECOGNIZED} Get "http://localhost:8080/api": dial tcp [::1]:8080: connect: connection '
            "refused"
        ),
        "kubectl has no configuration: ",
    ),
    (
        "create",
        f'{NOT_RECOGNIZED} Get "http://a/api": dial tcp 10.0.0.1:6443: connect: connection refused',
        "the API server at 10.0.0.1:6443 refuses the connection: ",
    ),
    (
        "create",
        f'{NOT_RECOGNIZED} Get "https://a.example/api": dial tcp: lookup a.example: no such host',
        "no way to the API server (dial tcp: lookup a.example: no such host): ",
    ),
    (
        "create",
        "Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout",
        "no answer from the API server 10.0.0.1:6443: ",
    ),
    (
        "create",
        "Unable to connect to the server: net/http: TLS handshake timeout",
        "no answer from the API server",
    ),
    (
        "create",
        "Unable to connect to the server: dial tcp: lookup api.example on 10.0.0.2:53: no such host",
        "no way to the API server (dial tcp: lookup api.example on 10.0.0.2:53: no such host): ",
    ),
    (
        "create",
        (
            "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by "
            "unknown authority"
        ),
        "kubectl does not trust the API server (x509: certificate signed by unknown authority): ",
    ),
    (
        "create",
        "Unable to connect to the server: getting credentials: exec: executable aws not found",
        "kubectl gets no credentials (exec: executable aws not found): ",
    ),
    ("create", "Please enter Username: error: EOF", "the API server does not know who we are: "),
    (
        "create",
        "error: You must be logged in to the server (Unauthorized)",
        "the API server does not know who we are: ",
    ),
    (
        "create",
        (
            "error: You must be logged in to the server (the server has asked for the client to provide "
            "credentials)"
        ),
        "the API server does not know who we are: ",
    ),
    (
        "create",
        USER_MAY_NOT,
        (
            "jane may not create jobs in the namespace kube-system: a role there must have "
            '{apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]}'
        ),
    ),
    (
        "create",
        'Error from server (NotFound): error when creating "STDIN": namespaces "kube-system" not found',
        "there is no namespace kube-system: ",
    ),
    (
        "create",
        (
            'Error from server (Forbidden): error when creating "STDIN": pods "x" is forbidden: violates '
            'PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
        ),
        "the namespace admits no privileged pods (PodSecurity baseline:latest): ",
    ),
    (
        "get",
        (
            'Error from server (Forbidden): pods is forbidden: User "jane" cannot list resource "pods" in '
            'API group "" in the namespace "kube-system"'
        ),
        'jane may not list pods in the namespace kube-system: a role there must have {apiGroups: [""], ',
    ),
    ("exec", NO_EXEC, "jane may not create pods/exec in the namespace kube-system: "),
    ("exec", NO_SHELL, "there is no /bin/sh in the container, "),
    (
        "exec",
        'error: unable to upgrade connection: container not found ("agent")',
        "the pod has no container agent that runs: ",
    ),
    (
        "exec",
        "Error from server: error dialing backend: dial tcp 10.0.0.11:10250: connect: no route to host",
        (
            "the API server does not reach the node's kubelet (dial tcp 10.0.0.11:10250: connect: no route "
            "to host): "
        ),
    ),
    ("exec", "error: unknown flag: --nonsense", "kubectl has no option --nonsense: "),
    ("exec", "the wind has changed", "the agent did not start (exit status 1): the wind has changed"),
    ("create", "the wind has changed", "kubectl create failed (exit status 1): the wind has changed"),
]


@pytest.mark.lab
@pytest.mark.parametrize(("verb", "said", "expected"), SAID)
async def test_what_kubectl_says_is_understood(cluster: Cluster, verb: str, said: str, expected: str) -> None:
    """And told with its fix; no Job stays."""
    cluster.breaks(**{verb: said})

    assert (await reason(cluster.host("n1"))).startswith(expected)


PULL: Final = {
    "reason": "ErrImagePull",
    "message": 'failed to pull and unpack image "docker.io/library/python:nope": not found',
}
FAULTS: Final[list[tuple[dict[str, Any], str]]] = [
    (
        {"FailedCreate": 'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest"'},
        "the namespace admits no privileged pods (PodSecurity restricted:latest): ",
    ),
    (
        {"FailedCreate": 'Error creating: pods "x" is forbidden: exceeded quota: few'},
        'the cluster lets no pod for this be made: pods "x" is forbidden: exceeded quota: few',
    ),
    (
        {"NotReady": "Kubelet stopped posting node status."},
        "the node is not ready: Kubelet stopped posting node status.",
    ),
    (
        {"waiting": [{"waiting": PULL}, {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}]},
        (
            "the image cannot be had on the node: failed to pull and unpack image "
            '"docker.io/library/python:nope": not found; '
        ),
    ),
    (
        {
            "waiting": [
                {
                    "terminated": {
                        "reason": "StartError",
                        "message": 'exec: "/bin/sh": stat /bin/sh: no such file or directory',
                    }
                }
            ]
        },
        "there is no /bin/sh in the container, ",
    ),
    (
        {"waiting": [{"waiting": {"reason": "CreateContainerError", "message": "no space"}}]},
        "no container runs on the node n1: ContainerCreating | CreateContainerError: no space",
    ),
    ({"slow": True}, "no container ran on the node n1 within 2 s: ContainerCreating"),
    ({"create": "hangs"}, "kubectl create did not end within 2 s"),
]


@pytest.mark.lab
@pytest.mark.parametrize(("faults", "expected"), FAULTS)
async def test_why_no_container_runs_is_found_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, faults: dict[str, Any], expected: str
) -> None:
    """From the Job's events, the node, and the pod's own state; no Job stays."""
    monkeypatch.setattr(kubectl, "_SOON_S", 0.5)
    monkeypatch.setattr(kubectl, "_CALL_S", 2.0)
    monkeypatch.setattr(kubectl, "ARRANGE_S", 2.0)
    cluster.breaks(**faults)

    assert (await reason(cluster.host("n1"))).startswith(expected)


@pytest.mark.lab
async def test_what_there_is_not_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node, a pod, a container, and kubectl itself."""
    monkeypatch.setattr(kubectl, "_SOON_S", 0.5)

    assert (await reason(cluster.host("n9"))).startswith("there is no node n9: ")
    assert (await reason(cluster.host("n1", pod="gone"))).startswith("there is no pod gone: ")
    with cluster.pod("n1") as pod:
        found = await reason(cluster.host("n1", pod=pod, container="other"))

        assert found.startswith("the pod has no container other that runs: ")
    cluster.kubectl("delete", "job/none")
    monkeypatch.setenv("PATH", "/nonexistent")
    for host in (cluster.host("n1"), cluster.host("n1", pod="p")):
        assert (await reason(host)).startswith(
            "there is no kubectl here that runs (No such file or directory)"
        )


@pytest.mark.lab
@pytest.mark.parametrize("faults", [{"slow": True}, {"create": "hangs"}, {"get": "hangs"}])
async def test_nothing_stays_of_a_start_that_is_cancelled(cluster: Cluster, faults: dict[str, Any]) -> None:
    """Wherever that is."""
    cluster.breaks(**faults)
    async with opened(cluster.host("n1")) as (session, nursery):
        with trio.move_on_after(1.0) as scope:
            await session.start(nursery)

        assert scope.cancelled_caught
        assert [] == cluster.left()


@pytest.mark.lab
async def test_an_api_server_that_hangs_at_the_end_is_not_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not take away goes by itself."""
    async with opened(cluster.host("n1")) as (session, nursery):
        await session.start(nursery)
        cluster.breaks(delete="hangs")
        monkeypatch.setattr(kubectl, "_CALL_S", 0.5)
        with trio.fail_after(TIMEOUT_S / 2):
            await session.end()

        assert "delete" == cluster.calls()[-1][0]


@pytest.mark.lab
async def test_pulling_an_image_is_no_part_of_a_start(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that a start may take begins when the container runs."""
    monkeypatch.setattr(kubectl, "ARRANGE_S", 1.0)
    cluster.breaks(slow=True)

    assert (await reason(cluster.host("n1"), start_s=0.0)).startswith(
        "no container ran on the node n1 within"
    )


@pytest.mark.lab
async def test_a_pod_goes_with_its_agent(cluster: Cluster, tmp_path: Path) -> None:
    """Which is killed: its shell's end of the FIFO closes, and nobody has to delete anything."""
    async with opened(cluster.host("n1", programs.with_number_in(tmp_path / "pid"))) as (session, nursery):
        await session.start(nursery)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

        assert await trio.to_thread.run_sync(cluster.is_empty)
        with pytest.raises(HostLostError, match=r"^the agent ended \(exit status 137\)"):
            await session.request("facts", wire.AskFacts(), wire.Facts, TIMEOUT_S)


@pytest.mark.lab
async def test_a_pod_goes_where_nobody_comes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while."""
    monkeypatch.setattr(kubectl, "_WAIT", kubectl._WAIT.replace(f"sleep {kubectl._UNUSED_S} ", "sleep 0.3 "))
    await kubectl.TRANSPORT.arrange(cluster.host("n1"))  # type: ignore[misc]

    assert await trio.to_thread.run_sync(cluster.is_empty)
    assert ["create", "get"] == [words[0] for words in cluster.calls()]


def _is_written(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


def by_kubectl(lab: Lab) -> Inventory:
    """The lab's inventory, with the hosts as nodes."""
    inventory = lab.inventory()
    connection = Connection(type="kubectl")
    hosts = tuple(msgspec.structs.replace(host, connection=connection) for host in inventory.hosts)
    return msgspec.structs.replace(inventory, hosts=hosts)


@pytest.mark.lab
def test_a_whole_run_is_that_of_another_transport(cluster: Cluster, lab: Lab) -> None:
    """Cell by cell."""
    by_netns = held(trio.run(coordinator.run, lab.inventory(), Settings()))
    found = held(trio.run(coordinator.run, by_kubectl(lab), Settings()))

    assert by_netns == found
    assert len(found) > 10
    assert [] == cluster.left()
    assert {"create", "get", "exec", "delete"} == {words[0] for words in cluster.calls()}


@pytest.mark.lab
@pytest.mark.parametrize(
    ("blow", "faults"),
    [
        (signal.SIGINT, {}),
        (signal.SIGINT, {"slow": True}),
        (signal.SIGTERM, {}),
        (signal.SIGTERM, {"slow": True}),
        (signal.SIGKILL, {}),
    ],
    ids=str,
)
def test_nothing_stays_of_a_run_that_is_cut_off(
    cluster: Cluster, lab: Lab, tmp_path: Path, blow: signal.Signals, faults: dict[str, Any]
) -> None:
    """Nor an agent, nor a Job; those of a run that is killed are taken away by what they are made of."""
    cluster.breaks(**faults)
    inventory = tmp_path / "hosts.yaml"
    numbers = {host.name: tmp_path / host.name for host in by_kubectl(lab).hosts}
    hosts = [
        msgspec.structs.replace(host, python=programs.with_number_in(numbers[host.name]))
        for host in by_kubectl(lab).hosts
    ]
    inventory.write_text(dump(Inventory(hosts=tuple(hosts))))
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "netprobe.cli", "run", str(inventory)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT_DIRECTORY) as run:
        awaited = [] if faults else list(numbers.values())
        while len(cluster.left()) < 2 * len(hosts) or not all(_is_written(path) for path in awaited):
            assert run.poll() is None
        run.send_signal(blow)
        run.communicate(timeout=TIMEOUT_S)

    assert all(is_gone(int(path.read_text())) for path in awaited)
    if blow != signal.SIGKILL:
        assert [] == cluster.left()
    assert cluster.is_empty()


def test_a_session_that_never_started_has_no_place_to_take_away() -> None:
    """A run may be cancelled before."""
    host = Host(name="n1", addresses=("10.0.0.1",), connection=Connection(type="kubectl"))
    trio.run(Session(host).end)
