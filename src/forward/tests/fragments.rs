//! Fragments: what they become, put together, is what the whole datagram would have become.

use super::*;
use crate::forward::datagrams::LIFETIME;
use crate::packet::Fragment;
use crate::packet::build::{fragments, reassemble};

pub(super) const ACK: u8 = 0x10;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// One worker that knows all neighbours, and no limit of length.
pub(super) struct Net {
    spec: TablesSpec,
    tables: Tables,
    pub(super) engine: Engine,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) now: Now,
}

pub(super) fn backend(v6: bool) -> SocketAddr {
    let ip: IpAddr = if v6 { "2001:db8:2::0:1".parse().unwrap() } else { [10, 2, 0, 1].into() };
    SocketAddr::new(ip, 8080)
}

pub(super) fn service(v6: bool, tcp: bool) -> SocketAddr {
    SocketAddr::new(vip(v6), if tcp { 80 } else { 53 })
}

impl Net {
    /// Every service has one backend, the same address for all of a family.
    pub(super) fn new() -> Self {
        let mut spec = spec();
        spec.workers = 1;
        spec.ports[0].mtu = u16::MAX;
        for service in &mut spec.services {
            service.backends.truncate(1);
        }
        let stats = Arc::new(WorkerStats::new(8, 16));
        let config = EngineConfig {
            worker: WorkerId(0),
            workers: 1,
            max_flows: 256,
            seed: 5,
            steering: Steering::default(),
        };
        let tables = Tables::build(&spec, None).unwrap();
        let engine = Engine::new(config, Arc::clone(&stats));
        Self { spec, tables, engine, stats, now: Now(7_000_000_000_000) }
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut TablesSpec)) {
        change(&mut self.spec);
        self.spec.epoch += 1;
        self.tables = Tables::build(&self.spec, Some(&self.tables)).unwrap();
    }

    pub(super) fn forward(&mut self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frame = frame.to_vec();
        let before = frame.clone();
        let dropped = self.stats.dropped();
        let verdict = self.engine.forward(&self.tables, self.now, PORT, &mut frame);
        let drops = u64::from(matches!(verdict, Verdict::Drop(_)));
        assert_eq!(self.stats.dropped(), dropped + drops);
        if !matches!(verdict, Verdict::Transmit { .. } | Verdict::Wait { .. }) {
            assert_eq!(frame, before, "{verdict:?}, but changed");
        }
        (verdict, frame)
    }

    pub(super) fn sent(&mut self, frame: &[u8]) -> Vec<u8> {
        let (verdict, sent) = self.forward(frame);
        assert_eq!(verdict, Verdict::Transmit { port: PORT });
        sent
    }

    pub(super) fn verdict(&mut self, frame: &[u8]) -> Verdict {
        self.forward(frame).0
    }

    /// Establish a flow; what its backend knows it by.
    pub(super) fn establish(&mut self, v6: bool, tcp: bool, n: u8) -> SocketAddr {
        let outside = (client(v6, n), service(v6, tcp));
        let (_, lip, backend) = read(&self.sent(&build(tcp, outside.0, outside.1, SYN)));
        self.sent(&build(tcp, backend, lip, SYN_ACK));
        lip
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.0 += ms * 1_000_000;
    }
}

pub(super) fn datagram(
    tcp_: bool,
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    if tcp_ { tcp(LINK, from, to, flags, payload) } else { udp(LINK, from, to, payload) }
}

pub(super) fn bytes(count: usize, seed: u8) -> Vec<u8> {
    (0..count).map(|n| (n as u8).wrapping_mul(seed).wrapping_add(seed)).collect()
}

/// Every family, protocol and direction: as sender and receiver are outside.
pub(super) fn ways() -> impl Iterator<Item = (bool, bool, bool)> {
    (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0))
}

pub(super) fn id(frame: &[u8]) -> u32 {
    Fragment::read(frame, frame[12] == 0x86).unwrap().identification
}

fn await_(verdict: Verdict) -> Option<u32> {
    match verdict {
        Verdict::Await { datagram } => Some(datagram),
        _ => None,
    }
}

