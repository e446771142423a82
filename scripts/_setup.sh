# shellcheck shell=bash
# Sourced by the scripts beside it: makes a bare Debian 12 or Ubuntu 22.04 ready to run netprobe, and costs
# next to nothing when it is ready already. Nothing outside this directory is written, but for the packages.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

# nft, sshd and others live where a user's PATH may not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# pip and scapy keep caches: beside the environment, not in the user's home.
export XDG_CACHE_HOME="${XDG_CACHE_HOME:-$venv/.cache}"

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$*"
    exit 2
}

# The first interpreter that is new enough, newest name last: what the distribution calls python3 is the one
# whose venv package is at hand.
find_python() {
    local candidate
    for candidate in python3 python3.10 python3.11 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# What the tests run besides Python, COMMAND:PACKAGE as `setup` takes them.
# shellcheck disable=SC2034  # used by those that source this
programs_of_tests=(
    ip:iproute2 nft:nftables iptables:iptables ipset:ipset conntrack:conntrack tcpdump:tcpdump
    ssh:openssh-client sshd:openssh-server ssh-keygen:openssh-client sudo:sudo ps:procps unshare:util-linux
    bird:bird2 birdc:bird2 gobgpd:gobgpd gobgp:gobgpd etcd:etcd-server openssl:openssl
    wireguard-go:wireguard-go wg:wireguard-tools
    ansible-inventory:ansible-core ansible-playbook:ansible-core vagrant:vagrant ruby:ruby
    fish:fish tcsh:tcsh zsh:zsh busybox:busybox doas:opendoas podman:podman
    faketime:faketime ethtool:ethtool firewalld:firewalld dbus-daemon:dbus-daemon gdbus:libglib2.0-bin
)

# The services of packages that are installed for their programs alone.
declare -A units_of=(
    [openssh-server]="ssh.service ssh.socket"
    [bird2]=bird.service
    [gobgpd]=gobgpd.service
    [etcd-server]=etcd.service
    [firewalld]=firewalld.service
)

# Installs packages as root; tells the user how to otherwise. Fails only where apt itself does.
install_packages() {
    if ! command -v apt-get >/dev/null; then
        say "missing, and this is no Debian or Ubuntu; please install what they call: $*"
        return
    fi
    if ((EUID != 0)); then
        say "missing; to install them: sudo apt-get install --no-install-recommends $*"
        return
    fi
    say "installing $*"
    # Packages of servers start and enable them; we want the programs, not the services.
    local policy=/usr/sbin/policy-rc.d status=0 package unit
    (
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"
    ) >&2 </dev/null || status=$?
    if command -v systemctl >/dev/null; then
        for package in "$@"; do
            for unit in ${units_of[$package]:-}; do
                systemctl --quiet disable "$unit" 2>/dev/null || true
            done
        done
    fi
    return "$status"
}

# setup EXTRA COMMAND:PACKAGE...
# Sees to it that each COMMAND is there (from PACKAGE), and that the environment .venv has netprobe with EXTRA
# (`dev`, or nothing) as pyproject.toml says it. An environment that is as it says is not touched.
setup() {
    local extra=$1 tool python="" version stamp wanted
    shift
    local -a packages=()
    for tool in "$@"; do
        command -v "${tool%%:*}" >/dev/null || packages+=("${tool#*:}")
    done

    # One at a time: two scripts started at once would both install. The lock is on the directory itself.
    exec 9<"$root"
    flock 9

    wanted=$(sha256sum <"$root/pyproject.toml")
    stamp=$venv/.netprobe-${extra:-run}
    # What serves development serves a run as well.
    if [[ -z $extra && $(cat "$venv/.netprobe-dev" 2>/dev/null) == "$wanted" ]]; then
        stamp=$venv/.netprobe-dev
    fi
    local fresh=""
    if "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        fresh=old
        [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]] || fresh=yes
    fi

    if [[ -z $fresh ]]; then
        if ! python=$(find_python); then
            command -v python3 >/dev/null || packages+=(python3 python3-venv)
        elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
            packages+=("python$version-venv")
        fi
    fi
    if ((${#packages[@]})); then
        install_packages "${packages[@]}" || die "apt could not install: ${packages[*]}"
    fi
    if [[ -z $fresh ]]; then
        python=$(find_python) || die "no Python 3.10 or newer: python3 is" \
            "$(python3 --version 2>&1 || true); install python3.10 or newer, and its -venv package"
        say "creating $venv with $("$python" --version)"
        "$python" -m venv --clear "$venv" || die "could not create $venv"
    fi
    if [[ $fresh != yes ]]; then
        say "installing netprobe and what it needs into $venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            --editable "$root${extra:+[$extra]}" >&2 || die "pip could not install netprobe"
        printf '%s\n' "$wanted" >"$stamp"
    fi
    exec 9<&-
    # scapy makes the directory of its configuration where there is none. Not before: pip's has the user's index.
    export XDG_CONFIG_HOME="$venv/.config"
}
