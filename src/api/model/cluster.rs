//! Flows shared with other nodes.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `GET /v1/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Ours.
    pub address: SocketAddr,
    pub peers: Vec<ClusterPeerInfo>,
    pub flows: SharedFlows,
    pub datagrams: ClusterDatagrams,
    /// Questions of ours that not every peer answered.
    pub unanswered: u64,
    /// Work refused because a table or queue was full.
    pub overloaded: u64,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPeerInfo {
    pub address: SocketAddr,
    /// Since its last good datagram; `None`: there was none yet. Nodes talk only when a flow moves.
    pub heard_s: Option<u64>,
    /// Questions of ours that it answered, and that it did not.
    pub answers: u64,
    pub silences: u64,
}

/// Counts of flows, all workers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFlows {
    /// Flows of other nodes that are carried on here now.
    pub adopted: u64,
    /// Adopted ever.
    pub adoptions: u64,
    /// Answers that could not be used: another configuration, or too many.
    pub refused: u64,
    /// Adopted flows that ended because their owner did not confirm them.
    pub unconfirmed: u64,
    /// Flows that peers were asked for, and those not asked for because there were too many.
    pub asked: u64,
    pub not_asked: u64,
    /// Flows that peers asked us for, once for each of our workers, and those of them that we have.
    pub looked_up: u64,
    pub found: u64,
}

/// Datagrams between nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDatagrams {
    pub sent: u64,
    /// From the address of a peer, refused ones included.
    pub received: u64,
    /// Refused: not from the address of a peer.
    pub unknown_source: u64,
    /// Refused: signed with another key, or changed on the way.
    pub bad_signature: u64,
    /// Refused: not as the format says, or of another version.
    pub malformed: u64,
    /// Refused: an answer to nothing that was asked.
    pub unexpected: u64,
}

impl ClusterDatagrams {
    /// Each reason for a refusal, with its name in metrics.
    pub const fn refused(&self) -> [(&'static str, u64); 4] {
        [
            ("unknown-source", self.unknown_source),
            ("bad-signature", self.bad_signature),
            ("malformed", self.malformed),
            ("unexpected", self.unexpected),
        ]
    }
}
