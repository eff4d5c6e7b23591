//! The session as a whole: what it answers, what it remembers, how long it waits. Whole lives of
//! two sessions are in `tests/bgp_simulation.rs`, raw bytes in `tests/fuzz_bgp.rs`.

use super::*;
use crate::Announcement;
use crate::bgp::config::{Import, RemoteAs};
use crate::bgp::wire::{
    Capabilities, DecodeContext, Families, Family, Message, Open, Role, RouteRefresh, next_frame,
};
use std::time::Duration;

mod collisions;
mod restart;
mod routes;

const LOCAL: LocalConfig = LocalConfig { asn: 65001, router_id: Ipv4Addr::new(10, 0, 0, 1) };

fn config() -> NeighborConfig {
    NeighborConfig::new(Ipv4Addr::new(10, 0, 0, 2).into(), RemoteAs::Exact(65000))
}

fn peer_open() -> Open {
    Open {
        asn: 65000,
        hold_time: 30,
        router_id: Ipv4Addr::new(10, 0, 0, 2),
        capabilities: Capabilities {
            families: Families::BOTH,
            four_octet_as: true,
            route_refresh: true,
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

/// A session, its clock, and all it ever said.
struct Bench {
    session: Session,
    now: Instant,
    dials: Vec<ConnId>,
    /// Code and subcode of NOTIFICATIONs, by connection.
    notified: Vec<(ConnId, (u8, u8))>,
    closed: Vec<ConnId>,
    states: Vec<State>,
}

impl Bench {
    fn new(config: NeighborConfig) -> Self {
        let now = Instant::now();
        let session = Session::new(config, LOCAL, Arc::default(), 7, now);
        let mut bench = Self {
            session,
            now,
            dials: Vec::new(),
            notified: Vec::new(),
            closed: Vec::new(),
            states: Vec::new(),
        };
        bench.follow();
        bench
    }

    fn follow(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Dial(id) => self.dials.push(id),
                Output::Close { id, last } => {
                    self.closed.push(id);
                    for message in messages(&last) {
                        if let Message::Notification(n) = message {
                            self.notified.push((id, (n.code, n.subcode)));
                        }
                    }
                }
                Output::StateChanged { to, .. } => self.states.push(to),
                Output::RoutesChanged => {}
            }
        }
    }

    fn dialled(&mut self) -> ConnId {
        let id = *self.dials.last().expect("it dialled");
        self.session.handle_dialled(id, endpoints(), self.now);
        self.follow();
        id
    }

    fn accepted(&mut self) -> Option<ConnId> {
        let id = self.session.handle_accepted(endpoints(), self.now);
        self.follow();
        id
    }

    fn hear(&mut self, id: ConnId, bytes: &[u8]) {
        self.session.handle_input(id, bytes, self.now);
        self.follow();
    }

    fn open(&mut self, id: ConnId, open: &Open) {
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        self.hear(id, &bytes);
    }

    fn keepalive(&mut self, id: ConnId) {
        self.hear(id, &keepalive());
    }

    /// Takes everything that is to be sent.
    fn read(&mut self, id: ConnId) -> Vec<Message> {
        let bytes = self.session.poll_transmit(id).to_vec();
        self.session.handle_transmitted(id, bytes.len(), self.now);
        self.follow();
        messages(&bytes)
    }

    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(next) = self.session.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(next);
            self.session.handle_timeout(self.now);
            self.follow();
        }
        self.now = end;
    }

    fn established(config: NeighborConfig) -> (Self, ConnId) {
        let mut bench = Self::new(config);
        let id = bench.accepted().unwrap();
        bench.open(id, &peer_open());
        bench.keepalive(id);
        assert_eq!(bench.session.state(), State::Established);
        bench.notified.clear();
        (bench, id)
    }
}

fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while let Ok(Some(frame)) = next_frame(bytes, true) {
        all.push(Message::decode(&frame, DecodeContext::default()).unwrap());
        bytes = &bytes[frame.len..];
    }
    all
}

fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    Message::encode_keepalive(&mut bytes);
    bytes
}

#[test]
fn an_open_we_cannot_accept_is_told_why() {
    let with = |change: fn(&mut Open)| {
        let mut open = peer_open();
        change(&mut open);
        open
    };
    let role = |strict| {
        let mut config = config();
        config.role = Some(Role::Customer);
        config.role_strict = strict;
        config
    };
    let internal = || NeighborConfig { remote_as: RemoteAs::Internal, ..config() };
    let external = || NeighborConfig { remote_as: RemoteAs::External, ..config() };
    let as_ours = |o: &mut Open| o.asn = 65001;
    let zero_hold = || NeighborConfig { hold_time: Duration::ZERO, ..config() };
    type Case = (&'static str, NeighborConfig, Open, Option<(u8, u8)>);
    let cases: Vec<Case> = vec![
        ("as configured", config(), peer_open(), None),
        ("another AS", config(), with(|o| o.asn = 64999), Some((2, 2))),
        ("any external AS", external(), with(|o| o.asn = 64999), None),
        ("our AS where external is meant", external(), with(as_ours), Some((2, 2))),
        ("an external AS where ours is meant", internal(), peer_open(), Some((2, 2))),
        ("our AS where ours is meant", internal(), with(as_ours), None),
        (
            "our identifier, another AS (RFC 6286)",
            config(),
            with(|o| o.router_id = LOCAL.router_id),
            None,
        ),
        (
            "our identifier, our AS",
            internal(),
            with(|o| {
                o.asn = 65001;
                o.router_id = LOCAL.router_id;
            }),
            Some((2, 3)),
        ),
        ("no keepalives wanted by one", config(), with(|o| o.hold_time = 0), Some((2, 6))),
        ("by the other", zero_hold(), peer_open(), Some((2, 6))),
        ("by both", zero_hold(), with(|o| o.hold_time = 0), None),
        (
            "no family in common",
            NeighborConfig { families: Families { ipv4: false, ipv6: true }, ..config() },
            with(|o| o.capabilities.families.ipv6 = false),
            Some((2, 7)),
        ),
        (
            "provider to our customer",
            role(true),
            with(|o| o.capabilities.role = Some(Role::Provider)),
            None,
        ),
        (
            "peer to our customer",
            role(false),
            with(|o| o.capabilities.role = Some(Role::Peer)),
            Some((2, 11)),
        ),
        ("no role, lenient", role(false), peer_open(), None),
        ("no role, strict", role(true), peer_open(), Some((2, 11))),
    ];
    for (what, config, open, refusal) in cases {
        let mut bench = Bench::new(config);
        let id = bench.dialled();
        bench.open(id, &open);
        let said: Vec<_> = bench.notified.iter().map(|(_, code)| *code).collect();
        assert_eq!(said, refusal.into_iter().collect::<Vec<_>>(), "{what}");
        let state = if refusal.is_some() { State::Idle } else { State::OpenConfirm };
        assert_eq!(bench.session.state(), state, "{what}");
        let error = bench.session.last_error().map(|e| (e.direction, e.notification));
        assert_eq!(error, refusal.map(|r| (Direction::Sent, Some(r))), "{what}");
    }
}

#[test]
fn timers_are_the_lower_of_both_sides_and_kept() {
    let (mut bench, id) = Bench::established(config());
    let negotiated = bench.session.negotiated().unwrap();
    assert_eq!(negotiated.hold_time, Duration::from_secs(30));
    assert_eq!(negotiated.keepalive, Duration::from_secs(10));
    bench.read(id);
    let mut keepalives = 0;
    for _ in 0..30 {
        bench.wait(10);
        keepalives += bench.read(id).iter().filter(|m| **m == Message::Keepalive).count();
        bench.keepalive(id);
    }
    assert!((30..=40).contains(&keepalives), "{keepalives} in 300 s, with jitter of 25 %");
    assert_eq!(bench.session.state(), State::Established);
    bench.wait(29);
    bench.read(id);
    assert_eq!(bench.session.state(), State::Established);
    bench.wait(2);
    assert_eq!(bench.notified, [(id, (4, 0))], "hold timer expired");
    assert_eq!(bench.session.last_error().unwrap().text, "Hold Timer Expired (4/0)");
}

#[test]
fn a_peer_that_does_not_read_is_given_up_in_time() {
    let (mut bench, id) = Bench::established(config());
    for _ in 0..50 {
        bench.wait(9);
        bench.keepalive(id);
    }
    assert_eq!(bench.session.state(), State::Established, "450 s");
    assert!(bench.session.poll_transmit(id).len() < 300, "keepalives do not pile up");
    for _ in 0..5 {
        bench.wait(9);
        bench.keepalive(id);
    }
    // RFC 9687: eight minutes.
    assert_eq!(bench.notified, [(id, (8, 0))]);
}

#[test]
fn nothing_piles_up_for_a_slow_peer() {
    let (mut bench, id) = Bench::established(config());
    bench.read(id);
    let many: Wanted = (0..20_000u32)
        .map(|n| (ipnet::IpNet::from(std::net::IpAddr::from(Ipv4Addr::from(n))), n))
        .map(|(prefix, n)| {
            let mut announcement = Announcement::default();
            announcement.bgp.med = Some(n);
            (prefix, announcement)
        })
        .collect();
    for _ in 0..20 {
        bench.session.handle_wanted(Arc::new(many.clone()), bench.now);
        bench.session.handle_wanted(Arc::default(), bench.now);
        assert!(bench.session.poll_transmit(id).len() <= SEND_BUFFER + 4096);
    }
    while !bench.read(id).is_empty() {}
    assert_eq!(bench.session.adj_rib_out().unwrap().told_count(), 0, "the latest state");
}

#[test]
fn messages_out_of_place_are_fsm_errors_of_the_state() {
    let mut refresh = Vec::new();
    RouteRefresh::encode(Family::Ipv4Unicast, 0, &mut refresh);
    let mut update = Vec::new();
    crate::bgp::wire::encode_end_of_rib(Family::Ipv4Unicast, &mut update);
    let mut open = Vec::new();
    peer_open().encode(&mut open);
    for (what, bytes) in
        [("keepalive", keepalive()), ("update", update.clone()), ("refresh", refresh.clone())]
    {
        let mut bench = Bench::new(config());
        let id = bench.dialled();
        bench.hear(id, &bytes);
        assert_eq!(bench.notified, [(id, (5, 1))], "{what} in OpenSent");
    }
    for (what, bytes) in [("open", open.clone()), ("update", update), ("refresh", refresh)] {
        let mut bench = Bench::new(config());
        let id = bench.dialled();
        bench.open(id, &peer_open());
        bench.hear(id, &bytes);
        assert_eq!(bench.notified, [(id, (5, 2))], "{what} in OpenConfirm");
    }
    let (mut bench, id) = Bench::established(config());
    bench.hear(id, &open);
    assert_eq!(bench.notified, [(id, (5, 3))], "open in Established");
}

#[test]
fn bfd_ends_only_sessions_that_are_up() {
    let mut bench = Bench::new(config());
    let id = bench.dialled();
    bench.open(id, &peer_open());
    bench.session.handle_bfd_down(bench.now);
    bench.follow();
    assert_eq!(bench.session.state(), State::OpenConfirm, "BFD may follow, not lead");
    bench.keepalive(id);
    bench.session.handle_bfd_down(bench.now);
    bench.follow();
    assert_eq!(bench.notified, [(id, (6, 10))]);
    bench.wait(2);
    assert_eq!(bench.session.state(), State::Connect, "and it tries again");
}

#[test]
fn a_stopped_session_stays_down_and_refuses() {
    let (mut bench, id) = Bench::established(config());
    let reason = Notification::shutdown(crate::bgp::wire::cease::ADMIN_SHUTDOWN, "bye");
    bench.session.handle_stop(reason, bench.now);
    bench.follow();
    assert_eq!(bench.notified, [(id, (6, 2))]);
    assert!(bench.accepted().is_none());
    bench.wait(1000);
    assert_eq!(bench.session.state(), State::Idle);
    assert_eq!(bench.session.poll_timeout(), None);
    assert_eq!(bench.session.last_error().unwrap().text.rsplit(' ').next(), Some("bye"));
    bench.session.handle_start(bench.now);
    bench.follow();
    assert_eq!(bench.session.state(), State::Connect);
    let configured = Bench::new(NeighborConfig { shutdown: Some(String::new()), ..config() });
    assert_eq!(configured.session.state(), State::Idle);
    assert!(configured.dials.is_empty());
}

#[test]
fn the_wait_between_attempts_doubles_to_the_configured_limit() {
    let retry = Duration::from_secs(20);
    let mut bench = Bench::new(NeighborConfig { connect_retry: retry, ..config() });
    let mut waits = Vec::new();
    for _ in 0..8 {
        let id = *bench.dials.last().unwrap();
        bench.session.handle_closed(id, "connection refused", bench.now);
        bench.follow();
        assert_eq!(bench.session.state(), State::Active);
        let next = bench.session.poll_timeout().unwrap();
        waits.push((next - bench.now).as_secs_f64());
        bench.now = next;
        bench.session.handle_timeout(next);
        bench.follow();
    }
    for (n, wait) in waits.iter().enumerate() {
        let full = f64::from(1 << n).min(20.0);
        assert!(*wait <= full && *wait >= full * 0.75, "attempt {n}: {wait} of {full}");
    }
    assert_eq!(bench.dials.len(), 9);
}

#[test]
fn a_peer_that_keeps_erring_is_kept_waiting() {
    let mut bench = Bench::new(NeighborConfig { passive: true, ..config() });
    let mut refused = 0;
    for _ in 0..20 {
        match bench.accepted() {
            Some(id) => bench.hear(id, &[0; 19]),
            None => refused += 1,
        }
    }
    assert_eq!(refused, 16, "after some patience, back-off counts");
    bench.wait(40);
    assert!(bench.accepted().is_some(), "and it is given another chance");
}

#[test]
fn a_neighbour_that_shows_up_is_dialled_at_once() {
    let mut bench = Bench::new(config());
    let id = bench.dials[0];
    bench.session.handle_closed(id, "connection refused", bench.now);
    bench.session.handle_reachable(bench.now);
    bench.follow();
    assert_eq!((bench.session.state(), bench.dials.len()), (State::Connect, 2));
    bench.session.handle_reachable(bench.now);
    bench.follow();
    assert_eq!(bench.dials.len(), 2, "once");
}

#[test]
fn a_dial_that_hangs_is_given_up() {
    let mut bench = Bench::new(config());
    bench.wait(11);
    assert_eq!(bench.dials.len(), 2);
    assert_eq!(bench.closed, [bench.dials[0]]);
    assert_eq!(bench.session.last_error().unwrap().text, "connect timed out");
}

#[test]
fn what_arrives_for_a_connection_that_is_gone_is_ignored() {
    let (mut bench, id) = Bench::established(config());
    bench.session.handle_closed(id, "reset", bench.now);
    bench.follow();
    let state = bench.session.state();
    bench.hear(id, &keepalive());
    bench.session.handle_transmitted(id, 1000, bench.now);
    bench.session.handle_dialled(id, endpoints(), bench.now);
    bench.session.handle_closed(id, "again", bench.now);
    bench.follow();
    assert_eq!(bench.session.state(), state);
    assert_eq!(bench.session.last_error().unwrap().text, "reset");
}
