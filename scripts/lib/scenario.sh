# shellcheck shell=bash
# What the scenarios of scripts/lab-tests have in common: options, the standard lab, load, the last claim.
# shellcheck disable=SC2034 # set here, read by the scripts

source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

TOOLS=$REPOSITORY/scripts/lab-tools
# How long a load lasts.
LOAD_SECONDS=5

# scenario NAME "$@": reads the options, becomes root, begins a lab of that name.
scenario() {
    local name=$1 arguments
    shift
    arguments=("$@")
    while (($# > 0)); do
        case $1 in
            --seconds) LOAD_SECONDS=${2:-} && shift ;;
            --workers) WORKERS=${2:-} && shift ;;
            --hugepages) HUGEPAGES=${2:-} && shift ;;
            --driver) DRIVER=${2:-} && shift ;;
            *) echo "usage: scripts/lab-tests/$name [--seconds S] [--workers N] [--hugepages auto|never] [--driver af_packet|af_xdp]" >&2 && exit 2 ;;
        esac
        shift || true
    done
    become_root "${arguments[@]}"
    require_binaries
    lab_begin "$name"
}

# Client, director and real servers, with the web service on the VIP ready.
standard_lab() {
    segment_up "$WORKERS"
    servers_up
    servers_take_vip
    director_up director
    director_take_vip
    add_service --tcp "$VIP:80"
    wait_until 5 on client "curl -s -m 1 http://$VIP/" || die "the service on $VIP does not answer"
}

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

# hold PORT CONNECTIONS SECONDS: long-lived connections to the VIP for some seconds; prints what stick.py found.
hold() {
    start_tool client "hold-$1" "$TOOLS/stick.py" "$VIP" "$1" "$2" "${CLIENTS[@]}"
    sleep "$3"
    kill -TERM "$TOOL_PID"
    wait "$TOOL_PID" || return 1
    tail -n 1 "$LAB/hold-$1.out"
}

# Every scenario ends here: the books balance and the daemon ends as it should.
end_well() {
    claim "every packet is accounted for" conserved
    director_stop director
    claim "uvsd ended with status $STOP_STATUS in $STOP_MS ms" holds "STOP_STATUS == 0 && STOP_MS < 2000"
    good "$CHECKS claims hold"
}
