//! Numbers of the wire: generic netlink's controller and the kernel's IPVS family (`linux/genetlink.h`, `linux/ip_vs.h`).

/// `nlmsg_type` of the controller, which every system has under this number.
pub(super) const CONTROLLER: u16 = 0x10;
/// `nlmsg_type` of the IPVS family. The kernel hands such numbers out as modules are loaded; clients ask for it by name.
pub(super) const IPVS: u16 = 0x20;
/// `nlmsg_type` of our own requests for the text of a `/proc/net` file, and of its pieces. No family is called this here.
pub(super) const FILE: u16 = 0x7e;
/// Types below are netlink's own, such as `NLMSG_NOOP`.
pub(super) const FIRST_FAMILY: u16 = 0x10;

/// Version of IPVS in `IPVS_INFO_ATTR_VERSION` and in `/proc/net/ip_vs`: 1.2.1.
pub(super) const IPVS_VERSION: [u8; 3] = [1, 2, 1];
/// The size of the kernel's connection table unless its module is told otherwise, which is what tools show. The director's own
/// sizes are in `status`.
pub(super) const CONNECTION_TABLE: u32 = 4096;
/// Longest timeout the kernel takes, in seconds: a signed 32-bit number of its ticks of 4 ms.
pub(super) const TIMEOUT_MAX: u32 = 2_147_483_647 / TICKS_PER_SECOND;
/// The kernel's clock ticks a second (`CONFIG_HZ` of Debian), the unit of persistence in `/proc/net/ip_vs`.
pub(super) const TICKS_PER_SECOND: u32 = 250;

/// `AF_INET` and `AF_INET6`.
pub(super) const INET: u16 = 2;
/// See [`INET`].
pub(super) const INET6: u16 = 10;

/// `IPVS_CMD_*`.
pub(super) mod command {
    pub(crate) const NEW_SERVICE: u8 = 1;
    pub(crate) const SET_SERVICE: u8 = 2;
    pub(crate) const DEL_SERVICE: u8 = 3;
    pub(crate) const GET_SERVICE: u8 = 4;
    pub(crate) const NEW_DEST: u8 = 5;
    pub(crate) const SET_DEST: u8 = 6;
    pub(crate) const DEL_DEST: u8 = 7;
    pub(crate) const GET_DEST: u8 = 8;
    pub(crate) const NEW_DAEMON: u8 = 9;
    pub(crate) const DEL_DAEMON: u8 = 10;
    pub(crate) const GET_DAEMON: u8 = 11;
    pub(crate) const SET_CONFIG: u8 = 12;
    pub(crate) const GET_CONFIG: u8 = 13;
    /// Only ever an answer.
    pub(crate) const SET_INFO: u8 = 14;
    pub(crate) const GET_INFO: u8 = 15;
    pub(crate) const ZERO: u8 = 16;
    pub(crate) const FLUSH: u8 = 17;
}

/// `IPVS_CMD_ATTR_*`: what a command carries.
pub(super) mod carried {
    pub(crate) const SERVICE: u16 = 1;
    pub(crate) const DEST: u16 = 2;
    pub(crate) const DAEMON: u16 = 3;
    pub(crate) const TIMEOUT_TCP: u16 = 4;
    pub(crate) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(crate) const TIMEOUT_UDP: u16 = 6;
}

/// `IPVS_SVC_ATTR_*`.
pub(super) mod service {
    pub(crate) const FAMILY: u16 = 1;
    pub(crate) const PROTOCOL: u16 = 2;
    pub(crate) const ADDRESS: u16 = 3;
    pub(crate) const PORT: u16 = 4;
    pub(crate) const MARK: u16 = 5;
    pub(crate) const SCHEDULER: u16 = 6;
    pub(crate) const FLAGS: u16 = 7;
    pub(crate) const TIMEOUT: u16 = 8;
    pub(crate) const NETMASK: u16 = 9;
    pub(crate) const STATS: u16 = 10;
    pub(crate) const ENGINE: u16 = 11;
    pub(crate) const STATS64: u16 = 12;
}

/// `IP_VS_SVC_F_*`.
pub(super) mod flag {
    pub(crate) const PERSISTENT: u32 = 1;
    /// The kernel's own note that a service is in its table; every listing has it.
    pub(crate) const HASHED: u32 = 2;
    pub(crate) const ONE_PACKET: u32 = 4;
    /// The first of three for the scheduler.
    pub(crate) const SCHEDULER_SHIFT: u32 = 3;
    pub(crate) const SCHEDULER: u32 = 7 << SCHEDULER_SHIFT;
    /// All that a client can set and that means something.
    pub(crate) const KNOWN: u32 = PERSISTENT | ONE_PACKET | SCHEDULER;
}

/// `IPVS_DEST_ATTR_*`.
pub(super) mod destination {
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const PORT: u16 = 2;
    pub(crate) const METHOD: u16 = 3;
    pub(crate) const WEIGHT: u16 = 4;
    pub(crate) const UPPER_THRESHOLD: u16 = 5;
    pub(crate) const LOWER_THRESHOLD: u16 = 6;
    pub(crate) const ACTIVE: u16 = 7;
    pub(crate) const INACTIVE: u16 = 8;
    pub(crate) const PERSISTENT: u16 = 9;
    pub(crate) const STATS: u16 = 10;
    pub(crate) const FAMILY: u16 = 11;
    pub(crate) const STATS64: u16 = 12;
    pub(crate) const TUNNEL_KIND: u16 = 13;
    pub(crate) const TUNNEL_PORT: u16 = 14;
    pub(crate) const TUNNEL_FLAGS: u16 = 15;
}

/// `IP_VS_CONN_F_*`: the forwarding methods.
pub(super) mod method {
    pub(crate) const MASK: u32 = 7;
    pub(crate) const MASQUERADE: u32 = 0;
    pub(crate) const TUNNEL: u32 = 2;
    pub(crate) const DIRECT: u32 = 3;
}

/// `IP_VS_CONN_F_TUNNEL_TYPE_*` and `IP_VS_TUNNEL_ENCAP_FLAG_*`.
pub(super) mod tunnel {
    pub(crate) const IPIP: u8 = 0;
    pub(crate) const GUE: u8 = 1;
    pub(crate) const GRE: u8 = 2;
    pub(crate) const CHECKSUM: u16 = 1;
    pub(crate) const REMOTE_CHECKSUM: u16 = 2;
}

/// `IPVS_STATS_ATTR_*`.
pub(super) mod stats {
    pub(crate) const CONNECTIONS: u16 = 1;
    pub(crate) const IN_PACKETS: u16 = 2;
    pub(crate) const OUT_PACKETS: u16 = 3;
    pub(crate) const IN_BYTES: u16 = 4;
    pub(crate) const OUT_BYTES: u16 = 5;
    pub(crate) const CONNECTIONS_PER_S: u16 = 6;
    pub(crate) const IN_PACKETS_PER_S: u16 = 7;
    pub(crate) const OUT_PACKETS_PER_S: u16 = 8;
    pub(crate) const IN_BYTES_PER_S: u16 = 9;
    pub(crate) const OUT_BYTES_PER_S: u16 = 10;
}

/// `IPVS_DAEMON_ATTR_*`.
pub(super) mod daemon {
    pub(crate) const STATE: u16 = 1;
    pub(crate) const INTERFACE: u16 = 2;
    pub(crate) const SYNC_ID: u16 = 3;
    pub(crate) const MASTER: u32 = 1;
    pub(crate) const BACKUP: u32 = 2;
}

/// `IPVS_INFO_ATTR_*`.
pub(super) mod info {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const CONNECTION_TABLE: u16 = 2;
}
