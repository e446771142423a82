"""
The rules for what keeps us from a pod, and for connections to one that drop.

The messages are those of kubectl's pkg/cmd and client-go, of the API server, the Job controller, kubelet and
runc; lines that begin with a reason and a colon are made of what an object of the API says of itself.
"""

from __future__ import annotations

from typing import Final

from netprobe.failures.story import Rule

_REFUSES: Final = r"dial tcp (?P<to>\S+): connect: connection refused"
_NO_API: Final = (
    r"i/o timeout|TLS handshake timeout|deadline exceeded|Client\.Timeout exceeded|request canceled"
)
_FORBIDDEN: Final = (
    r'is forbidden: User "(?P<who>[^"]+)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" '
    r'in API group "(?P<group>[^"]*)" '
)
_MAY_NOT: Final = "{who} may not {verb} {resource} in "
_ROLE: Final = (
    ': a role there must have {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
)

LOGIN: Final = (
    Rule(
        r"error dialing backend: (?P<what>.+)",
        "the API server does not reach the node's kubelet ({what}): TCP port 10250 must be open to it",
    ),
    Rule(
        r"^cannot run kubectl: (?P<error>.+)",
        "there is no kubectl here that runs ({error}): install it, or have it on the PATH",
    ),
    Rule(
        r'context (?:was not found for specified context: |"(?=.*" does not exist))(?P<name>[^"\n]+)',
        "there is no context {name}: name one of `kubectl config get-contexts` as connection.context",
    ),
    Rule(
        r"^error: stat (?P<file>.+): no such file or directory",
        "there is no {file}: correct connection.kubeconfig, or what KUBECONFIG says",
    ),
    Rule(
        r"no configuration has been provided|localhost:8080\b",
        "kubectl has no configuration: say where it is with connection.kubeconfig or KUBECONFIG",
    ),
    Rule(
        r"getting credentials: (?P<what>.+)",
        "kubectl gets no credentials ({what}): log in again, or install what its configuration names",
    ),
    Rule(
        r"Please enter Username|asked for the client to provide credentials|\(Unauthorized\)|: Unauthorized$",
        "the API server does not know who we are: log in again, or correct connection.context and "
        "connection.kubeconfig",
    ),
    Rule(
        rf"The connection to the server (?P<server>\S+) was refused|{_REFUSES}",
        "the API server at {server}{to} refuses the connection: is connection.context right?",
    ),
    Rule(
        r"(?P<error>x509: .+)",
        "kubectl does not trust the API server ({error}): correct connection.context, or its certificates",
    ),
    Rule(
        rf"^(?:.*dial tcp (?P<server>\S+): )?.*(?:{_NO_API})",
        "no answer from the API server {server}: is it up, and the way there open (a firewall, a VPN)?",
    ),
    Rule(
        r'^(?:Unable to connect to the server|error: unable to recognize "STDIN": Get "\S+"): (?P<error>.+)',
        "no way to the API server ({error}): is connection.context right?",
    ),
    Rule(
        r"^(?:FailedCreate: |Error from server).*violates PodSecurity \"(?P<level>[^\"]+)\"",
        "the namespace admits no privileged pods (PodSecurity {level}): name one that does with "
        "connection.namespace, or label it pod-security.kubernetes.io/enforce=privileged",
    ),
    Rule(rf"{_FORBIDDEN}at the cluster scope", f"{_MAY_NOT}the cluster{_ROLE}"),
    Rule(
        rf'{_FORBIDDEN}in the namespace "(?P<namespace>[^"]+)"',
        f"{_MAY_NOT}the namespace {{namespace}}{_ROLE}",
    ),
    Rule(
        r"^FailedCreate: (?:Error creating: )?(?P<what>.+)",
        "the cluster lets no pod for this be made: {what}",
    ),
    Rule(
        r"namespaces \"(?P<name>[^\"]+)\" not found",
        "there is no namespace {name}: correct connection.namespace",
    ),
    Rule(
        r"nodes \"(?P<name>[^\"]+)\" not found",
        "there is no node {name}: name it as `kubectl get nodes` does, with connection.node",
    ),
    Rule(r"^NotReady: (?P<what>.*)", "the node is not ready: {what}"),
    Rule(
        r"pods \"(?P<name>[^\"]+)\" not found",
        "there is no pod {name}: correct connection.pod, connection.namespace or connection.context",
    ),
    Rule(
        r"container (?:not found \(\")?(?P<name>[^\s\"]+)(?: is not valid for pod| not found in pod|\"\))",
        "the pod has no container {name} that runs: correct connection.container",
    ),
    Rule(
        r"cannot exec into a container in a completed pod; current phase is (?P<phase>\S+)",
        "the pod does not run any longer: its phase is {phase}",
    ),
    Rule(
        r"^(?:ErrImagePull|InvalidImageName|ErrImageNeverPull|ImagePullBackOff): (?P<what>.+)",
        "the image cannot be had on the node: {what}; name another one with connection.image",
    ),
    Rule(
        r"exec: \"(?P<what>[^\"]+)\": (?:stat \S+: no such file or directory|executable file not found)",
        "there is no {what} in the container, which is needed to start the agent: take another image",
    ),
    Rule(
        r"^[Ee]rror: unknown (?:shorthand )?flag: (?P<what>.+)",
        "kubectl has no option {what}: see connection.options",
    ),
)

# kubectl's pkg/cmd/exec, and client-go's streams.
DROPPED: Final = (
    Rule(
        r"^[Ee]rror: (?P<what>.*(?:websocket|unexpected EOF|error stream|connection).*)",
        "the connection to {where} dropped: {what}",
    ),
)
