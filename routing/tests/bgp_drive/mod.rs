//! One session fed raw bytes in any state, and what must hold whatever they are. Shared by the
//! bounded fuzz test and the libFuzzer target.
//!
//! Input: an octet that chooses the session and its state, an octet for the size of the pieces
//! the rest arrives in, then the bytes of the peer.

use ipnet::IpNet;
use routing::bgp::config::{Import, LocalConfig, NeighborConfig, PrefixMatch, RemoteAs};
use routing::bgp::fsm::State;
use routing::bgp::session::{ConnId, Endpoints, Output, Session};
use routing::bgp::wire::{
    Capabilities, DecodeContext, Families, Message, MessageKind, Open, next_frame,
};
use routing::{Announcement, Wanted};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MAX_PREFIXES: u32 = 20;
/// What may wait to be sent: the buffer's limit and one longest message over it, twice over for
/// the answers to one input.
const MAX_SENDING: usize = 2 * (32 * 1024 + 65535);

/// Runs one input; panics if the session does, or breaks a rule.
pub fn drive(input: &[u8]) {
    let [choice, piece, rest @ ..] = input else { return };
    let now = Instant::now();
    let internal = choice & 0x10 != 0;
    let asn = if internal { 65001 } else { 65000 };
    let mut session = session(internal, choice & 1 != 0, now);
    let Some(id) = session.handle_accepted(endpoints(), now) else {
        panic!("a fresh passive session takes a connection");
    };
    let mut peer = Peer { id, closed: false, notified: false };
    peer.follow(&mut session);
    // Bring the session into the state to be tried.
    let mut greeting = Vec::new();
    if choice & 0x0e != 0 {
        open(asn, choice & 4 == 0).encode(&mut greeting);
    }
    if choice & 0x06 != 0 {
        Message::encode_keepalive(&mut greeting);
    }
    session.handle_input(id, &greeting, now);
    peer.follow(&mut session);
    if choice & 0x20 != 0 {
        session.handle_accepted(endpoints(), now);
        peer.follow(&mut session);
    }
    for (n, bytes) in rest.chunks(usize::from(*piece).max(1) * 7).enumerate() {
        let now = now + Duration::from_millis(n as u64);
        session.handle_input(peer.id, bytes, now);
        peer.follow(&mut session);
        check(&session, peer.id);
        if choice & 0x40 != 0 {
            let n = session.poll_transmit(peer.id).len() / 2;
            session.handle_transmitted(peer.id, n, now);
            peer.follow(&mut session);
        }
    }
    // And later, with every timer run out.
    for minutes in 1..10 {
        session.handle_timeout(now + Duration::from_secs(60 * minutes));
        peer.follow(&mut session);
    }
    check(&session, peer.id);
}

fn check(session: &Session, id: ConnId) {
    assert!(session.routes().len() <= MAX_PREFIXES as usize);
    assert!(session.poll_transmit(id).len() <= MAX_SENDING);
    if session.adj_rib_out().is_some() {
        assert_eq!(session.state(), State::Established);
    }
}

/// The driver's view of the connection.
struct Peer {
    id: ConnId,
    closed: bool,
    notified: bool,
}

impl Peer {
    fn follow(&mut self, session: &mut Session) {
        while let Some(output) = session.poll_output() {
            if let Output::Close { id, last } = output
                && id == self.id
            {
                assert!(!self.closed, "closed once");
                self.closed = true;
                self.last_words(&last);
            }
        }
    }

    /// Whatever is sent last is whole messages, a NOTIFICATION only at the end.
    fn last_words(&mut self, last: &[u8]) {
        let mut rest = last;
        while !rest.is_empty() {
            assert!(!self.notified, "nothing follows a NOTIFICATION");
            let Ok(Some(frame)) = next_frame(rest, true) else {
                // Half of an earlier message was already sent.
                return;
            };
            assert!(Message::decode(&frame, DecodeContext::default()).is_ok());
            self.notified = frame.kind == MessageKind::Notification;
            rest = &rest[frame.len..];
        }
    }
}

fn session(internal: bool, extended_next_hop: bool, now: Instant) -> Session {
    let remote = if internal { RemoteAs::Internal } else { RemoteAs::External };
    let mut config = NeighborConfig::new(Ipv4Addr::new(10, 0, 0, 2).into(), remote);
    config.passive = true;
    config.extended_next_hop = extended_next_hop;
    config.max_prefixes = MAX_PREFIXES;
    let any = |p: &str| -> Option<PrefixMatch> {
        let prefix: IpNet = p.parse().ok()?;
        Some(PrefixMatch { max_len: 128, ..PrefixMatch::exact(prefix) })
    };
    config.import = Import::Prefixes(["0.0.0.0/0", "::/0"].iter().filter_map(|p| any(p)).collect());
    let local = LocalConfig { asn: 65001, router_id: Ipv4Addr::new(10, 0, 0, 1) };
    let prefixes = (0..50u8).map(|n| IpNet::from(std::net::IpAddr::from([192, 0, 2, n])));
    let wanted: Wanted = prefixes.map(|p| (p, Announcement::default())).collect();
    Session::new(config, local, Arc::new(wanted), 1, now)
}

fn open(asn: u32, modern: bool) -> Open {
    Open {
        asn,
        hold_time: 90,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: Capabilities {
            families: Families::BOTH,
            four_octet_as: modern,
            route_refresh: modern,
            enhanced_route_refresh: modern,
            extended_message: modern,
            extended_next_hop: modern,
            ..Capabilities::default()
        },
    }
}

fn endpoints() -> Endpoints {
    Endpoints {
        local: SocketAddr::from(([10, 0, 0, 1], 179)),
        remote: SocketAddr::from(([10, 0, 0, 2], 40000)),
        v4: None,
        v6: None,
        link_local: None,
        interface: 1,
    }
}
