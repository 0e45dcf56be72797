//! How the states of SCTP connections follow their packets, as IPVS keeps them: found by asking the kernel, which lists a
//! connection's state after every packet.

use super::line::flags::NO_OUTPUT;
use super::tcp::{Sender, State};
use crate::packet::sctp::Event;

use State::{
    SctpClosed as CL, SctpCookie as CO, SctpCookieEchoed as CE, SctpCookieReplied as CR,
    SctpCookieSent as CS, SctpCookieWait as CW, SctpEstablished as ES, SctpInit as IN, SctpInit1 as I1,
    SctpRejected as RJ, SctpShutdownAckSent as SA, SctpShutdownReceived as SR, SctpShutdownSent as SS,
};

/// Next state by event, in the order of [`Event::ALL`], and state. Cells that no packets lead to are those of the client's packets.
type Transitions = [[State; 14]; 10];

/// The client's packets where replies are seen too.
#[rustfmt::skip]
const INPUT: Transitions = [
    [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],
    [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],
    [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
    [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL],
    [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL],
    [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL],
    [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
];
/// The server's packets.
#[rustfmt::skip]
const OUTPUT: Transitions = [
    [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [I1, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW],
    [CW, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CR, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL],
    [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL],
    [SR, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL],
    [CL, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL],
    [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
];
/// The client's packets where the server answers past the director.
#[rustfmt::skip]
const INPUT_ONLY: Transitions = [
    [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],
    [CE, CE, CE, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],
    [ES, ES, ES, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],
    [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
    [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL],
    [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, CL, CL, RJ, CL],
    [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
    [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
];

/// The column of a state: the kernel's number for it.
const fn column(state: State) -> usize {
    match state {
        State::None => 0,
        state => (state as usize).wrapping_sub(State::SctpInit1 as usize - 1),
    }
}

/// State and flag word of an SCTP connection after a packet from `sender`. A reply clears [`NO_OUTPUT`], the mark of direct routing
/// and tunnelling; while it stands, the client's packets alone decide.
#[must_use]
pub fn next(state: State, flags: u32, sender: Sender, event: Event) -> (State, u32) {
    let (table, flags) = match sender {
        Sender::Server => (&OUTPUT, flags & !NO_OUTPUT),
        Sender::Client if flags & NO_OUTPUT != 0 => (&INPUT_ONLY, flags),
        Sender::Client => (&INPUT, flags),
    };
    let row = usize::from(event as u8 - 1);
    (table[row].get(column(state)).copied().unwrap_or(CL), flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_association_comes_and_goes() {
        let walk = |flags, packets: &[(Sender, Event)]| {
            let step =
                |(state, flags), (sender, event): &(Sender, Event)| next(state, flags, *sender, *event);
            packets.iter().fold((State::None, flags), step)
        };
        let (client, server) = (Sender::Client, Sender::Server);
        let opened = [
            (client, Event::Init),
            (server, Event::InitAck),
            (client, Event::CookieEcho),
            (server, Event::CookieAck),
            (client, Event::Other),
        ];
        assert_eq!(walk(0, &opened).0, State::SctpEstablished);
        let closed =
            [(client, Event::Shutdown), (server, Event::ShutdownAck), (client, Event::ShutdownComplete)];
        assert_eq!(walk(0, &[&opened[..], &closed].concat()).0, State::SctpClosed);
        // With direct routing the director sees the client alone.
        let one_side = [(client, Event::Init), (client, Event::CookieEcho)];
        assert_eq!(walk(NO_OUTPUT, &one_side), (State::SctpEstablished, NO_OUTPUT));
        assert_eq!(walk(NO_OUTPUT, &[one_side[0], (server, Event::InitAck)]), (State::SctpCookieSent, 0));
        assert_eq!(walk(0, &[(client, Event::Init), (server, Event::Abort)]).0, State::SctpRejected);
    }

    #[test]
    fn every_state_and_event_leads_to_a_state_of_sctp() {
        let states = [State::None].into_iter().chain(State::ALL.into_iter().skip(12));
        for (number, state) in states.enumerate() {
            assert_eq!(column(state), number);
            for event in Event::ALL {
                for (flags, sender) in [(0, Sender::Client), (NO_OUTPUT, Sender::Client), (0, Sender::Server)]
                {
                    let (next, _) = next(state, flags, sender, event);
                    assert!(next as u8 >= 12, "{state:?} {event:?}: {next:?}");
                }
            }
            assert_eq!(next(state, 0, Sender::Client, Event::Abort).0 == State::SctpRejected, state == CW);
        }
        assert_eq!(next(State::TimeWait, 0, Sender::Client, Event::Other).0, CL, "not a state of SCTP");
    }
}
