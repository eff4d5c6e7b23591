//! What becomes of a frame.

use super::tables::{NextHopId, PortId, WorkerId};

/// The packet path's decision about one frame. The worker carries it out, frees and counts.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten and addressed: send it on this port.
    Transmit {
        port: PortId,
    },
    /// Not ours to forward: to the kernel, through the control interface of the port it came from.
    Kernel,
    /// Belongs to a flow or local port of another worker: hand it over unchanged.
    Handover {
        worker: WorkerId,
    },
    /// Rewritten, but the next hop's link-layer address is unknown: park it until the kernel has
    /// resolved the neighbour, a few frames per next hop.
    Wait {
        next_hop: NextHopId,
    },
    /// A fragment that came before the first of its datagram: keep it, a few in all, and forward it
    /// again once [`Engine::knows_datagram`](super::Engine::knows_datagram).
    Await {
        datagram: u32,
    },
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a frame was dropped. Every reason is counted per worker and visible by its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All reasons, in the order of their discriminants.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// Stable name, as counters, metrics and `dunlin drops` print it.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for the operator.
            pub const fn describe(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// shorter than its headers say
    Truncated => "truncated",
    /// a header field that no valid packet has (version, header length, length)
    BadHeader => "bad-header",
    /// IPv4 header checksum wrong
    BadIpChecksum => "bad-ip-checksum",
    /// TCP or UDP checksum wrong (only where the port verified it)
    BadL4Checksum => "bad-l4-checksum",
    /// destination MAC is not ours
    NotForUs => "not-for-us",
    /// the client address cannot be a client: not one host, or one of our own VIPs or LIPs
    BadSource => "bad-source",
    /// TTL or hop limit expired
    TtlExpired => "ttl-expired",
    /// a fragment of something other than TCP or UDP, addressed to a VIP or LIP
    Fragment => "fragment",
    /// a first fragment that does not hold the whole TCP or UDP header
    FragmentHeader => "fragment-header",
    /// a fragment that overlaps the first of its datagram
    FragmentOverlap => "fragment-overlap",
    /// a fragment whose datagram's first fragment did not come in time, or for which too many waited
    FragmentNoFirst => "fragment-no-first",
    /// an IPv6 extension header chain or IPv4 options the packet path does not follow
    UnsupportedHeader => "unsupported-header",
    /// addressed to a VIP on a protocol or port that has no service
    NoService => "no-service",
    /// the service has no healthy backend
    NoBackend => "no-backend",
    /// addressed to a LIP but no flow matches
    NoFlow => "no-flow",
    /// TCP segment to a service that neither matches a flow nor opens one
    NotSyn => "not-syn",
    /// TCP segment of a flow that is not here: the other nodes were asked, and its sender repeats it
    AskedPeers => "asked-peers",
    /// every LIP:port toward that backend is in use
    PoolExhausted => "pool-exhausted",
    /// the flow table is full
    FlowTableFull => "flow-table-full",
    /// the service's limit of connections or new connections is reached
    ServiceLimit => "service-limit",
    /// no route to the destination
    NoRoute => "no-route",
    /// the neighbour did not resolve, or too many frames waited for it
    Unresolved => "unresolved",
    /// larger than the MTU of the port it must leave by, and not answered by an ICMP error: it may be
    /// fragmented on its way, or there were too many
    TooBig => "too-big",
    /// the port did not take it: its transmit queue is full
    TxFull => "tx-full",
    /// the other worker's hand-over ring is full
    HandoverFull => "handover-full",
    /// the path to the kernel is full
    KernelFull => "kernel-full",
    /// the egress port is down or gone
    PortDown => "port-down",
}
