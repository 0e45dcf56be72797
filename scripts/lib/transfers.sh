# shellcheck shell=bash
# shellcheck disable=SC2034 # set here, read by the scenarios
# Large transfers both ways with their hashes.

# The port where uploads are answered with their hash.
UPLOAD_PORT=8090
LARGE_BYTES=100000000
# For a transfer that shall last a few seconds.
SLOW_BYTES=20000000
SLOW_RATE=8M

# Files on the servers and on the client (one folder), and who takes uploads; the services for them too.
transfers_up() {
    local server
    head -c "$LARGE_BYTES" /dev/urandom >"$LAB/shared/files/large"
    head -c "$SLOW_BYTES" "$LAB/shared/files/large" >"$LAB/shared/files/slow"
    for server in "${SERVERS[@]}"; do start_tool "$server" "digest-$server" "$TOOLS/digest.py" "$UPLOAD_PORT"; done
    on director "set -e; ipvsadm -A -t $VIRTUAL:$UPLOAD_PORT -s rr"
    for server in "${SERVERS[@]}"; do
        on director "ipvsadm -a -t $VIRTUAL:$UPLOAD_PORT -r $(server_address "$server"):$UPLOAD_PORT $METHOD"
    done
    LARGE_HASH=$(hash_of "$LAB/shared/files/large")
    SLOW_HASH=$(hash_of "$LAB/shared/files/slow")
}

hash_of() { sha256sum "$@" | cut -d ' ' -f 1; }

# download FILE [HOST [curl options]]: its hash as it arrived.
download() {
    on "${2:-client}" "set -o pipefail; curl -sS -g -m 30 ${*:3} http://$VIRTUAL/files/$1 | sha256sum" | cut -d ' ' -f 1
}

# upload FILE [HOST [curl options]]: the hash that the server answered.
upload() {
    on "${2:-client}" "curl -sS -g -m 30 -H Expect: ${*:3} -T $LAB/shared/files/$1 http://$VIRTUAL:$UPLOAD_PORT/"
}

# both_ways FILE HASH: each server gives and takes it whole; says how fast.
both_ways() {
    local direction started
    for direction in download upload download upload; do
        started=$(now_ms)
        [[ $("$direction" "$1") == "$2" ]] || return 1
        quiet_note "$direction: $(($(stat -c %s "$LAB/shared/files/$1") / 1000 / ($(now_ms) - started + 1))) MB/s"
    done
}

# HOST's receive buffers hold a megabyte. Linux lets them grow to 32 MB: a download at a limited rate is there as a whole before
# its reader has begun, and whatever happens to the path then goes by unnoticed.
keep_buffers_small() { on "$1" 'echo "4096 131072 1048576" >/proc/sys/net/ipv4/tcp_rmem'; }

# wrk on the service, kept connections and a connection each; no request may fail.
load_both_ways() {
    load keep "http://$VIRTUAL/"
    claim "wrk, kept connections: $RATE requests/s, p99 $P99, $ERRORS errors" holds "ERRORS == 0"
    load close "http://$VIRTUAL/" -H "'Connection: close'"
    claim "wrk, a connection each: $RATE requests/s, p99 $P99, $ERRORS errors" holds "ERRORS == 0"
}

# The path MTU towards ADDRESS as HOST's kernel has learnt it; empty where it has not.
learnt_mtu() { on "$1" "ip route get $2" | sed -n 's/.* mtu \([0-9]*\).*/\1/p'; }
has_learnt() { [[ $(learnt_mtu "$1" "$2") == "$3" ]]; }
