//! What the operator sees of the speaker; plain data, ready to be serialised.

use crate::bgp::config::NeighborConfig;
use crate::bgp::fsm::State;
use crate::bgp::rib::AdjRibOut;
use crate::bgp::session::{
    Direction, MessageCounts, Negotiated, Session, SessionError, UpdateErrors,
};
use crate::bgp::wire::{Capabilities, NextHop};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The whole speaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeakerStatus {
    pub router_id: Ipv4Addr,
    pub asn: u32,
    /// Addresses listened on.
    pub listen: Vec<SocketAddr>,
    /// Connections refused because nobody is configured at their address.
    pub unknown_peers: u64,
    pub kernel: KernelCounters,
    pub neighbors: Vec<NeighborStatus>,
}

/// Packets the kernel dropped without telling anybody; of the whole network namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCounters {
    /// A segment signed with the wrong key.
    pub tcp_md5_failure: u64,
    /// A segment without a signature where a key is set.
    pub tcp_md5_not_found: u64,
    /// A signed segment where no key is set.
    pub tcp_md5_unexpected: u64,
    /// TTL below what GTSM demands.
    pub tcp_min_ttl_drop: u64,
    /// A segment that TCP-AO finds wrong.
    pub tcp_ao_bad: u64,
    /// A segment signed with a TCP-AO key that is not known.
    pub tcp_ao_key_not_found: u64,
    /// A segment without TCP-AO where a key is set.
    pub tcp_ao_required: u64,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighborStatus {
    pub address: IpAddr,
    pub interface: Option<String>,
    pub description: String,
    pub state: State,
    /// Shut down by the operator.
    pub admin_down: bool,
    /// In the present state, in milliseconds.
    pub state_age_ms: u64,
    /// Until the next attempt to connect; `None`: none is scheduled.
    pub retry_in_ms: Option<u64>,
    /// Of the established session, in milliseconds.
    pub uptime_ms: Option<u64>,
    pub established_count: u64,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    /// Hold time, keepalive, families, the peer's AS and identifier.
    pub negotiated: Option<Negotiated>,
    pub local_capabilities: Capabilities,
    pub peer_capabilities: Option<Capabilities>,
    pub received: MessageCounts,
    pub sent: MessageCounts,
    pub update_errors: UpdateErrors,
    pub prefixes_announced: u64,
    /// Wanted, but not to be said to this peer, and why.
    pub unannounceable: Vec<(IpNet, String)>,
    pub prefixes_accepted: u64,
    /// All that is wanted has been handed to the kernel for this peer.
    pub in_sync: bool,
    pub md5: bool,
    pub ao: bool,
    pub ttl_security: bool,
    /// Why it is not up, or was not.
    pub last_error: Option<LastError>,
    /// Why the last session that was up ended.
    pub last_down: Option<LastError>,
}

/// Why a session ended, or did not come up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Milliseconds since 1970.
    pub at_unix_ms: u64,
    pub direction: Direction,
    /// NOTIFICATION code and subcode.
    pub code: Option<(u8, u8)>,
    pub text: String,
}

/// A route a neighbour has been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedRoute {
    pub prefix: IpNet,
    pub next_hop: IpAddr,
}

/// A status and when its session came up, so that the uptime is that of the reading.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    status: NeighborStatus,
    state_since: Instant,
    retry_at: Option<Instant>,
    established_at: Option<Instant>,
    error_at: Option<Instant>,
    down_at: Option<Instant>,
}

impl Snapshot {
    /// Before anything has happened.
    pub fn new(config: &NeighborConfig) -> Self {
        Self {
            status: NeighborStatus {
                address: config.address,
                interface: config.interface.clone(),
                description: config.description.clone(),
                state: State::Idle,
                admin_down: config.shutdown.is_some(),
                state_age_ms: 0,
                retry_in_ms: None,
                uptime_ms: None,
                established_count: 0,
                local: None,
                remote: None,
                negotiated: None,
                local_capabilities: Capabilities::default(),
                peer_capabilities: None,
                received: MessageCounts::default(),
                sent: MessageCounts::default(),
                update_errors: UpdateErrors::default(),
                prefixes_announced: 0,
                unannounceable: Vec::new(),
                prefixes_accepted: 0,
                in_sync: false,
                md5: config.password.is_some(),
                ao: !config.ao.is_empty(),
                ttl_security: config.ttl_security,
                last_error: None,
                last_down: None,
            },
            state_since: Instant::now(),
            retry_at: None,
            established_at: None,
            error_at: None,
            down_at: None,
        }
    }

