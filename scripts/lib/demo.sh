# shellcheck shell=bash
# The acts of scripts/demo, in their order.

lay_network() {
    title "One Ethernet segment, five network namespaces"
    cat <<END
     client  .10 .11 .12 .13 ──┐                      ┌── director  .30      uvsd on nic0 by DPDK, its twin in the kernel: eth0
                               ├── $NET.0/24 ──┤
     real server r64  .64    ──┘      (switch)        └── real server r68  .68
                               virtual address (VIP)  $VIP
END
    segment_up "$WORKERS"
    good "laid; namespaces $(space client), …"
}

start_real_servers() {
    local server
    title "The real servers: each has the VIP on lo and keeps quiet about it"
    note "(arp_ignore, arp_announce: or the switch would learn three owners of one address)"
    servers_up
    for server in "${SERVERS[@]}"; do
        while read -r command; do show "$server" "$command"; done < <(server_commands)
    done
    claim "asked directly, r64 and r68 say their names" both_say_their_names
}

both_say_their_names() {
    local server
    for server in "${SERVERS[@]}"; do
        [[ $(on client "curl -sS -m 3 http://$(server_address "$server")/") == "$server" ]] || return 1
    done
}

start_director() {
    title "The director: uvsd takes nic0, $WORKERS worker(s), hugepages: $HUGEPAGES"
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
    show client "ping -n -c 2 -i 0.2 -W 2 $VIP"
    note "The kernel answers ARP and ping for the VIP through the twin; uvsd learnt of it by netlink."
    claim "to the client the VIP is at the director's MAC $DIRECTOR_MAC, and nobody else answers for it" only_director_answers_arp
}

only_director_answers_arp() {
    local answers
    # Both programs of that name will do: "60 bytes from MAC", "Unicast reply from ADDRESS [MAC]".
    answers=$(on client "arping -c 2 -w 3 -I eth0 $VIP" | grep -iE '(bytes|reply) from' || true)
    [[ ${answers,,} == *"$DIRECTOR_MAC"* ]] && ! grep -qiv "$DIRECTOR_MAC" <<<"$answers"
}

# The guide's lines for ipvsadm, verbatim.
ipvsadm_commands() {
    cat <<END
ipvsadm -C
ipvsadm -A -t $VIP:80 -s rr -p 120
ipvsadm -a -t $VIP:80 -r $NET.64:80 -g
ipvsadm -a -t $VIP:80 -r $NET.68:80 -g
ipvsadm
END
}

balance_with_ipvsadm() {
    title "The service, set up with the distribution's ipvsadm: $(dpkg-query -W -f '${Package} ${Version}' ipvsadm 2>/dev/null || echo ipvsadm)"
    note "The word is a wrapper: $(command -v ipvsadm) runs /usr/sbin/ipvsadm by \`uvsctl exec\`."
    note "-g is VS/DR: the director only changes the MACs of a request and sends it on; the server answers by itself."
    while read -r command; do show director "$command"; done < <(ipvsadm_commands)
    claim "the kernel of this machine has no part in it: what ipvsadm shows is what uvsd has" both_tools_agree
}

# uvsctl shows the two servers that ipvsadm shows.
both_tools_agree() {
    local ours theirs
    theirs=$(servers_of "$VIP:80" | sort)
    ours=$(on director 'uvsctl --json service list' |
        jq -r '.services[0].destinations[] | "\(.address) \(.weight)"' | sort)
    [[ $(wc -l <<<"$theirs") == 2 && $ours == "$theirs" ]]
}

with_persistence() {
    title "With persistence (-p 120) a client stays on its server"
    start_capture
    local client answers firsts=()
    for client in "${CLIENTS[@]}"; do
        REQUESTS=$((REQUESTS + 3))
        answers=$(ask "$client" && ask "$client" && ask "$client") || die "the client $client got no answer from $VIP"
        printf '   %s asked %s three times: %s\n' "$client" "$VIP" "$(tr '\n' ' ' <<<"$answers")"
        claim "$client stayed on ${answers%%$'\n'*}" same_lines "$answers"
        firsts+=("${answers%%$'\n'*}")
    done
    stop_capture
    claim "the clients were shared out: $(shares "${firsts[@]}")" evenly_shared "${firsts[@]}"
    claim "requests went to the director's MAC; every answer came straight from a real server's MAC" answers_came_directly
}

# Requests made so far, a connection each.
REQUESTS=0

all_connections_counted() { [[ $(sum_of connections) == "$REQUESTS" ]]; }

