# shellcheck shell=bash
# The acts of scripts/demo, in their order.

lay_network() {
    case $MODE in
        lvs | ipv6) title "One Ethernet segment, five network namespaces" ;;
        nat) title "Two Ethernet segments, five network namespaces; the director is on both" ;;
        tun) title "Two Ethernet segments, six network namespaces; a router between" ;;
    esac
    "draw_$MODE"
    segment_up "$WORKERS"
    good "laid; namespaces $(space client), …"
}

draw_lvs() {
    cat <<END
     client  .10 .11 .12 .13 ──┐                      ┌── director  .30      uvsd on nic0 by DPDK, its twin in the kernel: eth0
                               ├── $NET.0/24 ──┤
     real server r64  .64    ──┘      (switch)        └── real server r68  .68
                               virtual address (VIP)  $VIP
END
}

draw_ipv6() {
    cat <<END
     client  ::10 ::11 ::12 ::13 ──┐               ┌── director  ::30     uvsd on nic0 by DPDK, its twin in the kernel: eth0
                                   ├── fd00::/64 ──┤
     real server r64  ::64       ──┘   (switch)    └── real server r68  ::68
                                   virtual address (VIP)  $VIP6
END
}

draw_nat() {
    cat <<END
     client .10 .11 .12 .13 ── $NET.0/24 ── .30  director  .30 ── $SERVER_NET.0/24 ──┬── real server r64  .64
                               VIP $VIP      nic0  nic1                   └── real server r68  .68
                                        twins: eth0  eth1, the servers' default gateway
END
}

draw_tun() {
    cat <<END
     client .10 .11 .12 .13 ──┬── $NET.0/24 ── .1 router .1 ── $SERVER_NET.0/24 ──┬── real server r64  .64
     director .30           ──┘   VIP $VIP                            └── real server r68  .68
END
}

start_real_servers() {
    local server
    title "The real servers"
    case $MODE in
        lvs) note "Each has the VIP on lo and keeps quiet about it (or the switch would learn three owners of one address)." ;;
        ipv6) note "Each has the VIP on lo; neighbour discovery does not answer for what is there." ;;
        nat) note "They know nothing of the VIP; their answers leave by their default gateway, the director." ;;
        tun) note "They are in another network. Each has the VIP on the end of its tunnel, and answers clients by its own router." ;;
    esac
    servers_up
    for server in "${SERVERS[@]}"; do
        if [[ $MODE == tun ]]; then
            tunnel_end_up "$server"
            note "$server unwraps IPIP with $DECAPSULATION"
        fi
        while read -r command; do show "$server" "$command"; done < <(server_commands)
    done
    claim "asked by each other, r64 and r68 say their names" both_say_their_names
}

both_say_their_names() {
    local server
    for server in "${SERVERS[@]}"; do
        [[ $(on "$(other "$server")" "curl -sS -m 3 http://$(server_address "$server")/") == "$server" ]] || return 1
    done
}

other() { if [[ $1 == r64 ]]; then echo r68; else echo r64; fi; }

start_director() {
    title "The director: uvsd takes nic0$([[ $MODE != nat ]] || echo " and nic1"), $WORKERS worker(s), hugepages: $HUGEPAGES"
    director_configuration >"$LAB/uvsd.toml"
    quote <"$LAB/uvsd.toml"
    note "director# uvsd --config $LAB/uvsd.toml"
    director_start
    quote <"$LAB/uvsd.log"
    show director 'uvsctl status'
    note "DPDK has nic0 now. What is for the director itself (ARP, ping, ssh) reaches its kernel through the twin eth0."
    claim "the TAP twin eth0 is in the kernel, with the NIC's MAC and the configured address" twin_is_there
}

twin_is_there() {
    local shown
    shown=$(on director 'ip address show dev eth0')
    [[ $shown == *"link/ether $DIRECTOR_MAC"* && $shown == *"inet $NET.30/24"* ]]
}

