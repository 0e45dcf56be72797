//! Persistence: a client's next connections go where its template says.

use super::Turn;
use super::schedule::{Choice, Fate, thresholds};
use crate::address::Address;
use crate::counters::{Counter, DropReason};
use crate::engine::{Core, Sink};
use crate::flow::{Tuple, port};
use crate::id::DestinationSlot;
use crate::packet::Packet;
use crate::snapshot::{Persistence, ServiceKey, ServiceView, Snapshot};
use crate::template::{TemplateError, TemplateHandle, TemplateKey};
use std::sync::atomic::Ordering::Relaxed;

impl<P: Packet> Core<P> {
    /// A persistent service: the client's template decides, whatever the destination's weight or load, and lives on for its
    /// whole timeout from now; without a template the scheduler decides and a template remembers it.
    pub(super) fn choose_persistent<A: Address, S: Sink<P>>(
        &mut self,
        service: &ServiceView,
        persistence: Persistence,
        tuple: &Tuple<A>,
        turn: &mut Turn<'_, S>,
    ) -> Result<Choice, Fate> {
        let key = template_key(&service.key, persistence, tuple);
        if let Some((handle, slot)) = self.shared.templates.find(&key, turn.now) {
            if takes_templates(slot, turn.snapshot) {
                self.shared.templates.restart(handle, turn.now);
                self.counters().add(Counter::TemplateHits, 1);
                return Ok(self.by_template(service, slot, handle));
            }
            self.shared.templates.invalidate(handle);
        }
        let (slot, reserved) = self.schedule(service, tuple, turn)?;
        let (upper, lower) = thresholds(turn.snapshot, slot);
        let shared = &*self.shared;
        let release = || {
            if reserved {
                shared.destinations.release(slot, upper, lower);
            }
        };
        match shared.templates.insert(&key, slot, persistence.timeout, turn.now) {
            Ok((handle, winner, inserted)) => {
                if inserted {
                    shared.destinations.shared(slot).templates.fetch_add(1, Relaxed);
                }
                if winner == slot {
                    return Ok(Choice { slot, template: Some(handle), reserved });
                }
                release();
                Ok(self.by_template(service, winner, handle))
            }
            Err(error) => {
                release();
                Err(Fate::Drop(match error {
                    TemplateError::Full => DropReason::TemplateFull,
                    TemplateError::Busy => DropReason::TemplateBusy,
                }))
            }
        }
    }

    /// A template's destination takes the connection above its threshold too; the count still reaches it.
    fn by_template(&self, service: &ServiceView, slot: DestinationSlot, template: TemplateHandle) -> Choice {
        if service.shared_counts {
            self.shared.destinations.fold(self.id, slot);
        }
        Choice { slot, template: Some(template), reserved: false }
    }
}

/// Which template a connection belongs to. One of a single port is that port's, FTP's excepted, whose data connections have
/// others; those of a mark are one whatever address and protocol the client uses.
fn template_key<A: Address>(key: &ServiceKey, persistence: Persistence, tuple: &Tuple<A>) -> TemplateKey {
    let Tuple { source, destination, destination_port, protocol, .. } = *tuple;
    let named = |protocol, address, port| TemplateKey::new(protocol, source, persistence.mask, address, port);
    if destination_port == key.port() {
        return named(
            protocol,
            destination,
            if destination_port == port::FTP { 0 } else { destination_port },
        );
    }
    match key {
        ServiceKey::Address { .. } => named(protocol, destination, 0),
        ServiceKey::Mark { mark, .. } => named(TemplateKey::ANY_PROTOCOL, A::from_mark(*mark), 0),
    }
}

/// Whether a template may still lead to its destination.
fn takes_templates(slot: DestinationSlot, snapshot: &Snapshot) -> bool {
    snapshot.destination(slot).is_some_and(|destination| {
        destination.available && !(destination.quiesced && snapshot.settings.expire_quiescent_template)
    })
}
