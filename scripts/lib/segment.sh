# shellcheck shell=bash
# shellcheck disable=SC2034 # set here, read by the scripts
# The lab's network: one Ethernet segment, a switch in its own namespace, every host a namespace on a veth pair.
#
#   client .10-.13   director .30   real servers .64 .68        192.168.132.0/24, fd00::/64
#                    virtual address .254

NET=192.168.132
NET6=fd00:
VIP=$NET.254
VIP6=fd00::254
DIRECTOR_MAC=02:00:00:00:84:1e
CLIENTS=("$NET.10" "$NET.11" "$NET.12" "$NET.13")
SERVERS=(r64 r68)

# Address, IPv6 address and MAC of real server rNN.
server_address() { echo "$NET.${1#r}"; }
server_address6() { echo "fd00::${1#r}"; }
server_mac() { echo "02:00:00:00:84:${1#r}"; }

# The namespace of HOST in this lab.
space() { echo "uvs-$$-$1"; }

# Where uvsd on HOST has its sockets.
control_directory() {
    case $1 in
        director?*) echo "$LAB/control-$1" ;;
        *) echo "$LAB/control" ;;
    esac
}

# Runs a command line on HOST.
on() {
    local host=$1
    shift
    UVS_CONTROL=$(control_directory "$host")/control.sock ip netns exec "$(space "$host")" bash -c "$*"
}

# Like `on`, in the background, out of reach of this terminal's Ctrl-C; the PID is in $!.
on_background() {
    local host=$1
    shift
    UVS_CONTROL=$(control_directory "$host")/control.sock setsid ip netns exec "$(space "$host")" "$@" &
}

# Lays the segment; WORKERS is the number of queues of the director's interface.
segment_up() {
    local workers=$1 server
    add_switch
    add_host client eth0
    add_host director nic0 "$DIRECTOR_MAC" "$workers"
    for server in "${SERVERS[@]}"; do add_host "$server" eth0 "$(server_mac "$server")"; done
    give_client_addresses
    for server in "${SERVERS[@]}"; do
        on "$server" "ip address add $(server_address "$server")/24 dev eth0 &&
            ip address add $(server_address6 "$server")/64 dev eth0 nodad"
    done
    prepare_director director
}

add_namespace() {
    space "$1" >>"$LAB/namespaces"
    ip netns add "$(space "$1")"
    ip -n "$(space "$1")" link set lo up
}

add_switch() {
    add_namespace switch
    ip -n "$(space switch)" link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n "$(space switch)" link set br0 up
    # Frames between the ports are no business of this machine's firewall.
    # shellcheck disable=SC2016 # expanded over there
    on switch 'for f in /proc/sys/net/bridge/bridge-nf-call-*; do [[ ! -e $f ]] || echo 0 >"$f"; done'
}

# add_host NAME INTERFACE [MAC [QUEUES]]: the other end of the pair is port NAME of the switch.
add_host() {
    local name=$1 interface=$2 mac=${3:-} queues=${4:-1}
    add_namespace "$name"
    ip -n "$(space switch)" link add "$name" type veth \
        peer name "$interface" netns "$(space "$name")" ${mac:+address "$mac"} numrxqueues "$queues" numtxqueues "$queues"
    ip -n "$(space switch)" link set "$name" master br0 up
    ip -n "$(space "$name")" link set "$interface" up
}

give_client_addresses() {
    local address
    for address in "${CLIENTS[@]}"; do
        on client "ip address add $address/24 dev eth0 && ip address add $NET6:${address##*.}/64 dev eth0 nodad"
    done
}

prepare_director() {
    local host=$1
    # veth hands over half-finished checksums and super-frames; one command on the peer of nic0 makes real frames of them.
    on switch "ethtool -K $host tx off" >/dev/null
    # nic0 belongs to DPDK: the kernel shall not announce itself there.
    on "$host" 'echo 1 >/proc/sys/net/ipv6/conf/nic0/disable_ipv6'
}
