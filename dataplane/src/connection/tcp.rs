//! Connection states, as IPVS keeps them, and how those of TCP follow its packets.

use super::line::flags::NO_OUTPUT;
use crate::counters::Activity;
use crate::flow::protocol;
use crate::packet::tcp as tcp_flags;
use crate::snapshot::Timeouts;

/// States, with the kernel's numbers for TCP; those of SCTP, which begin at 1 in the kernel, follow from 12 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// New, or nothing said of it.
    None = 0,
    /// Both ends have spoken, or so it seems to a director that sees one side.
    Established = 1,
    /// The server's SYN was seen first.
    SynSent = 2,
    /// The client's SYN was seen.
    SynRecv = 3,
    /// The server's FIN was seen, or with direct routing the client's.
    FinWait = 4,
    /// Both FINs were seen.
    TimeWait = 5,
    /// Reset, or about to be forgotten.
    Close = 6,
    /// The client's FIN was seen.
    CloseWait = 7,
    /// The last FIN is to be acknowledged.
    LastAck = 8,
    /// Waits for the other end to connect.
    Listen = 9,
    /// SYN in defence mode.
    SynAck = 10,
    /// UDP has only one.
    Udp = 11,
    /// SCTP: the first INIT was seen.
    SctpInit1 = 12,
    /// SCTP: another INIT.
    SctpInit = 13,
    /// SCTP: the server sent its cookie.
    SctpCookieSent = 14,
    /// SCTP: the client returned the cookie.
    SctpCookieReplied = 15,
    /// SCTP: the server's INIT waits for the client's cookie.
    SctpCookieWait = 16,
    /// SCTP: the client sent a cookie.
    SctpCookie = 17,
    /// SCTP: the server returned the client's cookie.
    SctpCookieEchoed = 18,
    /// SCTP: an association.
    SctpEstablished = 19,
    /// SCTP: the server began to shut down.
    SctpShutdownSent = 20,
    /// SCTP: the client began to shut down.
    SctpShutdownReceived = 21,
    /// SCTP: the server acknowledged the shutdown.
    SctpShutdownAckSent = 22,
    /// SCTP: the answer to the first INIT was an ABORT.
    SctpRejected = 23,
    /// SCTP: shut down or aborted.
    SctpClosed = 24,
}

/// The end that sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The client.
    Client,
    /// The server: a reply.
    Server,
}

impl State {
    /// All of them, by number.
    pub const ALL: [Self; 25] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
        Self::Udp,
        Self::SctpInit1,
        Self::SctpInit,
        Self::SctpCookieSent,
        Self::SctpCookieReplied,
        Self::SctpCookieWait,
        Self::SctpCookie,
        Self::SctpCookieEchoed,
        Self::SctpEstablished,
        Self::SctpShutdownSent,
        Self::SctpShutdownReceived,
        Self::SctpShutdownAckSent,
        Self::SctpRejected,
        Self::SctpClosed,
    ];

    /// The state of a number, `None` for one that is unknown.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        if number < 25 { Self::ALL[number as usize] } else { Self::None }
    }

    /// Whether a client has begun a handshake and not completed it: it may be one that never will.
    #[inline(always)]
    #[must_use]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynRecv | Self::SynAck | Self::SctpInit1 | Self::SctpInit)
    }

    /// Name as ipvsadm prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established | Self::SctpEstablished => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
            Self::Udp => "UDP",
            Self::SctpInit1 => "INIT1",
            Self::SctpInit => "INIT",
            Self::SctpCookieSent => "C-SENT",
            Self::SctpCookieReplied => "C-REPLIED",
            Self::SctpCookieWait => "C-WAIT",
            Self::SctpCookie => "COOKIE",
            Self::SctpCookieEchoed => "C-ECHOED",
            Self::SctpShutdownSent => "S-SENT",
            Self::SctpShutdownReceived => "S-RECEIVED",
            Self::SctpShutdownAckSent => "S-ACK-SENT",
            Self::SctpRejected => "REJECTED",
            Self::SctpClosed => "CLOSED",
        }
    }
}

/// The state a connection of `protocol` starts from, before its first packet is looked at.
#[inline]
#[must_use]
pub const fn initial(number: u8) -> State {
    if number == protocol::UDP { State::Udp } else { State::None }
}

/// How long a connection lives in `state` without a packet, in milliseconds.
#[inline(always)]
#[must_use]
pub const fn timeout(state: State, timeouts: &Timeouts) -> u32 {
    match state {
        State::None => 2_000,
        State::Established => timeouts.tcp,
        State::FinWait => timeouts.tcp_fin,
        State::SynSent | State::TimeWait | State::Listen | State::SynAck => 120_000,
        State::SynRecv | State::CloseWait => 60_000,
        State::Close => 10_000,
        State::LastAck => 30_000,
        State::Udp => timeouts.udp,
        State::SctpInit1 | State::SctpRejected => 4_000,
        State::SctpEstablished => 900_000,
        State::SctpInit
        | State::SctpCookieSent
        | State::SctpCookieReplied
        | State::SctpCookieWait
        | State::SctpCookie
        | State::SctpCookieEchoed
        | State::SctpShutdownSent
        | State::SctpShutdownReceived
        | State::SctpShutdownAckSent
        | State::SctpClosed => 61_000,
    }
}