    /// Brings the snapshot up to date; called after everything a session does.
    pub fn refresh(&mut self, session: &Session) {
        let status = &mut self.status;
        let rib = session.adj_rib_out();
        if status.state != session.state() {
            self.state_since = Instant::now();
            status.local_capabilities = session.our_capabilities();
            status.negotiated = session.negotiated().cloned();
            status.peer_capabilities = session.peer_capabilities().cloned();
            status.local = session.endpoints().map(|e| e.local);
            status.remote = session.endpoints().map(|e| e.remote);
        }
        status.state = session.state();
        status.admin_down = session.is_admin_down();
        status.established_count = session.established_count();
        status.received = *session.messages_received();
        status.sent = *session.messages_sent();
        if status.update_errors != *session.update_errors() {
            status.update_errors = session.update_errors().clone();
        }
        status.prefixes_announced = rib.map_or(0, |r| r.told_count() as u64);
        status.in_sync = rib.is_some_and(AdjRibOut::is_settled);
        status.prefixes_accepted = session.routes().len() as u64;
        let unannounceable = rib.map_or(0, |r| r.unannounceable().len());
        if unannounceable != 0 || !status.unannounceable.is_empty() {
            status.unannounceable = rib
                .into_iter()
                .flat_map(AdjRibOut::unannounceable)
                .map(|(prefix, reason)| (*prefix, (*reason).to_owned()))
                .collect();
        }
        self.retry_at = session.retry_at();
        self.established_at = session.established_at();
        let error = session.last_error();
        if self.error_at != error.map(|e| e.at) {
            self.error_at = error.map(|e| e.at);
            status.last_error = error.map(LastError::of);
        }
        let down = session.last_down();
        if self.down_at != down.map(|e| e.at) {
            self.down_at = down.map(|e| e.at);
            status.last_down = down.map(LastError::of);
        }
    }

    /// The other end of its present or last connection.
    pub fn remote(&self) -> Option<IpAddr> {
        self.status.remote.map(|r| r.ip())
    }

    pub fn read(&self) -> NeighborStatus {
        let uptime = self.established_at.map(|t| t.elapsed().as_millis() as u64);
        let retry = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        NeighborStatus {
            state_age_ms: self.state_since.elapsed().as_millis() as u64,
            retry_in_ms: retry.map(|wait| wait.as_millis() as u64),
            uptime_ms: uptime,
            ..self.status.clone()
        }
    }
}

impl NeighborStatus {
    /// Of a neighbour whose task is no more.
    pub(super) fn failed(self) -> Self {
        Self {
            state: State::Idle,
            retry_in_ms: None,
            uptime_ms: None,
            negotiated: None,
            prefixes_announced: 0,
            prefixes_accepted: 0,
            in_sync: false,
            last_error: Some(LastError {
                at_unix_ms: unix_ms(SystemTime::now()),
                direction: Direction::Connection,
                code: None,
                text: "internal error: the neighbour's task ended; see the log".to_owned(),
            }),
            ..self
        }
    }
}

/// What one neighbour has been told, now.
pub(super) fn announced(session: &Session) -> Vec<AnnouncedRoute> {
    let told = session.adj_rib_out().into_iter().flat_map(AdjRibOut::told);
    told.map(|(prefix, template)| {
        let NextHop { address, .. } = template.next_hop();
        AnnouncedRoute { prefix: *prefix, next_hop: address }
    })
    .collect()
}

impl LastError {
    fn of(error: &SessionError) -> Self {
        Self {
            at_unix_ms: unix_ms(SystemTime::now() - error.at.elapsed()),
            direction: error.direction,
            code: error.notification,
            text: error.text.clone(),
        }
    }
}

impl KernelCounters {
    /// Of the calling thread's network namespace; zeros where the kernel does not count.
    pub fn read() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
        Self::parse(&text)
    }

    /// `/proc/net/netstat`: a line of names, then a line of values, per group.
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return Self::default();
        };
        let value = |name: &str| {
            let at = names.split_whitespace().position(|n| n == name)?;
            values.split_whitespace().nth(at)?.parse().ok()
        };
        Self {
            tcp_md5_failure: value("TCPMD5Failure").unwrap_or(0),
            tcp_md5_not_found: value("TCPMD5NotFound").unwrap_or(0),
            tcp_md5_unexpected: value("TCPMD5Unexpected").unwrap_or(0),
            tcp_min_ttl_drop: value("TCPMinTTLDrop").unwrap_or(0),
            tcp_ao_bad: value("TCPAOBad").unwrap_or(0),
            tcp_ao_key_not_found: value("TCPAOKeyNotFound").unwrap_or(0),
            tcp_ao_required: value("TCPAORequired").unwrap_or(0),
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::KernelCounters;

    #[test]
    fn kernel_counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure \
                    TCPMinTTLDrop TCPAORequired TCPAOBad TCPAOKeyNotFound TCPAOGood\n\
                    TcpExt: 9 1 2 3 4 5 6 7 8\nIpExt: InNoRoutes\nIpExt: 0\n";
        let counters = KernelCounters::parse(text);
        assert_eq!(counters.tcp_md5_not_found, 1);
        assert_eq!(counters.tcp_md5_unexpected, 2);
        assert_eq!(counters.tcp_md5_failure, 3);
        assert_eq!(counters.tcp_min_ttl_drop, 4);
        assert_eq!(counters.tcp_ao_required, 5);
        assert_eq!(counters.tcp_ao_bad, 6);
        assert_eq!(counters.tcp_ao_key_not_found, 7);
        assert_eq!(KernelCounters::parse("garbage"), KernelCounters::default());
    }
}
