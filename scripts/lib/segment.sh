# shellcheck shell=bash
# shellcheck disable=SC2034 # set here, read by the scripts
# The lab's network: one Ethernet segment, a switch in its own namespace, every host a namespace on a veth pair.
#
#   client .10-.13   director .30   real servers .64 .68        192.168.132.0/24, fd00::/64
#                    virtual address .254
#
# Or the real servers have a segment of their own, 10.1.1.0/24: behind the director or behind a router.

NET=192.168.132
NET6=fd00:
VIP=$NET.254
VIP6=fd00::254
DIRECTOR_MAC=02:00:00:00:84:1e
DIRECTOR_INNER_MAC=02:00:00:00:85:1e
CLIENTS=("$NET.10" "$NET.11" "$NET.12" "$NET.13")
SERVERS=(r64 r68)
# What leads to the real servers' own segment: nothing (they share the clients'), `director` or `router`.
GATEWAY=''
SERVER_NET=$NET

# Address, IPv6 address and MAC of real server rNN.
server_address() { echo "$SERVER_NET.${1#r}"; }
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

# Lays the segment (or both); WORKERS is the number of queues of the director's interfaces.
segment_up() {
    local workers=$1 server bridge=br0
    add_namespace switch
    add_switch br0
    add_host client eth0
    add_host director nic0 "$DIRECTOR_MAC" "$workers"
    give_client_addresses
    prepare_director director
    if [[ -n $GATEWAY ]]; then
        bridge=br1
        add_switch br1
        "lay_${GATEWAY}_between" "$workers"
    fi
    for server in "${SERVERS[@]}"; do
        add_namespace "$server"
        plug_in "$server" eth0 "$server" "$bridge" "$(server_mac "$server")"
        on "$server" "ip address add $(server_address "$server")/24 dev eth0 &&
            ip address add $(server_address6 "$server")/64 dev eth0 nodad"
    done
}

# VS/NAT's usual place: the director has a second interface, and is the servers' way out.
lay_director_between() {
    plug_in director nic1 director-in br1 "$DIRECTOR_INNER_MAC" "$1"
    prepare_director director director-in nic1
}

# Servers elsewhere, as in VS/TUN: a router that knows nothing of uvs, .1 on both segments.
lay_router_between() {
    add_host router eth0
    plug_in router eth1 router-in br1
    on router "ip address add $NET.1/24 dev eth0 && ip address add $SERVER_NET.1/24 dev eth1 &&
        echo 1 >/proc/sys/net/ipv4/ip_forward && echo 0 | tee /proc/sys/net/ipv4/conf/*/rp_filter" >/dev/null
    on client "ip route add $SERVER_NET.0/24 via $NET.1"
}

add_namespace() {
    space "$1" >>"$LAB/namespaces"
    ip netns add "$(space "$1")"
    ip -n "$(space "$1")" link set lo up
}

# add_switch BRIDGE: one more segment.
add_switch() {
    ip -n "$(space switch)" link add "$1" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n "$(space switch)" link set "$1" up
    # Frames between the ports are no business of this machine's firewall.
    # shellcheck disable=SC2016 # expanded over there
    on switch 'for f in /proc/sys/net/bridge/bridge-nf-call-*; do [[ ! -e $f ]] || echo 0 >"$f"; done'
}

# add_host NAME INTERFACE [MAC [QUEUES]]: on the clients' segment; the other end of the pair is port NAME of the switch.
add_host() {
    add_namespace "$1"
    plug_in "$1" "$2" "$1" br0 "${@:3}"
}

# plug_in HOST INTERFACE PORT BRIDGE [MAC [QUEUES]]
plug_in() {
    local name=$1 interface=$2 port=$3 bridge=$4 mac=${5:-} queues=${6:-1}
    ip -n "$(space switch)" link add "$port" type veth \
        peer name "$interface" netns "$(space "$name")" ${mac:+address "$mac"} numrxqueues "$queues" numtxqueues "$queues"
    ip -n "$(space switch)" link set "$port" master "$bridge" up
    ip -n "$(space "$name")" link set "$interface" up
}

give_client_addresses() {
    local address
    for address in "${CLIENTS[@]}"; do
        on client "ip address add $address/24 dev eth0 && ip address add $NET6:${address##*.}/64 dev eth0 nodad"
    done
}

# prepare_director HOST [PORT of the switch [INTERFACE]]
prepare_director() {
    local host=$1 port=${2:-$1} interface=${3:-nic0}
    # veth hands over half-finished checksums and super-frames; one command on the peer of nic0 makes real frames of them.
    on switch "ethtool -K $port tx off" >/dev/null
    # nic0 belongs to DPDK: the kernel shall not announce itself there.
    on "$host" "echo 1 >/proc/sys/net/ipv6/conf/$interface/disable_ipv6"
}
