# shellcheck shell=bash
# LVS's own tools in a lab: ipvsadm by its plain word (the wrapper is first in PATH), keepalived through `uvsctl exec`.

# What ipvsadm shows, in numbers.
listing() { on "${1:-director}" 'ipvsadm -Ln'; }

# The servers of SERVICE as ipvsadm shows them: ADDRESS:PORT and weight, a line each.
servers_of() {
    listing "${2:-director}" |
        awk -v service="$1" '$1 ~ /^(TCP|UDP|SCTP|FWM)$/ { found = ($2 == service) } $1 == "->" && found { print $2, $4 }'
}

# has_server SERVICE SERVER [WEIGHT]: SERVER, such as r64, is there (with that weight).
has_server() { servers_of "$1" | grep -Eqx "$(real_server "$1" "$2") ${3:-[0-9]+}"; }

# lacks_server SERVICE SERVER: it is not, and ipvsadm did answer.
lacks_server() {
    local servers
    servers=$(servers_of "$1") && ! grep -q "^$(real_server "$1" "$2") " <<<"$servers"
}

no_service() { [[ $(listing "${1:-director}" | grep -cE '^(TCP|UDP|SCTP|FWM)') == 0 ]]; }

declare -A KEEPALIVED_PIDS=()

# Starts keepalived as it is on HOST; its configuration is in $LAB/keepalived-HOST.conf, its log beside it.
keepalived_up() {
    local host=$1
    on_background "$host" uvsctl exec -- keepalived --dont-fork --log-console --log-detail \
        --use-file "$LAB/keepalived-$host.conf" --pid "$LAB/keepalived-$host.pid" \
        --checkers_pid "$LAB/keepalived-$host-checkers.pid" --vrrp_pid "$LAB/keepalived-$host-vrrp.pid" \
        >>"$LAB/keepalived-$host.log" 2>&1
    KEEPALIVED_PIDS[$host]=$!
}

keepalived_gone() { ! kill -0 "${KEEPALIVED_PIDS[$1]}" 2>/dev/null; }

# keepalived_ends SIGNAL HOST: sends it the signal and waits for its end, without the shell's word about a kill.
keepalived_ends() {
    local pid=${KEEPALIVED_PIDS[$2]}
    kill "-$1" "$pid"
    if [[ $1 != KILL ]]; then wait_until 10 keepalived_gone "$2" || die "keepalived on $2 does not end"; fi
    wait "$pid" 2>/dev/null || true
}

# A line that keepalived logged on HOST.
keepalived_said() { grep -qE "$2" "$LAB/keepalived-$1.log"; }