#[test]
fn a_datagram_in_fragments_becomes_what_the_whole_one_becomes() {
    for (v6, tcp, reply) in ways() {
        let mut net = Net::new();
        // Requests over UDP begin their flow with the first fragment.
        let (from, to) = if reply {
            (backend(v6), net.establish(v6, tcp, 1))
        } else {
            if tcp {
                net.establish(v6, tcp, 1);
            }
            (client(v6, 1), service(v6, tcp))
        };
        let whole = datagram(tcp, from, to, ACK, &bytes(4000, 3));
        let parts = fragments(&whole, 0xbeef, 1480);
        let sent: Vec<Vec<u8>> = parts.iter().map(|part| net.sent(part)).collect();
        let together = reassemble(&sent).expect("fragments of one datagram");
        assert!(checksums_good(&together), "{v6} {tcp} {reply}");
        assert_eq!(together, net.sent(&whole));
        assert_ne!(id(&sent[0]), 0xbeef);
        assert_eq!(net.stats.fragments.get(), 3);
        assert_eq!(net.engine.flow_count(), 1);
        let slot = match (v6, tcp) {
            (false, true) => 0,
            (false, false) => 1,
            (true, true) => 2,
            (true, false) => 3,
        };
        let usage = net.stats.service(ServiceId(slot)).unwrap();
        let traffic = if reply { usage.replies() } else { usage.requests() };
        let expected: usize = parts.iter().chain([&whole]).map(Vec::len).sum();
        assert!(traffic.bytes.get() >= expected as u64, "every fragment is counted");
    }
}

#[test]
fn what_comes_before_the_first_waits_for_it() {
    for (v6, tcp, _) in ways() {
        let mut net = Net::new();
        if tcp {
            net.establish(v6, tcp, 1);
        }
        let whole = datagram(tcp, client(v6, 1), service(v6, tcp), ACK, &bytes(4000, 5));
        let parts = fragments(&whole, 1, 1480);
        let noted = net.engine.datagrams_noted();
        let waits = [2, 1].map(|n: usize| await_(net.verdict(&parts[n])).expect("to wait"));
        assert_eq!(waits[0], waits[1], "of one datagram");
        let known = |net: &Net| net.engine.knows_datagram(waits[0], Origin::Port, net.now);
        assert!(!known(&net));
        assert_eq!(net.engine.datagrams_noted(), noted, "who waits takes no place");
        let first = net.sent(&parts[0]);
        assert!(known(&net) && net.engine.datagrams_noted() > noted);
        let sent = [net.sent(&parts[2]), first, net.sent(&parts[1])];
        assert_eq!(reassemble(&sent), Some(net.sent(&whole)));
    }
}

/// RFC 3022 §6.3: they share addresses once translated.
#[test]
fn equal_identifications_are_kept_apart() {
    for (v6, tcp, reply) in ways() {
        let mut net = Net::new();
        let mut sent = Vec::new();
        // Clients toward one backend; or flows of one client's address toward him: then the
        // sender's own identifications differ, but both of his backends may choose the same.
        for n in 1..=5 {
            let lip = net.establish(v6, tcp, n);
            let (from, to) =
                if reply { (backend(v6), lip) } else { (client(v6, n), service(v6, tcp)) };
            let identification = if reply { n.into() } else { 7 };
            let whole = datagram(tcp, from, to, ACK, &bytes(3000, n));
            let parts = fragments(&whole, identification, 1480);
            sent.push((whole, parts));
        }
        let mut out: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 5];
        for part in 0..3 {
            for (n, (_, parts)) in sent.iter().enumerate() {
                out[n].push(net.sent(&parts[part]));
            }
        }
        let mut ids: Vec<u32> = out.iter().map(|parts| id(&parts[0])).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5, "{v6} {tcp} {reply}");
        for ((whole, _), parts) in sent.iter().zip(&out) {
            assert_eq!(reassemble(parts), Some(net.sent(whole)));
        }
    }
}

#[test]
fn a_first_fragment_that_comes_twice_changes_nothing() {
    let mut net = Net::new();
    let whole = datagram(false, client(false, 1), service(false, false), 0, &bytes(3000, 3));
    let parts = fragments(&whole, 9, 1480);
    let sent = [&parts[0], &parts[1], &parts[0], &parts[2]].map(|part| net.sent(part));
    assert_eq!(sent[0], sent[2]);
    assert!(reassemble(&[sent[0].clone(), sent[1].clone(), sent[3].clone()]).is_some());
    // Another flow's, by a sender that uses an identification again: another datagram.
    let mut other = client(false, 1);
    other.set_port(9);
    let whole = datagram(false, other, service(false, false), 0, &bytes(3000, 4));
    let sent_again: Vec<Vec<u8>> =
        fragments(&whole, 9, 1480).iter().map(|part| net.sent(part)).collect();
    assert_ne!(id(&sent_again[0]), id(&sent[0]));
    assert_eq!(reassemble(&sent_again), Some(net.sent(&whole)));
}

