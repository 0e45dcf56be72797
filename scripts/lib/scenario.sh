# shellcheck shell=bash
# What the scenarios of scripts/lab-tests have in common: options, the standard lab, load, the last claim.
# shellcheck disable=SC2034 # set here, read by the scripts

source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

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
