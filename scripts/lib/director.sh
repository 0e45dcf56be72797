# shellcheck shell=bash
# shellcheck disable=SC2034 # set here, read by the scripts
# The director: uvsd in its namespace, on nic0 through DPDK's af_packet driver.

declare -A DIRECTOR_PIDS=()
# That of the host `director`.
DIRECTOR_PID=''

# What the configuration says; set before director_up.
WORKERS=1
HUGEPAGES=auto
# DPDK's driver for nic0: af_packet takes any number of queues, but has the kernel put IPv4 fragments together before it
# hands them over (PACKET_FANOUT_FLAG_DEFRAG); af_xdp, one queue here, delivers frames as they are on the wire.
DRIVER=af_packet
# Further lines of the configuration (whole tables).
EXTRA_CONFIG=''

# device N: for interface nicN.
device() {
    case $DRIVER in
        af_packet) echo "net_af_packet$1,iface=nic$1,blocksz=4096,framesz=2048,framecnt=4096,qpairs=$WORKERS" ;;
        af_xdp) echo "net_af_xdp$1,iface=nic$1,start_queue=0,queue_count=1" ;;
    esac
}

# The last number of HOST's address.
director_number() {
    case $1 in
        director) echo 30 ;;
        director2) echo 31 ;;
    esac
}

director_configuration() {
    local host=${1:-director}
    cat <<END
[dpdk]
file_prefix = "uvs-lab-$$-$host"
memory_mib = 512
hugepages = "$HUGEPAGES"

[[port]]
name = "eth0"
device = "$(device 0)"
kernel_interface = "nic0"
addresses = ["$NET.$(director_number "$host")/24", "fd00::$(director_number "$host")/64"]
$([[ $GATEWAY != director ]] || inner_port)

[workers]
count = $WORKERS

[control]
directory = "$(control_directory "$host")"
$EXTRA_CONFIG
END
}

# The segment of the real servers, whose way out the director is.
inner_port() {
    cat <<END

[[port]]
name = "eth1"
device = "$(device 1)"
kernel_interface = "nic1"
addresses = ["$SERVER_NET.30/24"]
END
}

# Starts uvsd (on HOST; `director` where none is named) and waits until it answers and its twin is there.
director_up() {
    local host=${1:-director}
    director_configuration "$host" >"$(director_file "$host" toml)"
    director_start "$host"
}

# uvsd's configuration or log on HOST.
director_file() { echo "$LAB/uvsd${1#director}.$2"; }

director_start() {
    local host=${1:-director}
    mkdir -p "$(control_directory "$host")"
    on_background "$host" "$(command -v uvsd)" --config "$(director_file "$host" toml)" >>"$(director_file "$host" log)" 2>&1
    DIRECTOR_PIDS[$host]=$!
    [[ $host != director ]] || DIRECTOR_PID=$!
    wait_until 30 director_ready_or_gone "$host" || die "uvsd on $host was not ready within 30 s"
    director_lives "$host" || die "uvsd on $host ended at once"
    wait_until 5 on "$host" 'ip -o -4 address show dev eth0 | grep -q inet' || die "the TAP twin eth0 on $host has no address"
}

director_ready_or_gone() { ! director_lives "$1" || on "$1" 'uvsctl status'; }
director_lives() {
    local pid=${DIRECTOR_PIDS[${1:-director}]:-}
    [[ -n $pid ]] && kill -0 "$pid" 2>/dev/null
}

# Sends SIGTERM; afterwards STOP_STATUS is uvsd's exit status and STOP_MS the time it took.
director_stop() {
    local host=${1:-director} started pid
    pid=${DIRECTOR_PIDS[$host]}
    started=$(now_ms)
    kill -TERM "$pid"
    wait_until 10 director_gone "$host" || die "uvsd on $host does not end within 10 s of SIGTERM"
    STOP_MS=$(($(now_ms) - started))
    STOP_STATUS=0
    wait "$pid" || STOP_STATUS=$?
    DIRECTOR_PIDS[$host]=''
}

director_gone() { ! director_lives "${1:-director}"; }

# The virtual address on the twin, as an LVS operator sets it; then the kernel knows it and uvsd mirrors it.
director_commands() {
    cat <<END
ifconfig eth0:0 $VIP broadcast $VIP netmask 255.255.255.255 up
route add -host $VIP dev eth0:0
echo "1" >/proc/sys/net/ipv4/ip_forward
END
    [[ $GATEWAY != router ]] || echo "route add -net $SERVER_NET.0 netmask 255.255.255.0 gw $NET.1"
}

director_take_vip() {
    on director "set -e; $(director_commands)
        ip address add $VIP6/128 dev eth0 nodad"
}

# add_service --tcp|--udp ADDRESS:PORT [options of `uvsctl service add`]: with both real servers behind it.
add_service() {
    local protocol=$1 address=$2 server
    shift 2
    on director "uvsctl service add $protocol $address --scheduler rr $*" >/dev/null
    for server in "${SERVERS[@]}"; do
        on director "uvsctl destination add $protocol $address --server $(real_server "$address" "$server") --direct" >/dev/null
    done
}

# The real server's address in the family of the service's, with the service's port.
real_server() {
    local service=$1 server=$2
    case $service in
        \[*) echo "[$(server_address6 "$server")]:${service##*:}" ;;
        *) echo "$(server_address "$server"):${service##*:}" ;;
    esac
}
