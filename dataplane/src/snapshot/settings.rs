//! What an operator sets for the whole director: the kernel's timeouts and sysctls, with its names and defaults.

use serde::{Deserialize, Serialize};

/// Timeouts in milliseconds that an operator may change; the other states' are constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp: u32,
    /// TCP FIN_WAIT.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: 900_000, tcp_fin: 120_000, udp: 300_000 }
    }
}

/// Settings by the names they have in the kernel's `/proc/sys/net/ipv4/vs`, with its defaults; and `evict_half_open`, which a kernel,
/// whose table is as long as memory lasts, has no use for.
///
/// Defences (`drop_entry`, `drop_packet`, `secure_tcp`) have the kernel's modes: 0 never, 1 when memory is short, 2 memory is
/// short (1 becomes 2 and back by itself), 3 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// With `drop_packet` = 3: of so many packets that would be scheduled, one is dropped; at least 1.
    pub am_droprate: u32,
    /// Memory is short when a worker's table has fewer free connections than this (the kernel counts free pages).
    pub amemthresh: u32,
    /// A mark's packets go on by route while no destination of the service is usable.
    pub cache_bypass: bool,
    /// What a SYN on a dying connection does: bit 0 reschedules from TIME_WAIT and CLOSE, bit 1 from FIN_WAIT too.
    pub conn_reuse_mode: u8,
    /// Whether half-open connections are thrown out at random.
    pub drop_entry: u8,
    /// Whether packets that would be scheduled are dropped.
    pub drop_packet: u8,
    /// In a full table a new connection takes the place of one whose client has not completed its handshake; otherwise it is refused.
    pub evict_half_open: bool,
    /// A packet of a connection whose destination was removed is looked at afresh.
    pub expire_nodest_conn: bool,
    /// Templates of quiesced destinations are not used.
    pub expire_quiescent_template: bool,
    /// Seconds after which `lblc` forgets an address that nobody asked for.
    pub lblc_expiration: u32,
    /// Seconds after which `lblcr` forgets an address, and takes a server out of an unchanged set.
    pub lblcr_expiration: u32,
    /// A masqueraded server's packet without a connection is answered by ICMP.
    pub nat_icmp_send: bool,
    /// Tunnels obey the packet's don't-fragment bit.
    pub pmtu_disc: bool,
    /// An ICMP error may open a connection.
    pub schedule_icmp: bool,
    /// Whether TCP connections follow the defence tables.
    pub secure_tcp: u8,
    /// Any SCTP packet may open a connection.
    pub sloppy_sctp: bool,
    /// A TCP packet without SYN may open a connection.
    pub sloppy_tcp: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            am_droprate: 10,
            amemthresh: 1024,
            cache_bypass: false,
            conn_reuse_mode: 1,
            drop_entry: 0,
            drop_packet: 0,
            evict_half_open: true,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            lblc_expiration: 86_400,
            lblcr_expiration: 86_400,
            nat_icmp_send: false,
            pmtu_disc: true,
            schedule_icmp: false,
            secure_tcp: 0,
            sloppy_sctp: false,
            sloppy_tcp: false,
        }
    }
}