/// How a connection in `state` counts.
#[inline(always)]
#[must_use]
pub const fn activity(state: State) -> Activity {
    match state {
        State::Established | State::SynSent | State::SynRecv | State::SynAck | State::SctpEstablished => {
            Activity::Active
        }
        _ => Activity::Inactive,
    }
}

use State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI, None as NO,
    SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
};

/// Next state by event (syn, fin, ack, rst) and state.
type Transitions = [[State; 11]; 4];

/// The client's packets where replies are seen too.
const INPUT: Transitions = [
    [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
    [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
    [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
    [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
];
/// The server's packets.
const OUTPUT: Transitions = [
    [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
    [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
    [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
    [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
];
/// The client's packets where the server answers past the director.
const INPUT_ONLY: Transitions = [
    INPUT[0],
    [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
    INPUT[2],
    [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
];

/// The same in defence mode (`secure_tcp`), where a SYN proves nothing.
const SECURE_INPUT: Transitions = [
    [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
    [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
    [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
    [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
];
/// The server's packets in defence mode.
const SECURE_OUTPUT: Transitions =
    [[SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA], OUTPUT[1], OUTPUT[2], OUTPUT[3]];
/// The client's packets in defence mode where the server answers past the director.
const SECURE_INPUT_ONLY: Transitions =
    [[SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA], INPUT_ONLY[1], INPUT_ONLY[2], INPUT_ONLY[3]];

const NORMAL: [Transitions; 3] = [INPUT, OUTPUT, INPUT_ONLY];
const SECURE: [Transitions; 3] = [SECURE_INPUT, SECURE_OUTPUT, SECURE_INPUT_ONLY];

/// State and flag word of a TCP connection after a packet with the header flags `packet` from `sender`. A reply clears
/// [`NO_OUTPUT`], the mark of direct routing and tunnelling; while it stands, the client's packets alone decide.
#[inline]
#[must_use]
pub fn next(state: State, flags: u32, sender: Sender, packet: u8, secure: bool) -> (State, u32) {
    let (table, flags) = match sender {
        Sender::Server => (1, flags & !NO_OUTPUT),
        Sender::Client if flags & NO_OUTPUT != 0 => (2, flags),
        Sender::Client => (0, flags),
    };
    let event = if packet & tcp_flags::RST != 0 {
        3
    } else if packet & tcp_flags::SYN != 0 {
        0
    } else if packet & tcp_flags::FIN != 0 {
        1
    } else if packet & tcp_flags::ACK != 0 {
        2
    } else {
        return (CL, flags);
    };
    let tables = if secure { &SECURE } else { &NORMAL };
    (tables[table][event].get(state as usize).copied().unwrap_or(NO), flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the reference has it: a row for each event, columns by state.
    const REFERENCE: &str = "
        in  syn SR ES ES SR SR SR SR SR SR SR SR
        in  fin CL CW SS TW TW TW CL CW LA LI TW
        in  ack ES ES SS ES FW TW CL CW CL LI ES
        in  rst CL CL CL SR CL CL CL CL LA LI SR
        out syn SS ES SS SR SS SS SS SS SS LI SR
        out fin TW FW SS TW FW TW CL TW LA LI TW
        out ack ES ES SS ES FW TW CL CW LA ES ES
        out rst CL CL SS CL CL TW CL CL CL CL CL
        dr  syn SR ES ES SR SR SR SR SR SR SR SR
        dr  fin CL FW SS TW FW TW CL CW LA LI TW
        dr  ack ES ES SS ES FW TW CL CW CL LI ES
        dr  rst CL CL CL SR CL CL CL CL LA LI CL";

    #[test]
    fn an_acknowledgement_leaves_an_established_connection_as_it_is() {
        for flags in [0, NO_OUTPUT] {
            for packet in (0..=u8::MAX).filter(|packet| packet & 0x17 == tcp_flags::ACK) {
                for secure in [false, true] {
                    let after = next(State::Established, flags, Sender::Client, packet, secure);
                    assert_eq!(after, (State::Established, flags));
                }
            }
        }
    }

    /// What defence mode changes: event, state before, state after.
    const DEFENCE: &str = "
        in  syn SA SA
        in  fin SA SA
        in  ack SR SR
        in  ack SA SA
        in  ack NO ES
        in  rst SA CL
        out syn SR SA
        out syn SA SA
        dr  syn NO SA
        dr  syn ES ES
        dr  syn SS ES
        dr  syn SR SR
        dr  syn FW SA
        dr  syn TW SA
        dr  syn CL SA
        dr  syn CW SA
        dr  syn LA SA
        dr  syn LI SA
        dr  syn SA SA";

    fn state(short: &str) -> State {
        let names = ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"];
        State::from_number(u8::try_from(names.iter().position(|name| *name == short).unwrap()).unwrap())
    }

    fn event(name: &str) -> u8 {
        match name {
            "syn" => tcp_flags::SYN,
            "fin" => tcp_flags::FIN,
            "ack" => tcp_flags::ACK,
            "rst" => tcp_flags::RST,
            other => panic!("event {other}"),
        }
    }

    fn sender(name: &str) -> (u32, Sender) {
        match name {
            "in" => (0, Sender::Client),
            "out" => (0, Sender::Server),
            "dr" => (NO_OUTPUT, Sender::Client),
            other => panic!("sender {other}"),
        }
    }

    #[test]
    fn every_cell_of_the_table() {
        let mut cells = 0;
        for row in REFERENCE.trim().lines() {
            let words: Vec<_> = row.split_whitespace().collect();
            let (flags, sender) = sender(words[0]);
            assert_eq!(words.len(), 13, "{row}");
            for (before, after) in State::ALL.into_iter().zip(&words[2..]) {
                let reached = next(before, flags, sender, event(words[1]), false);
                assert_eq!(reached, (state(after), flags), "{row}: from {}", before.name());
                cells += 1;
            }
        }
        assert_eq!(cells, 3 * 4 * 11);
    }

    #[test]
    fn every_cell_of_defence_mode() {
        let changes: Vec<Vec<_>> =
            DEFENCE.trim().lines().map(|row| row.split_whitespace().collect()).collect();
        for direction in ["in", "out", "dr"] {
            for name in ["syn", "fin", "ack", "rst"] {
                for before in &State::ALL[..11] {
                    let (flags, sender) = sender(direction);
                    let normal = next(*before, flags, sender, event(name), false).0;
                    let wanted = changes
                        .iter()
                        .find(|row| row[0] == direction && row[1] == name && state(row[2]) == *before)
                        .map_or(normal, |row| state(row[3]));
                    let reached = next(*before, flags, sender, event(name), true).0;
                    assert_eq!(reached, wanted, "{direction} {name} {}", before.name());
                }
            }
        }
    }

    #[test]
    fn the_strongest_flag_decides() {
        use tcp_flags::{ACK, FIN, RST, SYN};
        let step = |packet| next(State::Established, NO_OUTPUT, Sender::Client, packet, false).0;
        assert_eq!(step(SYN | FIN | ACK), State::Established);
        assert_eq!(step(FIN | ACK), State::FinWait);
        assert_eq!(step(RST | SYN | FIN | ACK), State::Close);
        assert_eq!(step(ACK | 0x08), State::Established);
        assert_eq!(step(0x08), State::Close);
        assert_eq!(step(0), State::Close);
    }

    #[test]
    fn a_reply_ends_the_one_sided_view() {
        let (state, flags) =
            next(State::SynRecv, NO_OUTPUT | 3, Sender::Server, tcp_flags::SYN | tcp_flags::ACK, false);
        assert_eq!((state, flags), (State::SynRecv, 3));
        assert_eq!(
            next(State::Established, flags, Sender::Client, tcp_flags::FIN, false).0,
            State::CloseWait
        );
    }

    #[test]
    fn timeouts_and_activity_are_the_kernels() {
        let defaults = Timeouts::default();
        let seconds: Vec<_> = State::ALL.iter().map(|state| timeout(*state, &defaults) / 1000).collect();
        assert_eq!(seconds[..12], [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 300]);
        // By the kernel's listings, some time after a packet.
        assert_eq!(seconds[12..], [4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61]);
        let set = Timeouts { tcp: 1, tcp_fin: 2, udp: 3 };
        assert_eq!(timeout(State::Established, &set), 1);
        assert_eq!((timeout(State::FinWait, &set), timeout(State::TimeWait, &set)), (2, 120_000));
        assert_eq!(timeout(State::Udp, &set), 3);
        let active: Vec<_> =
            State::ALL.iter().filter(|state| activity(**state) == Activity::Active).collect();
        assert_eq!(
            active,
            [&State::Established, &State::SynSent, &State::SynRecv, &State::SynAck, &State::SctpEstablished]
        );
        assert_eq!((initial(protocol::UDP), initial(protocol::TCP)), (State::Udp, State::None));
    }

    #[test]
    fn numbers_are_states() {
        for (number, state) in (0u8..).zip(State::ALL) {
            assert_eq!((state as u8, State::from_number(number)), (number, state));
        }
        assert_eq!(State::from_number(25), State::None);
    }
}
