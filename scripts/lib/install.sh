# shellcheck shell=bash
# Installs what is missing on a bare Debian 12. Debian packages only; the Rust toolchain must be there.

# What is looked for, and the package that brings it.
COMMANDS=(
    gcc:gcc pkg-config:pkg-config python3:python3 jq:jq curl:curl shellcheck:shellcheck
    ip:iproute2 ifconfig:net-tools ping:iputils-ping arping:iputils-arping ethtool:ethtool nft:nftables
    tcpdump:tcpdump tshark:tshark editcap:wireshark-common nginx:nginx-light wrk:wrk ps:procps taskset:util-linux
    dpdk-testpmd:dpdk-dev valgrind:valgrind
    ipvsadm:ipvsadm keepalived:keepalived ldirectord:ldirectord vsftpd:vsftpd
)

install_missing() {
    local package missing=()
    check_rust
    while read -r package; do missing+=("$package"); done < <(missing_packages)
    ((${#missing[@]} > 0)) || return 0
    command -v apt-get >/dev/null || die "please install (this is no Debian, so not done for you): ${missing[*]}"
    title "Installing what is missing: ${missing[*]}"
    forbid_service_starts
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update || warn "apt-get update failed; trying with the lists that are here"
    # One at a time: a package that cannot be had is then named, and the others are installed.
    for package in "${missing[@]}"; do install_package "$package"; done
    allow_service_starts
}

# Needed by `curl | wget`-free machines: rustup's own directory may be missing from PATH under sudo or cron.
check_rust() {
    [[ ! -d $HOME/.cargo/bin ]] || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null ||
        die "no Rust toolchain found (cargo is not in PATH): install it from https://rustup.rs, then run this again"
}

missing_packages() {
    local pair
    for pair in "${COMMANDS[@]}"; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
    is_installed libc6-dev || echo libc6-dev
    is_installed libdpdk-dev || echo libdpdk-dev
    ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 || echo libclang-dev
}

is_installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }

install_package() {
    local started log
    started=$(now_ms)
    log=$(mktemp)
    if as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$1" >"$log" 2>&1 </dev/null; then
        good "$1 ($((($(now_ms) - started) / 1000)) s)"
        case $1 in
            nginx-light) disable_service nginx ;;
            ipvsadm | keepalived | ldirectord | vsftpd) disable_service "$1" ;;
        esac
    else
        tail -n 15 "$log" | quote
        rm -f "$log"
        allow_service_starts
        die "could not install $1"
    fi
    rm -f "$log"
}

# The labs run their own nginx and keepalived in their own namespaces; installing the packages must not start them here.
POLICY=/usr/sbin/policy-rc.d
POLICY_IS_OURS=''

forbid_service_starts() {
    [[ ! -e $POLICY ]] || return 0
    printf '#!/bin/sh\n# uvs: no service starts while its scripts install packages\nexit 101\n' | as_root tee "$POLICY" >/dev/null
    as_root chmod 755 "$POLICY"
    POLICY_IS_OURS=yes
    trap allow_service_starts EXIT
}

allow_service_starts() {
    [[ -n $POLICY_IS_OURS ]] || return 0
    as_root rm -f "$POLICY"
    POLICY_IS_OURS=''
    trap - EXIT
}

# Nor shall a service that came with a package start with this machine.
disable_service() {
    if [[ -d /run/systemd/system ]]; then
        as_root systemctl disable --now "$1" >/dev/null 2>&1 || true
    else
        as_root update-rc.d "$1" disable >/dev/null 2>&1 || true
    fi
}
