# shellcheck shell=bash
# shellcheck disable=SC2034 # set here, read by the scripts
# Load by wrk, and the programs of lab-tools.

TOOLS=$REPOSITORY/scripts/lab-tools
# How long a load lasts.
LOAD_SECONDS=5

# load NAME URL [wrk options]: runs wrk on the client for LOAD_SECONDS; the result is in RATE, P99, ERRORS.
load() {
    local name=$1 url=$2
    shift 2
    on client "wrk -t 1 -c 50 -d ${LOAD_SECONDS}s --latency $* $url" >"$LAB/wrk-$name" || die "wrk failed: $(<"$LAB/wrk-$name")"
    read_load "$name"
}

read_load() {
    RATE=$(awk '/Requests\/sec/ { printf "%d", $2 }' "$LAB/wrk-$1")
    P99=$(awk '$1 == "99%" { print $2 }' "$LAB/wrk-$1")
    ERRORS=$(awk '/Socket errors/ { gsub(/[^0-9 ]/, ""); for (i = 1; i <= NF; i++) n += $i } /Non-2xx/ { n += $NF } END { print n + 0 }' "$LAB/wrk-$1")
    [[ -n $RATE ]] || die "no result in wrk's output: $(<"$LAB/wrk-$1")"
}

# start_load NAME URL [wrk options]: the same in the background until stop_load NAME, its PID in LOAD_PID.
start_load() {
    local name=$1
    shift
    on_background client wrk -t 1 -c 50 -d 600s --latency "${@:2}" "$1" >"$LAB/wrk-$name" 2>&1
    LOAD_PID=$!
}

# stop_load NAME PID. A signal that one of wrk's other threads catches does not end it: repeated until it has.
stop_load() {
    wait_until 10 interrupted "$2" || die "wrk does not end"
    wait "$2" || true
    read_load "$1"
}

interrupted() { ! kill -INT "$1"; }

# start_tool HOST NAME COMMAND…: runs a program of lab-tools in the background and waits for its "ready".
start_tool() {
    local host=$1 name=$2
    shift 2
    on_background "$host" "$@" >"$LAB/$name.out" 2>"$LAB/$name.err"
    TOOL_PID=$!
    wait_until 10 grep -q ready "$LAB/$name.out" || die "$name does not get ready: $(<"$LAB/$name.err")"
}
