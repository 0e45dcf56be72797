# shellcheck shell=bash
# shellcheck disable=SC2034 # set here, read by the scripts
# The director: uvsd in its namespace, on nic0 through DPDK's af_packet driver.

DIRECTOR_PID=''

# What the configuration says; set before director_up.
WORKERS=1
HUGEPAGES=auto
# DPDK's driver for nic0: af_packet takes any number of queues, but has the kernel put IPv4 fragments together before it
# hands them over (PACKET_FANOUT_FLAG_DEFRAG); af_xdp, one queue here, delivers frames as they are on the wire.
DRIVER=af_packet
# Further lines of the configuration (whole tables).
EXTRA_CONFIG=''

device() {
    case $DRIVER in
        af_packet) echo "net_af_packet0,iface=nic0,blocksz=4096,framesz=2048,framecnt=4096,qpairs=$WORKERS" ;;
        af_xdp) echo "net_af_xdp0,iface=nic0,start_queue=0,queue_count=1" ;;
    esac
}

director_configuration() {
    cat <<END
[dpdk]
file_prefix = "uvs-lab-$$"
memory_mib = 512
hugepages = "$HUGEPAGES"

[[port]]
name = "eth0"
device = "$(device)"
kernel_interface = "nic0"
addresses = ["$NET.30/24", "fd00::30/64"]

[workers]
count = $WORKERS

[control]
directory = "$LAB/control"
$EXTRA_CONFIG
END
}

# Starts uvsd and waits until it answers and its twin is there.
director_up() {
    director_configuration >"$LAB/uvsd.toml"
    director_start
}

director_start() {
    mkdir -p "$LAB/control"
    on_background director "$(command -v uvsd)" --config "$LAB/uvsd.toml" >>"$LAB/uvsd.log" 2>&1
    DIRECTOR_PID=$!
    wait_until 30 director_ready_or_gone || die "uvsd was not ready within 30 s"
    director_lives || die "uvsd ended at once"
    wait_until 5 on director 'ip -o -4 address show dev eth0 | grep -q inet' || die "the TAP twin eth0 has no address"
}

director_ready_or_gone() { ! director_lives || on director 'uvsctl status'; }
director_lives() { [[ -n $DIRECTOR_PID ]] && kill -0 "$DIRECTOR_PID" 2>/dev/null; }

# Sends SIGTERM; afterwards STOP_STATUS is uvsd's exit status and STOP_MS the time it took.
director_stop() {
    local started
    started=$(now_ms)
    kill -TERM "$DIRECTOR_PID"
    wait_until 10 director_gone || die "uvsd does not end within 10 s of SIGTERM"
    STOP_MS=$(($(now_ms) - started))
    STOP_STATUS=0
    wait "$DIRECTOR_PID" || STOP_STATUS=$?
    DIRECTOR_PID=''
}

director_gone() { ! director_lives; }

# The virtual address on the twin, as an LVS operator sets it; then the kernel knows it and uvsd mirrors it.
director_commands() {
    cat <<END
ifconfig eth0:0 $VIP broadcast $VIP netmask 255.255.255.255 up
route add -host $VIP dev eth0:0
echo "1" >/proc/sys/net/ipv4/ip_forward
END
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
