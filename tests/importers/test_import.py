"""`netprobe inventory import` as a user sees it: what is written, what is refused, and what is run for it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from netprobe.cli import app
from netprobe.inventory import loads
from netprobe.model import Role

HERE: Final = Path(__file__).parent
GOLDEN: Final = HERE / "golden"

WITH_ANSIBLE: Final = pytest.mark.skipif(
    shutil.which("ansible-inventory") is None, reason="no ansible-inventory"
)
WRITTEN: Final = {
    "kubespray": ("ansible", "kubespray.ini"),
    "kubespray-chosen": (
        *("ansible", "kubespray.ini", "--role", "etcd=none"),
        *("--role", "k8s_cluster=node,typha", "--address-var", "access_ip", "--address-var", "ip"),
    ),
    "containers": ("ansible", "containers.yaml"),
    "kubeadm": ("kubectl", "kubeadm-dual-stack.json", "--user", "ops", "--sudo", "--stacked-etcd"),
    "kubeadm-chosen": (
        *("kubectl", "kubeadm-dual-stack.json", "--connect-to", "name"),
        *("--role", "cp-1=none", "--role", "worker-2=node,typha"),
    ),
    "k3s": ("kubectl", "k3s.json"),
    "hosts": ("hosts", "hosts.txt"),
}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE / "sources")


def script(directory: Path, name: str, *, out: str = "", err: str = "", status: int = 0) -> Path:
    """A program that stands for another one: it notes its arguments, and says what it is told to."""
    log = directory / f"{name}.json"
    program = directory / name
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(log)!r}, 'w').write(json.dumps([sys.argv[1:], sys.stdin.read()]))\n"
        f"sys.stdout.write({out!r})\nsys.stderr.write({err!r})\nsys.exit({status})\n"
    )
    program.chmod(0o755)
    return log


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs are found first."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is said of an import that is not made."""
    assert 2 == app.status_of(["inventory", "import", *arguments])
    out, err = capsys.readouterr()
    assert "" == out
    assert all(line.startswith("netprobe: error: ") for line in err.splitlines())
    return [line.removeprefix("netprobe: error: ") for line in err.splitlines()]


