# shellcheck shell=bash
# shellcheck disable=SC2034 # set here, read by the scripts
# The ways to forward, as demos and scenarios use them: which network, what makes a host a real server, what ipvsadm is told.

MODE=lvs
# The service's address as ipvsadm and in URLs, ipvsadm's word for the method, the servers as ipvsadm is told them.
VIRTUAL=$VIP
METHOD=-g
REAL_SERVERS=("$NET.64:80" "$NET.68:80")
# Where the client asks from.
SOURCES=("${CLIENTS[@]}")

# use_mode lvs|ipv6|nat|tun: to be called before the network is laid.
use_mode() {
    local source
    MODE=$1
    case $MODE in
        ipv6)
            VIRTUAL="[$VIP6]"
            REAL_SERVERS=('[fd00::64]:80' '[fd00::68]:80')
            SOURCES=()
            for source in "${CLIENTS[@]}"; do SOURCES+=("$NET6:${source##*.}"); done
            ;;
        nat) behind director -m 8080 ;;
        tun) behind router -i 80 ;;
    esac
}

# behind GATEWAY METHOD PORT: the servers on a segment of their own; PORT is that of r68.
behind() {
    GATEWAY=$1
    METHOD=$2
    SERVER_NET=10.1.1
    REAL_SERVERS=("$SERVER_NET.64:80" "$SERVER_NET.68:$3")
}

# What makes a host a real server, line by line.
server_commands() { "server_commands_$MODE"; }

# VS/DR: it has the virtual address, and never speaks ARP for it.
server_commands_lvs() {
    cat <<END
ifconfig lo:0 $VIP broadcast $VIP netmask 255.255.255.255 up
route add -host $VIP dev lo:0
echo 1 >/proc/sys/net/ipv4/conf/lo/arp_ignore
echo 2 >/proc/sys/net/ipv4/conf/lo/arp_announce
END
    quiet_about_vip
}

quiet_about_vip() {
    cat <<END
echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce
END
}

# Neighbour discovery never answers for what is on lo.
server_commands_ipv6() { echo "ip address add $VIP6/128 dev lo nodad"; }

# VS/NAT: nothing but the way out.
server_commands_nat() { echo "route add default gw $SERVER_NET.30"; }

# VS/TUN: the virtual address is on the end of the tunnel.
server_commands_tun() {
    cat <<END
ifconfig tunl0 $VIP netmask 255.255.255.255 broadcast $VIP up
route add default gw $SERVER_NET.1
END
    quiet_about_vip
    echo "echo 0 | tee /proc/sys/net/ipv4/conf/*/rp_filter >/dev/null"
}

# The service by ipvsadm, line by line: ipvsadm_commands [PORT [options of -A]].
ipvsadm_commands() {
    local port=${1:-80} server
    echo "ipvsadm -A -t $VIRTUAL:$port ${*:2}"
    for server in "${REAL_SERVERS[@]}"; do echo "ipvsadm -a -t $VIRTUAL:$port -r $server $METHOD"; done
}

# The end of tunnels on SERVER: the kernel's, or where it has no ipip module, a small program's; DECAPSULATION says which.
tunnel_end_up() {
    if modprobe ipip 2>/dev/null && on "$1" 'ip link show tunl0' >/dev/null 2>&1; then
        DECAPSULATION='the ipip module'
    else
        DECAPSULATION='lab-tools/decapsulate.py (no ipip module here)'
        start_tool "$1" "decapsulate-$1" "$TOOLS/decapsulate.py" tunl0 ipip
    fi
}

# Network, servers, director and the web service on the VIP, all ready.
mode_lab() {
    local server
    use_mode "$1"
    segment_up "$WORKERS"
    servers_up
    for server in "${SERVERS[@]}"; do
        [[ $MODE != tun ]] || tunnel_end_up "$server"
        on "$server" "set -e; $(server_commands)"
    done
    director_up director
    director_take_vip
    on director "set -e; $(ipvsadm_commands 80 -s rr)"
    wait_until 10 on client "curl -s -g -m 1 http://$VIRTUAL/" || die "the service on $VIRTUAL does not answer"
}
