//! What happened lately, numbered, for `events.list`.

use crate::protocol::{Event, EventPage, EventQuery, PAGE_MAX};
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

/// Events that are remembered; older ones are forgotten, and counted as lost for who asks for them.
const KEPT: usize = 1024;

/// The last events. Written by the publisher thread alone.
#[derive(Debug, Default)]
pub(super) struct Events {
    kept: VecDeque<Event>,
    sequence: u64,
}

impl Events {
    /// Remembers an event, and logs it.
    pub(super) fn add(&mut self, kind: &str, revision: u64, text: String) {
        tracing::info!(kind, revision, "{text}");
        self.sequence += 1;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Event {
            sequence: self.sequence,
            time_ms,
            kind: kind.to_owned(),
            revision,
            text,
        });
    }

    pub(super) fn page(&self, query: EventQuery) -> EventPage {
        let limit = query.limit.unwrap_or(PAGE_MAX) as usize;
        let oldest = self.kept.front().map_or(self.sequence + 1, |event| event.sequence);
        let events: Vec<_> =
            self.kept.iter().filter(|event| event.sequence > query.since).take(limit).cloned().collect();
        let next = events
            .last()
            .map_or_else(|| query.since.clamp(oldest - 1, self.sequence), |event| event.sequence);
        EventPage { events, next, lost: (oldest - 1).saturating_sub(query.since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_on_where_the_last_one_ended_and_say_what_is_lost() {
        let mut events = Events::default();
        for number in 0..KEPT + 10 {
            events.add("change", 1, number.to_string());
        }
        let page = events.page(EventQuery { since: 0, limit: Some(5) });
        assert_eq!((page.events[0].sequence, page.next, page.lost), (11, 15, 10));
        let page = events.page(EventQuery { since: page.next, limit: None });
        assert_eq!((page.events[0].sequence, page.lost), (16, 0));
    }
}