#[test]
fn a_datagram_is_forgotten_when_its_fragments_stay_away() {
    let mut net = Net::new();
    let whole = datagram(false, client(false, 1), service(false, false), 0, &bytes(6000, 3));
    let parts = fragments(&whole, 9, 1000);
    net.sent(&parts[0]);
    for part in &parts[1..5] {
        net.pass(1_500);
        net.sent(part);
    }
    net.pass(2_100);
    assert!(await_(net.verdict(&parts[5])).is_some());
    assert!(i64::from(LIFETIME) << 24 <= 2_100_000_000);
}

/// More datagrams than there are places: bounded, counted, and the newest go on.
#[test]
fn a_flood_of_first_fragments_costs_its_table() {
    let mut net = Net::new();
    let whole = datagram(false, client(false, 1), service(false, false), 0, &bytes(2000, 3));
    let count = 20_000;
    for n in 0..count {
        net.sent(&fragments(&whole, n, 1480)[0]);
    }
    let last = fragments(&whole, count - 1, 1480);
    net.sent(&last[1]);
    let evicted = net.stats.datagrams_evicted.get();
    assert!((10_000..u64::from(count)).contains(&evicted), "{evicted}");
    let lost = (0..100).filter(|&n| await_(net.verdict(&fragments(&whole, n, 1480)[1])).is_some());
    assert!(lost.count() > 90, "the oldest are gone");
}

/// RFC 1858, RFC 3128: nothing may go past what the first fragment shows.
#[test]
fn first_fragments_without_their_header_and_overlaps_are_dropped() {
    for v6 in [false, true] {
        let mut net = Net::new();
        net.establish(v6, true, 1);
        let (from, to) = (client(v6, 1), service(v6, true));
        let segment = tcp(LINK, from, to, ACK, &bytes(400, 3));
        for (identification, size) in [(1, 8), (2, 16)] {
            let parts = fragments(&segment, identification, size);
            for part in &parts {
                let reason = match Fragment::read(part, v6).unwrap().offset {
                    8 | 16 => DropReason::FragmentOverlap,
                    _ => DropReason::FragmentHeader, // those that follow, as the first
                };
                assert_eq!(net.verdict(part), Verdict::Drop(reason));
            }
        }
        // A header that its data offset makes longer than the fragment.
        let mut long = segment.clone();
        let l4 = if v6 { 54 } else { 34 };
        long[l4 + 12] = 0xf0;
        let first = &fragments(&long, 3, 56)[0];
        assert_eq!(net.verdict(first), Verdict::Drop(DropReason::FragmentHeader));
        long[l4 + 12] = 0x40;
        let first = &fragments(&long, 4, 56)[0];
        assert_eq!(net.verdict(first), Verdict::Drop(DropReason::BadHeader));
        // The second overlaps the first, but not its header.
        let small = fragments(&segment, 5, 24);
        net.sent(&fragments(&segment, 5, 48)[0]);
        assert_eq!(net.verdict(&small[1]), Verdict::Drop(DropReason::FragmentOverlap));
        net.sent(&small[2]);
        // A first fragment whose port could still be overwritten is none: eight bytes are all of
        // UDP's header.
        let whole = udp(LINK, from, service(v6, false), &bytes(40, 3));
        for part in fragments(&whole, 6, 8) {
            net.sent(&part);
        }
    }
}