# One request from client address $1; prints who answered.
ask() { on client "curl -sS -m 3 --interface $1 http://$VIP/"; }

same_lines() { [[ -n $1 && $(sort -u <<<"$1" | wc -l) == 1 ]]; }

shares() { printf '%s\n' "$@" | sort | uniq -c | awk '{ printf "%s%s %s times", sep, $2, $1; sep = ", " }'; }

# Round robin is exact on one worker; on n workers the shares of two servers differ by at most n.
evenly_shared() {
    local a b
    a=$(printf '%s\n' "$@" | grep -c '^r64$' || true)
    b=$(printf '%s\n' "$@" | grep -c '^r68$' || true)
    ((a + b == $# && a - b <= WORKERS && b - a <= WORKERS))
}

start_capture() {
    on_background client tcpdump -i eth0 -nn -e -U --immediate-mode -w "$LAB/client.pcap" 'tcp port 80' 2>"$LAB/tcpdump.log"
    CAPTURE_PID=$!
    wait_until 5 grep -q 'listening on' "$LAB/tcpdump.log" || die "tcpdump does not start: $(<"$LAB/tcpdump.log")"
}

stop_capture() {
    sleep 0.2
    kill -INT "$CAPTURE_PID"
    wait "$CAPTURE_PID" || true
}

answers_came_directly() {
    local mac answers=0 requests=0
    while read -r mac; do
        [[ $mac == "$DIRECTOR_MAC" ]] || return 1
        requests=$((requests + 1))
    done < <(captured "dst host $VIP" 4)
    while read -r mac; do
        [[ $mac == "$(server_mac r64)" || $mac == "$(server_mac r68)" ]] || return 1
        answers=$((answers + 1))
    done < <(captured "src host $VIP" 2)
    quiet_note "$requests frames of requests, $answers frames of answers looked at"
    ((requests > 0 && answers > 0))
}

# Field $2 (2: source MAC, 4: destination MAC) of the captured frames that match $1.
captured() { tcpdump -nn -e -r "$LAB/client.pcap" "$1" 2>/dev/null | awk -v field="$2" '{ gsub(",", ""); print $field }'; }

without_persistence() {
    title "The same service without persistence: requests go to the servers in turn"
    show director "ipvsadm -E -t $VIP:80 -s rr"
    local round client answers=()
    for round in 1 2 3; do
        for client in "${CLIENTS[@]}"; do
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
    show client "curl -sS -m 3 http://$VIP/files/hello.txt"
    REQUESTS=$((REQUESTS + 1))
    claim "1 MiB fetched four times through the VIP is the same as on the servers' disk" file_arrives_whole
}

file_arrives_whole() {
    local _
    for _ in 1 2 3 4; do
        REQUESTS=$((REQUESTS + 1))
        on client "curl -sS -m 10 http://$VIP/files/1MiB" | cmp -s - "$LAB/shared/files/1MiB" || return 1
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
    claim "it carried the requests only: no answer passed through it" test "$(sum_of out_packets)" = 0
}

# The rules as every LVS host keeps them over a reboot.
save_and_restore() {
    title "Saved, cleared, restored"
    show director "ipvsadm-save -n | tee $LAB/rules"
    show director "ipvsadm -C"
    claim "cleared: a client is refused at once" refused
    show director "ipvsadm-restore <$LAB/rules"
    claim "restored: ipvsadm-save says the same again" same_rules
    show client "curl -sS -m 3 http://$VIP/"
}

# The kernel's answer for a port that nobody serves: not a timeout.
refused() {
    local status=0
    on client "curl -s -m 2 http://$VIP/" || status=$?
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
   a request                  sudo ip netns exec $(space client) curl --interface ${CLIENTS[0]} http://$VIP/
   a load                     sudo ip netns exec $(space client) wrk -c 50 -d 10 http://$VIP/
   the director's shell       sudo ip netns exec $(space director) env UVS_CONTROL=$LAB/control/control.sock PATH="$REPOSITORY/scripts/wrappers:$(bin_directory):\$PATH" bash
     there, for example       ipvsadm -Ln; ipvsadm -Lnc; uvsctl status; uvsctl stats; ip address show eth0
   take a server away         ipvsadm -e -t $VIP:80 -r $NET.64:80 -g -w 0
   a real server's shell      sudo ip netns exec $(space r64) bash
   the daemon's log           $LAB/uvsd.log
   remove it all              scripts/demo --clean
END
}
