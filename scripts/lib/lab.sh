# shellcheck shell=bash
# A lab: namespaces and processes that belong to one script and go when it ends, however it ends.
#
# Every lab has a directory /run/uvs-lab/PID-STARTTIME (of the script that owns it). What is made is written down there
# before it is made, so that a lab whose owner was killed can be found and removed by the next one. A lab with a file
# `kept` outlives its owner until `scripts/demo --clean`.
# shellcheck disable=SC2034 # set here, read by the scripts

LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$LIB/../.." && pwd)
PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=say.sh
source "$LIB/say.sh"
# shellcheck source=root.sh
source "$LIB/root.sh"
# shellcheck source=install.sh
source "$LIB/install.sh"
# shellcheck source=build.sh
source "$LIB/build.sh"
# shellcheck source=segment.sh
source "$LIB/segment.sh"
# shellcheck source=servers.sh
source "$LIB/servers.sh"
# shellcheck source=director.sh
source "$LIB/director.sh"
# shellcheck source=check.sh
source "$LIB/check.sh"
# shellcheck source=books.sh
source "$LIB/books.sh"
# shellcheck source=lvs.sh
source "$LIB/lvs.sh"
# shellcheck source=load.sh
source "$LIB/load.sh"
# shellcheck source=captures.sh
source "$LIB/captures.sh"
# shellcheck source=transfers.sh
source "$LIB/transfers.sh"
# shellcheck source=modes.sh
source "$LIB/modes.sh"

LABS=/run/uvs-lab
LAB=''

# Makes an empty lab called NAME and sees to it that it is removed at the end.
lab_begin() {
    require_kernel
    trap lab_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    lab_remove_abandoned spare
    LAB=$LABS/$$-$(start_time $$)
    mkdir -p "$LAB"
    chmod 755 "$LABS" "$LAB"
    echo "$1" >"$LAB/name"
}

# The exit trap: keeps the status of the script, and the daemon's log when it is a bad one.
lab_end() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $LAB && -d $LAB && ! -e $LAB/kept ]]; then
        ((status == 0)) || lab_save_log
        lab_remove "$LAB"
    fi
    exit "$status"
}

# The logs of daemons stay, with their last lines on the terminal.
lab_save_log() {
    local log saved
    for log in "$LAB"/uvsd*.log "$LAB"/keepalived*.log "$LAB"/ldirectord*.log; do
        [[ -s $log ]] || continue
        saved=${TMPDIR:-/tmp}/$(<"$LAB/name")-$$-${log##*/}
        cp "$log" "$saved"
        bad "the last lines of ${log##*/} (all of it: $saved):"
        tail -n 8 "$saved" | quote >&2
    done
}

# Removes the labs whose owner is dead: `spare` those that somebody asked to keep, or `all`.
lab_remove_abandoned() {
    local which=$1 directory
    for directory in "$LABS"/*-*; do
        [[ -d $directory ]] || continue
        ! lab_owner_lives "$directory" || continue
        [[ ! -e $directory/kept || $which == all ]] || continue
        quiet_note "removing the lab '$(cat "$directory/name" 2>/dev/null)' left behind by process $(lab_owner "$directory")"
        lab_remove "$directory"
    done
}

# Ends every process in the lab's namespaces, then the namespaces, then the directory.
lab_remove() {
    local directory=$1 space
    local -a spaces=()
    [[ ! -e $directory/namespaces ]] || mapfile -t spaces <"$directory/namespaces"
    for space in "${spaces[@]}"; do signal_namespace TERM "$space"; done
    for space in "${spaces[@]}"; do
        wait_until 3 namespace_is_empty "$space" || signal_namespace KILL "$space"
        wait_until 3 namespace_is_empty "$space" || warn "processes in namespace $space do not end"
        ip netns del "$space" 2>/dev/null || true
    done
    rm -rf "$directory"
}

signal_namespace() {
    local pid
    for pid in $(ip netns pids "$2" 2>/dev/null); do kill "-$1" "$pid" 2>/dev/null || true; done
}

namespace_is_empty() { [[ -z $(ip netns pids "$1" 2>/dev/null) ]]; }

lab_owner() {
    local name=${1##*/}
    echo "${name%%-*}"
}

lab_owner_lives() {
    local name=${1##*/}
    [[ $(start_time "${name%%-*}") == "${name##*-}" ]]
}

# Start time of process PID in clock ticks since boot; with it a reused PID is told from the old one.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # The name in parentheses may hold spaces: count after it. Field 22 of stat is the 20th there.
    read -ra stat <<<"${stat##*) }"
    # A dead process that nobody has waited for yet is dead.
    [[ ${stat[0]} == [ZX] ]] || echo "${stat[19]}"
}

require_kernel() {
    ((EUID == 0)) || die "a lab needs root"
    mkdir -p "$LABS"
    [[ -e /dev/net/tun ]] || die "/dev/net/tun is missing: the kernel needs tun (modprobe tun)"
    # One throw-away namespace tells at once whether this machine (or container) may make labs at all.
    unshare -n ip link add uvs0 type veth peer name uvs1 2>/dev/null ||
        die "cannot make network namespaces with veth pairs here (in a container? it needs --privileged)"
}
