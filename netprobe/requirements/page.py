"""
The requirements page, line by line, and which requirements answer for each line.

Calico 3.28, docs.tigera.io/calico/3.28/getting-started/kubernetes/requirements. Headings, and the ports and
protocols of its network requirements, which `netprobe run` answers for, are not among the lines.
"""

from __future__ import annotations

from typing import Final

LINES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "x86-64, arm64, ppc64le, or s390x processor",
        ("arch",),
    ),
    (
        (
            "Calico must be able to manage cali* interfaces on the host. When IPIP is enabled (the default), "
            "Calico also needs to be able to manage tunl* interfaces. When VXLAN is enabled, Calico also "
            "needs to be able to manage thevxlan.calico interface."
        ),
        (
            "device-veth",
            "device-ipip",
            "device-vxlan",
            "cap-net-admin",
        ),
    ),
    (
        (
            "Linux kernel 3.10 or later with required dependencies. The following distributions have the "
            "required kernel, its dependencies, and are known to work well with Calico and Kubernetes."
        ),
        (
            "kernel",
            "distribution",
        ),
    ),
    (
        "RedHat Linux 7",
        ("distribution",),
    ),
    (
        "CentOS 7",
        ("distribution",),
    ),
    (
        "Flatcar Container Linux",
        ("distribution",),
    ),
    (
        "Fedora CoreOS",
        ("distribution",),
    ),
    (
        "Ubuntu 18.04",
        ("distribution",),
    ),
    (
        "Debian 8",
        ("distribution",),
    ),
    (
        (
            "Many Linux distributions, such as most of the above, include NetworkManager. By default, "
            "NetworkManager does not allow Calico to manage interfaces. If your nodes have NetworkManager, "
            "complete the steps in Preventing NetworkManager from controlling Calico interfaces before "
            "installing Calico."
        ),
        ("networkmanager",),
    ),
    (
        (
            "If your Linux distribution comes with installed Firewalld or another iptables manager it should "
            "be disabled. These may interfere with rules added by Calico and result in unexpected behavior."
        ),
        (
            "firewalld",
            "iptables-managers",
        ),
    ),
    (
        (
            "If a host firewall is needed, it can be configured by Calico HostEndpoint and "
            "GlobalNetworkPolicy. More information about configuration at Security for host."
        ),
        (
            "firewalld",
            "iptables-managers",
        ),
    ),
    (
        (
            "Calico requires a key/value store accessible by all Calico components. On Kubernetes, you can "
            "configure Calico to access an etcdv3 cluster directly or to use the Kubernetes API datastore."
        ),
        ("datastore",),
    ),
    (
        "Ensure that Calico has the CAP_SYS_ADMIN privilege.",
        ("cap-sys-admin",),
    ),
    (
        (
            "The simplest way to provide the necessary privilege is to run Calico as root or in a privileged "
            "container."
        ),
        (
            "cap-sys-admin",
            "user-namespace",
        ),
    ),
    (
        (
            "When installed as a Kubernetes daemon set, Calico meets this requirement by running as a "
            "privileged container. This requires that the kubelet be allowed to run privileged containers. "
            "There are two ways this can be achieved."
        ),
        ("privileged-pods",),
    ),
    (
        (
            "We test Calico v3.28 against the following Kubernetes versions. Other versions may work, but we "
            "are not actively testing them."
        ),
        ("kubernetes-version",),
    ),
    (
        "v1.27",
        ("kubernetes-version",),
    ),
    (
        "v1.28",
        ("kubernetes-version",),
    ),
    (
        "v1.29",
        ("kubernetes-version",),
    ),
    (
        "v1.30",
        ("kubernetes-version",),
    ),
    (
        (
            "Due to changes in the Kubernetes API, Calico v3.28 will not work on Kubernetes v1.20 or below. "
            "v1.21 may work, but is no longer tested. Newer versions may also work, but we recommend "
            "upgrading to a version of Calico that is tested against the newer Kubernetes version."
        ),
        ("kubernetes-version",),
    ),
    (
        "Calico must be installed as a CNI plugin in the container runtime.",
        (
            "cni-conf-dir",
            "cni-bin-dir",
        ),
    ),
    (
        (
            "This installation must use the Kubernetes default CNI configuration directory (/etc/cni/net.d) "
            "and binary directory (/opt/cni/bin)."
        ),
        (
            "cni-conf-dir",
            "cni-bin-dir",
        ),
    ),
    (
        "Generally, you cannot use Calico together with another network provider.",
        ("other-provider",),
    ),
    (
        "Notable exceptions include the following:",
        ("other-provider",),
    ),
    (
        "If you're working with a cluster that already uses another CNI, you cannot migrate to Calico.",
        ("other-provider",),
    ),
    (
        "Calico supports the following kube-proxy modes:",
        ("kube-proxy-mode",),
    ),
    (
        "iptables (default)",
        ("kube-proxy-mode",),
    ),
    (
        "ipvs Requires Kubernetes v1.9.3. Refer to Use IPVS kube-proxy for more details.",
        ("kube-proxy-mode",),
    ),
    (
        (
            "The IP range selected for pod IP addresses cannot overlap with any other IP ranges in your "
            "network, including:"
        ),
        ("ip-pool-overlap",),
    ),
    (
        "The Kubernetes service cluster IP range",
        ("ip-pool-overlap",),
    ),
    (
        "The range from which host IPs are allocated",
        ("ip-pool-overlap",),
    ),
    (
        (
            "Note that Kubernetes version 1.16+ requires Istio version 1.2 or greater. Note that Istio "
            "version 1.9 requires Kubernetes version 1.17-1.20. Note that Istio version 1.10 is supported on "
            "Kubernetes version 1.18-1.21, but has been tested on Kubernetes version 1.22."
        ),
        ("istio",),
    ),
    (
        "If you are using one of the recommended distributions, you will already satisfy these.",
        ("distribution",),
    ),
    (
        (
            "Due to the large number of distributions and kernel version out there, it's hard to be precise "
            "about the names of the particular kernel modules that are required to run Calico. However, in "
            "general, you'll need:"
        ),
        (
            "kernel",
            "iptables",
        ),
    ),
    (
        (
            "The iptables modules (both the “legacy” and “nft” variants are supported). These are typically "
            "broken up into many small modules, one for each type of match criteria and one for each type of "
            "action. Calico requires:"
        ),
        ("iptables",),
    ),
    (
        "The “base” modules (including the IPv6 versions if IPv6 is enabled in your cluster).",
        (
            "table-filter",
            "table-nat",
            "table-mangle",
            "table-raw",
        ),
    ),
    (
        (
            "At least the following match criteria: set,rpfilter, addrtype, comment,conntrack, icmp, "
            "tcp,udp, ipvs, icmpv6 (if IPv6 is enabled in your kernel), mark, multiport,rpfilter, sctp, ipvs "
            "(if usingkube-proxy in IPVS mode)."
        ),
        (
            "match-set",
            "match-rpfilter",
            "match-addrtype",
            "match-comment",
            "match-conntrack",
            "match-icmp",
            "match-tcp",
            "match-udp",
            "match-ipvs",
            "match-icmpv6",
            "match-mark",
            "match-multiport",
            "match-sctp",
        ),
    ),
    (
        "At least the following actions: REJECT,ACCEPT, DROP, LOG.",
        (
            "target-REJECT",
            "target-ACCEPT",
            "target-DROP",
            "target-LOG",
        ),
    ),
    (
        "IP sets support.",
        ("ipset",),
    ),
    (
        "Netfilter Conntrack support compiled in (with SCTP support if using SCTP).",
        (
            "conntrack",
            "conntrack-sctp",
        ),
    ),
    (
        "IPVS support if using kube-proxy in IPVS mode.",
        ("ipvs",),
    ),
    (
        "IPIP, VXLAN, Wireguard support, if using Caliconetworking in one of those modes.",
        (
            "device-ipip",
            "device-vxlan",
            "device-wireguard",
        ),
    ),
    (
        "eBPF (including the tc hook support) and XDP (if you want to use the eBPF dataplane).",
        (
            "ebpf-tc",
            "xdp",
        ),
    ),
)
"""Each line with the ids of its requirements; blanks are one, bullets none, apostrophes straight."""
