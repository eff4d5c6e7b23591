//! Whose packet it is: the questions to [`super::steering`], with what the tables know.

use super::build::Local;
use super::engine::{Context, Engine, Origin};
use super::tables::WorkerId;
use super::tuple::{Family, Tuple, is_v6};
use crate::packet::Transport;

/// When the owner of a packet is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It arrived.
    Arrival,
    /// It arrived, and the flow table does not know it.
    Stranger,
    /// Something about it arrived that NICs spread by its addresses only: a fragment of it, or an
    /// ICMP error about its answer.
    ByAddresses,
}

impl Engine {
    /// Whether what arrives may be another worker's, so that the owner has to be asked for first.
    pub(super) fn asks_owner(&self, context: &Context) -> bool {
        self.workers > 1
            && context.origin == Origin::Port
            && !self.pool.steering().trusts(context.port)
    }

    /// The worker that owns this packet, if it is another one. `hash`: of its tuple.
    #[inline(never)]
    pub(super) fn other_owner(
        &self,
        context: &Context,
        data: &[u8],
        transport: Transport,
        hash: u64,
    ) -> Option<WorkerId> {
        let owner = if is_v6(transport) {
            let tuple = Tuple::<u128>::read(data.first_chunk::<58>()?);
            self.owner(context, transport, &tuple, hash, Asked::Arrival)
        } else {
            let tuple = Tuple::<u32>::read(data.first_chunk::<38>()?);
            self.owner(context, transport, &tuple, hash, Asked::Arrival)
        };
        owner.filter(|&owner| owner != self.worker)
    }

    /// The worker that owns packets with this tuple, if one is known; `None`: whoever received it.
    pub(super) fn owner<A: Family>(
        &self,
        context: &Context,
        transport: Transport,
        tuple: &Tuple<A>,
        hash: u64,
        asked: Asked,
    ) -> Option<WorkerId> {
        let (steering, workers) = (self.pool.steering(), self.workers);
        let input = || tuple.rss_input(transport);
        match context.tables.local(tuple.destination.to_address(), A::V6)? {
            Local::Lip(_)
                if asked == Asked::Arrival && steering.brings_replies(context.port, transport) =>
            {
                None
            }
            Local::Lip(lip) => {
                let port = u16::from_be_bytes(tuple.destination_port.to_ne_bytes());
                Some(steering.owner_of_reply(lip, port, workers, input))
            }
            Local::Vip { .. } => {
                let hash = (hash >> 32) as u32;
                let itself = asked != Asked::ByAddresses;
                steering.owner_of_request(context.port, itself, hash, workers, input)
            }
        }
    }
}