#[test]
fn what_becomes_of_the_first_becomes_of_the_rest() {
    type Case = (&'static str, fn(&mut Net), fn(&mut Vec<u8>), u16, DropReason);
    let cases: &[Case] = &[
        ("no such service", |_| {}, |_| {}, 54, DropReason::NoService),
        (
            "no backend",
            |net| net.change(|spec| spec.services[1].backends[0].usable = false),
            |_| {},
            53,
            DropReason::NoBackend,
        ),
        ("no way", |net| net.change(|spec| spec.routes.clear()), |_| {}, 53, DropReason::NoRoute),
        (
            "larger than the MTU",
            |net| net.change(|spec| spec.ports[0].mtu = 1400),
            |_| {},
            53,
            DropReason::TooBig,
        ),
        (
            "UDP's length",
            |_| {},
            |frame| frame[38..40].copy_from_slice(&[0, 7]),
            53,
            DropReason::BadHeader,
        ),
    ];
    for (name, prepare, change, port, reason) in cases {
        let mut net = Net::new();
        prepare(&mut net);
        let to = SocketAddr::new(vip(false), *port);
        let mut whole = udp(LINK, client(false, 1), to, &bytes(3000, 3));
        change(&mut whole);
        for part in fragments(&whole, 5, 1480) {
            assert_eq!(net.verdict(&part), Verdict::Drop(*reason), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_translated_is_dropped_under_its_reason() {
    let mut net = Net::new();
    let (from, to) = (client(false, 1).ip(), vip(false));
    let echo = crate::packet::build::icmp(LINK, from, to, &[8; 3000]);
    for part in fragments(&echo, 5, 1480) {
        assert_eq!(net.verdict(&part), Verdict::Drop(DropReason::Fragment));
    }
    // The hop limit of each counts.
    let whole = udp(LINK, client(true, 1), service(true, false), &bytes(2000, 3));
    let mut parts = fragments(&whole, 5, 1448);
    net.sent(&parts[0]);
    parts[1][21] = 1;
    assert_eq!(net.verdict(&parts[1]), Verdict::Drop(DropReason::TtlExpired));
    // No checksum: IPv4 may, IPv6 may not.
    for (v6, at, verdict) in [
        (false, 40, Verdict::Transmit { port: PORT }),
        (true, 60, Verdict::Drop(DropReason::BadL4Checksum)),
    ] {
        let mut whole = udp(LINK, client(v6, 2), service(v6, false), &bytes(2000, 3));
        whole[at..at + 2].fill(0);
        let (got, sent) = net.forward(&fragments(&whole, 6, 1448)[0]);
        assert_eq!(got, verdict);
        assert!(v6 || sent[at..at + 2] == [0, 0]);
    }
    // Headers must lie in the frame's first part.
    let first = &fragments(&udp(LINK, client(false, 1), service(false, false), &[1; 99]), 7, 64)[0];
    let mut cut = Segmented(first[..40].to_vec(), first.len());
    let verdict = net.engine.forward(&net.tables, net.now, PORT, &mut cut);
    assert_eq!(verdict, Verdict::Drop(DropReason::Truncated));
}

/// A frame whose first part ends early.
struct Segmented(Vec<u8>, usize);

impl crate::packet::Frame for Segmented {
    fn data(&self) -> &[u8] {
        &self.0
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn total_len(&self) -> usize {
        self.1
    }
}

/// An atomic fragment (RFC 6946) is a whole datagram, and nothing follows it.
#[test]
fn a_datagram_in_one_piece_is_translated_alone() {
    let mut net = Net::new();
    let whole = udp(LINK, client(true, 1), service(true, false), &bytes(100, 3));
    let atomic = fragments(&whole, 5, 1000);
    assert_eq!(atomic.len(), 1);
    let sent = net.sent(&atomic[0]);
    assert_eq!(net.engine.datagrams_noted(), 0);
    assert_eq!(reassemble(&[sent]), Some(net.sent(&whole)));
}

#[test]
fn fragments_wait_for_a_neighbour_like_others() {
    for v6 in [false, true] {
        let mut net = Net::new();
        net.change(|spec| spec.neighbours.clear());
        let whole = udp(LINK, client(v6, 1), service(v6, false), &bytes(3000, 3));
        let mut waiting = Vec::new();
        for part in fragments(&whole, 5, 1448) {
            let (verdict, frame) = net.forward(&part);
            let Verdict::Wait { next_hop } = verdict else { panic!("{verdict:?}") };
            let neighbour = super::super::unresolved(&net.tables, next_hop, &frame);
            assert_eq!(
                neighbour,
                Some((PORT, net.spec.next_hops[usize::from(v6)].gateway.unwrap()))
            );
            waiting.push(frame);
        }
        net.change(|spec| spec.neighbours = self::spec().neighbours);
        for frame in &mut waiting {
            let verdict = net.engine.resolve(&net.tables, frame);
            assert_eq!(verdict, Verdict::Transmit { port: PORT });
        }
        assert_eq!(reassemble(&waiting), Some(net.sent(&whole)));
    }
}