set_virtual_address() {
    title "The virtual address, set on the twin with the tools of every LVS how-to"
    while read -r command; do show director "$command"; done < <(director_commands)
    [[ $MODE != ipv6 ]] || show director "ip address add $VIP6/128 dev eth0 nodad"
    show client "ping -n -c 2 -i 0.2 -W 2 ${VIRTUAL//[][]/}"
    note "The kernel answers ARP and ping for the VIP through the twin; uvsd learnt of it by netlink."
    claim "to the client the VIP is at the director's MAC $DIRECTOR_MAC, and nobody else answers for it" only_director_answers_arp
}

only_director_answers_arp() {
    local answers
    if [[ $MODE == ipv6 ]]; then
        answers=$(on client "ip -6 neighbour show $VIP6 dev eth0")
        [[ $answers == *"lladdr $DIRECTOR_MAC"* ]]
        return
    fi
    # Both programs of that name will do: "60 bytes from MAC", "Unicast reply from ADDRESS [MAC]".
    answers=$(on client "arping -c 2 -w 3 -I eth0 $VIP" | grep -iE '(bytes|reply) from' || true)
    [[ ${answers,,} == *"$DIRECTOR_MAC"* ]] && ! grep -qiv "$DIRECTOR_MAC" <<<"$answers"
}

balance_with_ipvsadm() {
    title "The service, set up with the distribution's ipvsadm: $(dpkg-query -W -f '${Package} ${Version}' ipvsadm 2>/dev/null || echo ipvsadm)"
    note "The word is a wrapper: $(command -v ipvsadm) runs /usr/sbin/ipvsadm by \`uvsctl exec\`."
    case $METHOD in
        -g) note "-g is VS/DR: the director only changes the MACs of a request and sends it on; the server answers by itself." ;;
        -m) note "-m is VS/NAT: the director writes the server's address and port into requests, and its own into answers." ;;
        -i) note "-i is VS/TUN: the director wraps a request into an IP packet to the server; the server answers by itself." ;;
    esac
    show director 'ipvsadm -C'
    while read -r command; do show director "$command"; done < <(ipvsadm_commands 80 -s rr -p 120)
    show director 'ipvsadm'
    claim "the kernel of this machine has no part in it: what ipvsadm shows is what uvsd has" both_tools_agree
}

# uvsctl shows the two servers that ipvsadm shows.
both_tools_agree() {
    local ours theirs
    theirs=$(servers_of "$VIRTUAL:80" | sort)
    ours=$(on director 'uvsctl --json service list' |
        jq -r '.services[0].destinations[] | "\(.address) \(.weight)"' | sort)
    [[ $(wc -l <<<"$theirs") == 2 && $ours == "$theirs" ]]
}

with_persistence() {
    title "With persistence (-p 120) a client stays on its server"
    start_capture
    local client answers firsts=()
    for client in "${SOURCES[@]}"; do
        REQUESTS=$((REQUESTS + 3))
        answers=$(ask "$client" && ask "$client" && ask "$client") || die "the client $client got no answer from $VIRTUAL"
        printf '   %s asked %s three times: %s\n' "$client" "$VIRTUAL" "$(tr '\n' ' ' <<<"$answers")"
        claim "$client stayed on ${answers%%$'\n'*}" same_lines "$answers"
        firsts+=("${answers%%$'\n'*}")
    done
    stop_capture
    claim "the clients were shared out: $(shares "${firsts[@]}")" evenly_shared "${firsts[@]}"
    show client "curl -sS -g -m 3 -i --interface ${SOURCES[0]} http://$VIRTUAL/ | grep -vE '^(Date|Server|Connection|Content)'"
    REQUESTS=$((REQUESTS + 1))
    "prove_way_$MODE"
}

# Requests made so far, a connection each.
REQUESTS=0

all_connections_counted() { [[ $(sum_of connections) == "$REQUESTS" ]]; }

# One request from client address $1; prints who answered.
ask() { on client "curl -sS -g -m 3 --interface $1 http://$VIRTUAL/"; }

same_lines() { [[ -n $1 && $(sort -u <<<"$1" | wc -l) == 1 ]]; }

shares() { printf '%s\n' "$@" | sort | uniq -c | awk '{ printf "%s%s %s times", sep, $2, $1; sep = ", " }'; }

