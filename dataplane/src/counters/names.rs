//! What is counted: names, labels and meanings.

macro_rules! named {
    ($(#[$outer:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident => $label:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Label in counters, metrics and documents.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// One line that says what it counts.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

named! {
    /// Why a packet went no further.
    DropReason {
        /// A header is cut short or contradicts itself.
        Malformed => "malformed",
        /// The IPv4 header checksum is wrong.
        HeaderChecksum => "header_checksum",
        /// More IPv6 extension headers, or longer ones, than the bounded walk follows.
        ExtensionHeaders => "extension_headers",
        /// Headers do not lie in the first segment of a chained buffer.
        Segments => "segments",
        /// Not for this host's MAC address.
        OtherHost => "other_host",
        /// TTL or hop limit ran out here; answered by ICMP time exceeded.
        TtlExceeded => "ttl_exceeded",
        /// Longer than the next link's MTU and not to be fragmented; answered by ICMP.
        OverMtu => "over_mtu",
        /// No buffer for what was to take its place, or its data does not lie in the first segment.
        NoBuffer => "no_buffer",
        /// Longer than the next link's MTU: sent on in fragments, which count as generated.
        Fragmented => "fragmented",
        /// Would have been scheduled, but `drop_packet` thins out what is new.
        Defence => "defence",
        /// The service has no usable destination; answered by ICMP port unreachable.
        NoDestination => "no_destination",
        /// A masqueraded server's packet of no connection; answered by ICMP, with `nat_icmp_send`.
        NoConnection => "no_connection",
        /// The connection's destination was removed.
        DestinationRemoved => "destination_removed",
        /// No route to the destination.
        NoRoute => "no_route",
        /// The next hop's MAC stayed unknown for a second.
        NeighbourUnresolved => "neighbour_unresolved",
        /// No place left to park a packet while its next hop resolves.
        ParkedFull => "parked_full",
        /// The shard of the connection table is full.
        TableFull => "table_full",
        /// The bucket of the persistence template table is full.
        TemplateFull => "template_full",
        /// A persistence template was being changed by another worker for too long.
        TemplateBusy => "template_busy",
        /// A later fragment whose first piece never came.
        FragmentOrphan => "fragment_orphan",
        /// No place left to hold or to remember fragments.
        FragmentFull => "fragment_full",
        /// Fragments that overlap or lie about their length.
        FragmentInvalid => "fragment_invalid",
        /// The ring to the worker that owns the packet's shard is full.
        RedirectFull => "redirect_full",
        /// The control punt ring is full.
        PuntControlFull => "punt_control_full",
        /// The local punt ring is full.
        PuntLocalFull => "punt_local_full",
        /// The stray punt ring is full.
        PuntStrayFull => "punt_stray_full",
        /// An acknowledgement, on an FTP control connection, of what the server has not sent.
        OutOfWindow => "out_of_window",
        /// A segment on an FTP control connection whose checksum is wrong.
        TcpChecksum => "tcp_checksum",
        /// An ICMP error about a masqueraded connection whose checksum is wrong.
        IcmpChecksum => "icmp_checksum",
        /// An ICMP error about a tunnel's outer packet, taken in and told on about the packet inside.
        Consumed => "consumed",
        /// No room before the frame for a tunnel's outer headers.
        Headroom => "headroom",
        /// The NIC's transmit queue is full.
        TxFull => "tx_full",
        /// Held back when the worker stopped.
        Shutdown => "shutdown",
    }
}

named! {
    /// What a worker counts beside drops.
    Counter {
        /// Frames taken from receive queues.
        Received => "received",
        /// Bytes of those frames.
        ReceivedBytes => "received_bytes",
        /// Frames of the kernel's taken from the inject ring.
        Injected => "injected",
        /// Frames made here (ICMP errors).
        Generated => "generated",
        /// Frames the NIC took.
        Transmitted => "transmitted",
        /// Bytes of those frames.
        TransmittedBytes => "transmitted_bytes",
        /// Frames put on the control punt ring.
        PuntedControl => "punted_control",
        /// Frames put on the local punt ring.
        PuntedLocal => "punted_local",
        /// Frames put on the stray punt ring.
        PuntedStray => "punted_stray",
        /// Packets handed to the worker that owns their flow.
        RedirectedOut => "redirected_out",
        /// Packets taken over from other workers.
        RedirectedIn => "redirected_in",
        /// Redirected fragments, on their way to their home or from it.
        RedirectedFragments => "redirected_fragments",
        /// Packets of virtual services forwarded.
        Forwarded => "forwarded",
        /// Look-ups that found their connection.
        Hits => "hits",
        /// Look-ups that did not.
        Misses => "misses",
        /// TCP packets whose MSS option was lowered to their service's clamp.
        MssClamped => "mss_clamped",
        /// Connections opened.
        ConnectionsOpened => "connections_opened",
        /// Connections that timed out or were flushed.
        ConnectionsClosed => "connections_closed",
        /// Half-open connections closed so that new ones had room in a full table.
        EvictedHalfOpen => "evicted_half_open",
        /// Connections opened through a persistence template.
        TemplateHits => "template_hits",
        /// Choices of lblc and lblcr not remembered because their cache is full.
        LocalityFull => "locality_full",
        /// ICMP errors not sent because their token bucket was empty.
        IcmpSuppressed => "icmp_suppressed",
        /// Packets parked for an unresolved next hop.
        Parked => "parked",
        /// Wheel filings refused for lack of entries: such a connection expires late.
        WheelFull => "wheel_full",
        /// Events the management ring had no place for.
        EventsLost => "events_lost",
        /// Turns of the worker's loop.
        Turns => "turns",
        /// Turns that found nothing to do.
        IdleTurns => "idle_turns",
        /// Sleeps of the idle back-off.
        Sleeps => "sleeps",
        /// Time stamp counter cycles spent in turns that found work.
        BusyCycles => "busy_cycles",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_explained() {
        let labels: std::collections::BTreeSet<_> =
            DropReason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
        assert!(Counter::ALL.iter().all(|counter| counter.meaning().ends_with('.')));
        assert_eq!(DropReason::ALL[DropReason::TxFull as usize], DropReason::TxFull);
    }
}