@WITH_ANSIBLE
@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_as_it_was_read_and_approved(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """
    Each source becomes the file in tests/importers/golden, with the real ansible-inventory, and `netprobe
    inventory check` accepts it.
    """
    assert 0 == app.status_of(["inventory", "import", *WRITTEN[name]])
    written, errors = capsys.readouterr()
    (tmp_path / "hosts.yaml").write_text(written, encoding="utf-8")

    assert "" == errors
    assert (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8") == written
    assert 0 == app.status_of(["inventory", "check", str(tmp_path / "hosts.yaml")])


@WITH_ANSIBLE
def test_what_cannot_be_imported_from_ansible_is_told_by_host_and_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Templates, vaults, hosts without an address, connections that there are none of, words that do not end and
    passwords in the wrong place: a line for each with its fix, and no password in any.
    """
    template = "is a template; Ansible renders it when a play runs, not here; write its value"
    key = "use a key, or an agent"
    name = "--address-var NAME names the variable that has it"
    variables = "ip, ip6, ipv6, access_ip, access_ip6, node_ip"
    expected = """\
encrypted: ansible_user: it is encrypted by ansible-vault, and would be written in plain; set it in plain
handed: ansible_ssh_common_args: it runs sshpass; netprobe hands no password to ssh; KEY
network: ip: "10.0.0.4/24" has a prefix length; write the host's address alone: "10.0.0.4"; NAME
nowhere: no address to probe, and names are not resolved here; set one of VARIABLES, or name the variable \
that has it by --address-var
ported: ansible_port: expected a port from 1 to 65535, got "99999"
proxied: proxy_password: its value is in another variable that would be written; netprobe takes no passwords \
from inventories; KEY
templated: ip: "{{ ansible_default_ipv4.address }}" TEMPLATE
templated: ansible_user: "{{ lookup('env', 'USER') }}" TEMPLATE
unquoted: ansible_ssh_extra_args: no words of a shell: no closing quotation
windows: ansible_connection: "winrm" is none that netprobe knows; expected one of ssh, local, docker, \
docker_api, podman
"""
    for word, text in {"KEY": key, "NAME": name, "VARIABLES": variables, "TEMPLATE": template}.items():
        expected = expected.replace(word, text)

    told = refused(["ansible", "broken.yaml"], capsys)
    assert [f"broken.yaml: {line}" for line in expected.splitlines()] == told
    assert "hunter2" not in "".join(told)


@WITH_ANSIBLE
def test_what_ansible_cannot_read_is_told_in_its_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """
    A file that is no inventory is one line: what was run, how it ended, what it said, the fix.
    """
    path = tmp_path / "hosts.yaml"
    path.write_text("all: [\n")
    (line,) = refused(["ansible", str(path)], capsys)

    assert line.startswith(f"`ansible-inventory -i {path} --list`: exit status 1: ")
    assert "No inventory was parsed" in line
    assert line.endswith("run it by itself to see why; ANSIBLE_VAULT_PASSWORD_FILE is for what is encrypted")


def test_what_ansible_wrote_before_is_read_without_ansible(
    programs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A file with the JSON of `ansible-inventory --list` is recognised as what it is; the same on stdin.
    """
    hosts = {"a": {"ip": "10.0.0.1"}, "b": {"ip": "10.0.0.2"}}
    path = programs / "list.json"
    path.write_text(json.dumps({"_meta": {"hostvars": hosts}, "all": {"children": ["ungrouped"]}}))
    monkeypatch.setenv("PATH", str(programs))

    assert 0 == app.status_of(["inventory", "import", "ansible", str(path), "--sudo"])
    assert ["a", "b"] == [host.name for host in loads(capsys.readouterr().out).hosts]


def test_a_warning_of_ansible_stands_in_the_file(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Where it could parse a part only, whoever reads the inventory hears of it.
    """
    hosts = {"a": {"ip": "10.0.0.1"}, "b": {"ip": "10.0.0.2"}}
    listing = json.dumps({"_meta": {"hostvars": hosts}})
    warning = "[WARNING]:  * Failed to parse\n/inventories/notes with ini plugin\n"
    log = script(programs, "ansible-inventory", out=listing, err=warning)

    assert 0 == app.status_of(["inventory", "import", "ansible", "a,b,"])
    assert [["-i", "a,b,", "--list"], ""] == json.loads(log.read_text())
    assert (
        "# - ansible-inventory warns: * Failed to parse /inventories/notes with ini plugin"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "argv"),
    [
        ([], ["get", "nodes", "-o", "json", "--request-timeout=30s"]),
        (
            ["--context", "prod", "--kubeconfig", "/k/c"],
            ["--kubeconfig=/k/c", "--context=prod", "get", "nodes", "-o", "json", "--request-timeout=30s"],
        ),
    ],
    ids=["as set up", "chosen"],
)
def test_kubectl_is_asked_for_the_nodes(
    arguments: list[str], argv: list[str], programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Without a file kubectl is run, with the context and the configuration that were chosen, and without stdin.
    """
    log = script(programs, "kubectl", out=Path("k3s.json").read_text(encoding="utf-8"))

    assert 0 == app.status_of(["inventory", "import", "kubectl", *arguments])
    assert [argv, ""] == json.loads(log.read_text())
    made = loads(capsys.readouterr().out)
    assert (Role.NODE, Role.APISERVER, Role.ETCD) == made.hosts[0].roles


def test_a_program_that_fails_is_told_in_its_own_last_words(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    As much as is worth reading: whole lines from the end.
    """
    script(programs, "kubectl", err="noise " * 110 + "\nThe connection was refused.\n", status=1)
    expected = (
        "`kubectl get nodes -o json --request-timeout=30s`: exit status 1: The connection was refused; "
        "--context and --kubeconfig choose the cluster"
    )

    assert [expected] == refused(["kubectl"], capsys)


@pytest.mark.parametrize(
    ("command", "program", "package"),
    [
        (["ansible", "kubespray.ini"], "ansible-inventory -i kubespray.ini --list", "ansible-core"),
        (["kubectl"], "kubectl get nodes -o json --request-timeout=30s", "kubectl"),
        (["vagrant"], "vagrant ssh-config", "vagrant"),
    ],
    ids=["ansible", "kubectl", "vagrant"],
)
def test_a_program_that_is_not_there_is_named_with_its_package(
    command: list[str],
    program: str,
    package: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """
    And that its output in a file will do.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    name = program.partition(" ")[0]
    fix = f"install {package}, or give its output in a file"
    expected = f"`{program}`: {name} is not installed here; {fix}"

    assert [expected] == refused(command, capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["kubectl", "pods.json"],
            ["pods.json: expected a list of nodes (`kubectl get nodes -o json`), got a List of Pod"],
        ),
        (
            ["kubectl", "broken-nodes.json"],
            [
                "broken-nodes.json: no-address: it has no InternalIP",
                'broken-nodes.json: cloud: its InternalIP "169.254.7.7" is none to probe',
            ],
        ),
        (
            ["kubectl", "k3s.json", "--role", "k3s-c=node"],
            ['k3s.json: no node "k3s-c"; did you mean "k3s-b"?'],
        ),
        (
            ["kubectl", "k3s.json", "--role", "k3s-b=none"],
            ["k3s.json: hosts: expected at least two hosts, got 1"],
        ),
        (["kubectl", "nowhere.json"], ["nowhere.json: cannot read it: No such file or directory"]),
        (["ansible", "nowhere.ini"], ["nowhere.ini: cannot read it: No such file or directory"]),
        (["hosts", "."], [".: cannot read it: Is a directory"]),
        (
            ["vagrant", "--ssh-config", "broken-hosts.txt"],
            [
                'broken-hosts.txt:1: expected a key and its value, got "node-a 10.0.0.1"',
                'broken-hosts.txt:2: expected a key and its value, got "node-b"',
            ],
        ),
        (
            ["vagrant", "--ssh-config", "vagrant-ssh-config", "node-4"],
            ['vagrant-ssh-config: no machine "node-4"; did you mean "node-3"?'],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_told_with_its_place(
    arguments: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The source, the host or the line, and what was expected; nothing is written.
    """
    assert expected == refused(arguments, capsys)[: len(expected)]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--role", "cp-1"], "expected NODE=ROLE[,ROLE], got 'cp-1'."),
        (["--role", "cp-1=nod"], '\'cp-1=nod\': no role "nod"; did you mean "node"?'),
        (["--role", "cp-1=node", "--role", "cp-1=etcd"], "'cp-1' is there twice."),
    ],
    ids=["no role", "unknown", "twice"],
)
def test_a_role_that_makes_no_sense_is_a_usage_error(
    option: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    With the word that was typed, and what was expected.
    """
    assert 2 == app.status_of(["inventory", "import", "kubectl", "kubeadm-dual-stack.json", *option])
    told = capsys.readouterr().err.splitlines()[0]
    assert f"netprobe: error: Invalid value for '--role': {expected}" == told


def test_a_file_and_a_cluster_are_not_both_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """
    `--context` with a file is a usage error.
    """
    assert 2 == app.status_of(["inventory", "import", "kubectl", "k3s.json", "--context", "prod"])
    assert (
        "--context and --kubeconfig are for kubectl, and with FILE it is not run." in capsys.readouterr().err
    )


def test_every_wrong_line_of_a_list_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """
    With its number, in the order of the file.
    """
    expected = {
        2: '"node-b" has no address, and names are not resolved here',
        3: 'expected an IPv4 or IPv6 address, got "10.0.0.999"',
        4: "10.0.0.5 stands behind a name; expected the addresses first, or else the name",
        5: 'no role "worker"; expected one of node, typha, apiserver, etcd',
        6: 'expected a name of letters, digits, "_", "." and "-" that does not begin with "." or "-", '
        'got "-x"',
        7: '"127.0.0.1" is a loopback address, which no other host can reach',
        8: "expected a name and addresses, got only roles",
        9: '"node-a" has an IPv4 address in line 1; expected one line for each family',
        10: '"roles=etcd": the line has roles already',
        11: 'expected an IPv4 or IPv6 address, got "role=node"',
    }

    told = [f"broken-hosts.txt:{number}: {line}" for number, line in expected.items()]
    assert told == refused(["hosts", "broken-hosts.txt"], capsys)


def test_what_only_the_whole_can_tell_is_told_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nobody has the file whose lines and numbers the inventory's own errors speak of.
    """
    path = tmp_path / "list"
    path.write_text("a 10.0.0.1\nb 10.0.0.2 10.0.0.1\n")
    expected = f'{path}: b: addresses[1]: duplicate address "10.0.0.1"; a has it'

    assert [expected] == refused(["hosts", str(path)], capsys)


def test_the_result_goes_to_a_file_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    `-o` writes it, the comment names the command without it, and what is refused leaves the file alone.
    """
    path = tmp_path / "hosts.yaml"
    assert 0 == app.status_of(["inventory", "import", "hosts", "hosts.txt", "--user", "ops", "-o", str(path)])
    written = path.read_text(encoding="utf-8")
    assert "#   netprobe inventory import hosts --user ops hosts.txt\n" in written

    refused(["hosts", "broken-hosts.txt", "-o", str(path)], capsys)
    assert written == path.read_text(encoding="utf-8")


def test_a_hostile_listing_is_refused_without_a_word_on_this_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What nests without end, a name of many digits, names over several lines, a file that cannot be read.
    """
    digits, lines = "n" + "1" * 5000, "a\nb\u2028"
    variables = {digits: {"ip": "10.0.0.1"}, lines: {"ip": "10.0.0.2"}}
    (tmp_path / "names.json").write_text(json.dumps({"_meta": {"hostvars": variables}}))
    (tmp_path / "deep.json").write_text('{"_meta":' + "[" * 200_000)
    told = refused(["ansible", str(tmp_path / "names.json")], capsys)
    (unread,) = refused(["ansible", "/proc/self/mem"], capsys)

    assert [True, True] == [line.startswith(f"{tmp_path}/names.json: ") for line in told]
    assert r"names.json: a\nb\u2028: its name: expected a name of letters" in told[0] + told[1]
    assert "/proc/self/mem: cannot read it: Input/output error" == unread
    assert 1 == len(refused(["ansible", str(tmp_path / "deep.json")], capsys))


def test_a_password_of_digits_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Without quotes it is a number in YAML, and stands in other variables all the same.
    """
    words = "-oProxyCommand='proxy -P 12345678 %h'"
    secret = {"ip": "10.0.0.1", "proxy_password": 12345678, "ansible_ssh_common_args": words}
    listing = {"_meta": {"hostvars": {"a": secret, "b": {"ip": "10.0.0.2"}}}}
    path = tmp_path / "listing.json"
    path.write_text(json.dumps(listing))
    (line,) = refused(["ansible", str(path)], capsys)

    assert line.startswith(f"{path}: a: proxy_password: its value is in another variable")
    assert "12345678" not in line