# Round robin is exact on one worker; on n workers the shares of two servers differ by at most n.
evenly_shared() {
    local a b
    a=$(printf '%s\n' "$@" | grep -c '^r64$' || true)
    b=$(printf '%s\n' "$@" | grep -c '^r68$' || true)
    ((a + b == $# && a - b <= WORKERS && b - a <= WORKERS))
}

# Both ends: what the client sends and gets, and what arrives at r64.
start_capture() {
    local host
    CAPTURE_PIDS=()
    for host in client r64; do
        on_background "$host" tcpdump -i eth0 -nn -e -U --immediate-mode -w "$LAB/$host.pcap" 'tcp or ip proto 4' 2>"$LAB/$host.tcpdump"
        CAPTURE_PIDS+=($!)
        wait_until 5 grep -q 'listening on' "$LAB/$host.tcpdump" || die "tcpdump does not start: $(<"$LAB/$host.tcpdump")"
    done
}

stop_capture() {
    sleep 0.2
    kill -INT "${CAPTURE_PIDS[@]}"
    wait "${CAPTURE_PIDS[@]}" || true
    # Others leave checksums to the next host's veth; what comes from the director is whole, also behind the servers' router.
    all_is_right_where "eth.src == $DIRECTOR_MAC || eth.src == $DIRECTOR_INNER_MAC || ip.proto == 4" "$LAB/client.pcap" "$LAB/r64.pcap"
}

prove_way_lvs() {
    claim "requests went to the director's MAC; every answer came straight from a real server's MAC" \
        went_by "$(server_mac r64) $(server_mac r68)"
}

prove_way_ipv6() { prove_way_lvs; }

prove_way_nat() {
    claim "requests went to the director's MAC, and every answer came from there" went_by "$DIRECTOR_MAC"
    claim "no frame that the client saw has an address of the servers' segment" nothing_captured "net $SERVER_NET.0/24"
}

prove_way_tun() {
    claim "requests went to the director's MAC; every answer came by the servers' router" went_by "$(router_mac)"
    claim "what the servers got was the client's packet to the VIP, in one from the director to the server" requests_were_wrapped
}

router_mac() { on router 'cat /sys/class/net/eth0/address'; }

nothing_captured() { [[ -z $(captured "$1" 2) ]]; }

# went_by MACS: the captured requests went to the director, the answers came from one of these.
went_by() {
    local mac address=${VIRTUAL//[][]/} answers=0 requests=0
    while read -r mac; do
        [[ $mac == "$DIRECTOR_MAC" ]] || return 1
        requests=$((requests + 1))
    done < <(captured "dst host $address" 4)
    while read -r mac; do
        [[ " $1 " == *" $mac "* ]] || return 1
        answers=$((answers + 1))
    done < <(captured "src host $address" 2)
    quiet_note "$requests frames of requests, $answers frames of answers looked at"
    ((requests > 0 && answers > 0))
}

# On r64's interface: packets in packets, and no request that is not in one.
requests_were_wrapped() {
    local seen
    seen=$(tcpdump -nn -r "$LAB/r64.pcap" "src host $NET.30 and dst host $SERVER_NET.64 and ip proto 4" 2>/dev/null)
    head -n 1 <<<"$seen" | cut -d ' ' -f 2- | quote
    [[ $seen == *" > $VIP.80: "* && -z $(tcpdump -nn -r "$LAB/r64.pcap" "dst host $VIP" 2>/dev/null) ]]
}

# Field $2 (2: source MAC, 4: destination MAC) of the captured frames that match $1.
captured() { tcpdump -nn -e -r "$LAB/client.pcap" "$1" 2>/dev/null | awk -v field="$2" '{ gsub(",", ""); print $field }'; }

without_persistence() {
    title "The same service without persistence: requests go to the servers in turn"
    show director "ipvsadm -E -t $VIRTUAL:80 -s rr"
    local round client answers=()
    for round in 1 2 3; do
        for client in "${SOURCES[@]}"; do
            REQUESTS=$((REQUESTS + 1))
            answers+=("$(ask "$client")") || die "the client $client got no answer in round $round"
        done
    done
    note "Twelve requests from four clients in turn: ${answers[*]}"
    if ((WORKERS == 1)); then
        claim "they alternate strictly" alternate "${answers[@]}"
    else
        claim "each worker takes its own turns; the shares are even within $WORKERS" evenly_shared "${answers[@]}"
    fi
    note "$(shares "${answers[@]}")"
}

alternate() {
    local previous='' answer
    for answer in "$@"; do
        [[ $answer == r64 || $answer == r68 ]] && [[ $answer != "$previous" ]] || return 1
        previous=$answer
    done
}

share_files() {
    title "The third tier: both servers serve one shared folder"
    show client "curl -sS -g -m 3 http://$VIRTUAL/files/hello.txt"
    REQUESTS=$((REQUESTS + 1))
    claim "1 MiB fetched four times through the VIP is the same as on the servers' disk" file_arrives_whole
}

file_arrives_whole() {
    local _
    for _ in 1 2 3 4; do
        REQUESTS=$((REQUESTS + 1))
        on client "curl -sS -g -m 10 http://$VIRTUAL/files/1MiB" | cmp -s - "$LAB/shared/files/1MiB" || return 1
    done
}

look_at_counters() {
    title "What the director has seen"
    show director 'ipvsadm -Ln --stats'
    show director 'ipvsadm -Lnc'
    show director 'uvsctl stats'
    claim "every packet is accounted for: received + injected + generated = transmitted + punted + dropped" conserved
    note "dropped: $(drops_in_words)"
    claim "it counted every one of the $REQUESTS connections" all_connections_counted
    if [[ $MODE == nat ]]; then
        claim "it carried requests and answers" holds "$(sum_of in_packets) > 0 && $(sum_of out_packets) > 0"
    else
        claim "it carried the requests only: no answer passed through it" test "$(sum_of out_packets)" = 0
    fi
}

under_load() {
    title "wrk, 50 connections for $LOAD_SECONDS s"
    load demo "http://$VIRTUAL/"
    quote <"$LAB/wrk-demo"
    claim "no request of $RATE a second failed" holds "ERRORS == 0"
}

# The rules as every LVS host keeps them over a reboot.
save_and_restore() {
    title "Saved, cleared, restored"
    show director "ipvsadm-save -n | tee $LAB/rules"
    show director "ipvsadm -C"
    claim "cleared: a client is refused at once" refused
    show director "ipvsadm-restore <$LAB/rules"
    claim "restored: ipvsadm-save says the same again" same_rules
    show client "curl -sS -g -m 3 http://$VIRTUAL/"
}

# The kernel's answer for a port that nobody serves: not a timeout.
refused() {
    local status=0
    on client "curl -s -g -m 2 http://$VIRTUAL/" || status=$?
    ((status == 7))
}

same_rules() { on director 'ipvsadm-save -n' | cmp -s - "$LAB/rules" && [[ -s $LAB/rules ]]; }

end_director() {
    title "A clean end"
    note "director# kill -TERM $DIRECTOR_PID"
    director_stop
    claim "uvsd ended by itself in $STOP_MS ms with status $STOP_STATUS" holds "STOP_STATUS == 0 && STOP_MS < 2000"
    claim "the twin is gone, and nic0 is the kernel's again" nothing_left
}

nothing_left() { ! on director 'ip link show dev eth0 || nft list tables | grep -q uvs' >/dev/null 2>&1; }

keep_lab() {
    touch "$LAB/kept"
    title "The network stays up"
    cat <<END
   a request                  sudo ip netns exec $(space client) curl -g --interface ${SOURCES[0]} 'http://$VIRTUAL/'
   a load                     sudo ip netns exec $(space client) wrk -c 50 -d 10 'http://$VIRTUAL/'
   the director's shell       sudo ip netns exec $(space director) env UVS_CONTROL=$LAB/control/control.sock PATH="$REPOSITORY/scripts/wrappers:$(bin_directory):\$PATH" bash
     there, for example       ipvsadm -Ln; ipvsadm -Lnc; uvsctl status; uvsctl stats; ip address show eth0
   take a server away         ipvsadm -e -t $VIRTUAL:80 -r ${REAL_SERVERS[0]} $METHOD -w 0
   a real server's shell      sudo ip netns exec $(space r64) bash
   the daemon's log           $LAB/uvsd.log
   remove it all              scripts/demo --clean
END
}
