# shellcheck shell=bash
# Captured frames, judged by tshark: every length and every checksum of IP, TCP, UDP, SCTP, ICMP, ICMPv6 and GRE, also inside
# IPIP, GRE and GUE, and of the IPv4 header that an ICMP error quotes.

# What tshark looks into. No dissector of what is carried: its opinion on application data is not asked.
DISSECTED='frame|eth|ethertype|ip|ipv6|ipv6\.(hopopts|dstopts|routing|fraghdr)|tcp|udp|sctp|icmp|icmpv6|gre|ah|esp|data|_ws\..*'
# Malformed, against the protocol, or a checksum; groups of tshark's expert information by number. What an ICMP error quotes is
# mostly cut short, so that the checksum of a quoted segment says nothing.
WRONG='_ws.expert.group in {0x07000000, 0x09000000} || (_ws.expert.group == 0x01000000 && !icmp && !icmpv6) ||
    ip.checksum.status == "Bad" || icmp.checksum.status == "Bad" || icmpv6.checksum.status == "Bad"'
# Frames on which it is tried whether tshark finds damage.
DAMAGED=100

# judge_with DIRECTORY: tshark's settings are there from now on.
judge_with() {
    export WIRESHARK_CONFIG_DIR=$1
    mkdir -p "$1"
    # By default it believes checksums, because hosts leave them to their NICs.
    cat >"$1/preferences" <<'END'
ip.check_checksum: TRUE
tcp.check_checksum: TRUE
udp.check_checksum: TRUE
sctp.checksum: CRC 32c
tcp.analyze_sequence_numbers: FALSE
tcp.desegment_tcp_streams: FALSE
END
    tshark -G protocols 2>/dev/null | cut -f 3 | grep -vxE "$DISSECTED" >"$1/disabled_protos"
}

# What tshark would rather have written otherwise and every receiver takes: 0 is 0xffff, too, in ones' complement. One in 65,536
# segments leaves Linux's own segmentation so; the director, which never writes a TCP checksum so, passes it on as it came. GUE
# without checksum over IPv6 has none in its UDP header, which RFC 6935 allows tunnels.
TOLERATED='(TCP Checksum 0xffff instead of 0x0000 \(see RFC 1624\)|Illegal checksum value \(0\))'

# judged CAPTURE [FILTER]: a line for each frame that is wrong, `NUMBER: WHY`; then, after a line of `=`, tshark's table of what was
# looked at.
judged() {
    tshark -n -r "$1" -X "lua_script:$TOOLS/gue.lua" -Y "(${2:-frame}) && ($WRONG)" -z "io,phs,${2:-frame}" \
        -T fields -E separator=: -e frame.number -e _ws.expert.message 2>"$1.tshark" | sed -E "/^$/d; /^[0-9]+:$TOLERATED\$/d"
}

# Claims that nothing is wrong in any frame of these captures.
all_is_right() { all_is_right_where frame "$@"; }

# all_is_right_where FILTER CAPTURE…: in the frames that pass tshark's display filter.
all_is_right_where() {
    local filter=$1 capture found
    shift
    [[ -n ${WIRESHARK_CONFIG_DIR:-} ]] || judge_with "$LAB/tshark"
    : >"$LAB/judged"
    for capture in "$@"; do
        found=$(judged "$capture" "$filter") || die "tshark cannot read ${capture##*/}: $(<"$capture.tshark")"
        [[ $found == =* ]] || die "a bad frame in ${capture##*/}, number $(head -n 1 <<<"$found")"
        echo "$found" >>"$LAB/judged"
    done
    claim "tshark finds every length and checksum right: $(looked_at)" any_frame
    [[ -n $FINDS_DAMAGE ]] || find_damage "$@"
}

# Once in a lab: it would have found what is wrong.
FINDS_DAMAGE=''
find_damage() {
    local longest
    longest=$(stat -c '%s %n' "$@" | sort -n | tail -n 1 | cut -d ' ' -f 2-)
    editcap --seed 1 -E 0.05 -r "$longest" "$LAB/damaged.pcap" "1-$DAMAGED" 2>/dev/null
    FINDS_DAMAGE=$(judged "$LAB/damaged.pcap" | sed '/^=/,$d' | wc -l)
    claim "and in $DAMAGED frames with damaged bytes it finds $FINDS_DAMAGE bad ones" holds "FINDS_DAMAGE >= DAMAGED / 4"
}

any_frame() { grep -q 'frames:[1-9]' "$LAB/judged"; }

# How many headers of which kind, from tshark's tables: lines like `    tcp      frames:8 bytes:471`.
looked_at() {
    awk '/frames:/ && $1 !~ /^(eth|data|frame|ethertype|_ws\..*)$/ { sub("frames:", "", $2); sum[$1] += $2 }
        END { for (name in sum) printf "%d %s\n", sum[name], name }' "$LAB/judged" | sort -rn | paste -sd ',' | sed 's/,/, /g'
}

CAPTURE_PIDS=()
CAPTURED=()

# Checksums are whole and frames as on the wire for everybody from here on.
without_offloads() {
    local host interface
    for host in client "${SERVERS[@]}" "$@"; do
        for interface in eth0 eth1; do
            on "$host" "ethtool -K $interface tx off tso off gso off gro off" >/dev/null 2>&1 || true
        done
    done
}

# start_captures HOST…: what each of them gets, from here to stop_captures.
start_captures() {
    local host
    CAPTURE_PIDS=() CAPTURED=()
    for host in "$@"; do
        on_background "$host" tcpdump -i eth0 -Q in -s 0 -U -B 65536 -w "$LAB/$host.pcap" 'ip or ip6' 2>"$LAB/$host.tcpdump"
        CAPTURE_PIDS+=($!)
        CAPTURED+=("$LAB/$host.pcap")
        wait_until 5 grep -q 'listening on' "$LAB/$host.tcpdump" || die "tcpdump does not start on $host"
    done
}

# Ends them and claims that nothing was wrong in any frame.
stop_captures() {
    # What the capture buffers is written after a second.
    sleep 1.2
    kill -INT "${CAPTURE_PIDS[@]}"
    wait "${CAPTURE_PIDS[@]}" || true
    all_is_right "${CAPTURED[@]}"
}
