//! Packets that are too big for their way out: their senders hear of it.

use super::fragments::{ACK, Net, backend, bytes, datagram, service, ways};
use super::*;
use crate::forward::too_big::PER_SECOND;
use crate::packet::build::fragments;

const MTU: u16 = 1400;

/// What an answer says: from, to, MTU, and what it quotes.
fn answer(frame: &[u8]) -> (IpAddr, IpAddr, u32, &[u8]) {
    assert!(checksums_good(frame));
    assert_eq!((&frame[..6], &frame[6..12]), (&ROUTER[..], &MAC[..]), "back where it came from");
    let ip = |range: std::ops::Range<usize>| match frame[range].len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap()),
    };
    let length = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if frame[12] == 0x86 {
        assert_eq!((frame[20], &frame[54..56]), (58, &[2, 0][..]));
        let to = IpAddr::from(<[u8; 16]>::try_from(&frame[38..54]).unwrap());
        let mtu = u32::from_be_bytes(frame[58..62].try_into().unwrap());
        let end = 54 + length(18);
        assert!(end - 14 <= 1280);
        (ip(22..38), to, mtu, &frame[62..end])
    } else {
        assert_eq!((frame[23], &frame[34..36]), (1, &[3, 4][..]));
        let to = IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap());
        let end = 14 + length(16);
        assert!(end - 14 <= 576);
        (ip(26..30), to, length(40) as u32, &frame[42..end])
    }
}

fn small() -> Net {
    let mut net = Net::new();
    net.change(|spec| spec.ports[0].mtu = MTU);
    net
}

#[test]
fn the_sender_is_told_the_mtu() {
    for (v6, tcp, reply) in ways() {
        let mut net = small();
        let lip = net.establish(v6, tcp, 1);
        let (from, to) = if reply { (backend(v6), lip) } else { (client(v6, 1), service(v6, tcp)) };
        let most = usize::from(MTU) - if v6 { 40 } else { 20 } - if tcp { 20 } else { 8 };
        let fits = datagram(tcp, from, to, ACK, &bytes(most, 3));
        net.sent(&fits);
        let big = datagram(tcp, from, to, ACK, &bytes(most + 1, 3));
        let error = net.sent(&big);
        let (source, destination, mtu, quoted) = answer(&error);
        assert_eq!((source, destination, mtu), (to.ip(), from.ip(), MTU.into()), "{v6} {tcp}");
        assert_eq!(quoted, &big[14..14 + quoted.len()], "as he sent it");
        assert!(quoted.len() > 500);
        assert_eq!(net.stats.too_big_answers.get(), 1);
        assert_eq!(net.stats.dropped(), 0);
        net.sent(&fits);
        assert_eq!(net.engine.flow_count(), 1);
    }
}

#[test]
fn what_may_be_fragmented_gets_no_answer() {
    let mut net = small();
    let mut big = udp(LINK, client(false, 1), service(false, false), &bytes(1450, 3));
    big[20] = 0;
    big[24..26].fill(0);
    let value = crate::packet::checksum::checksum(&big[14..34]);
    big[24..26].copy_from_slice(&value.to_ne_bytes());
    assert_eq!(net.verdict(&big), Verdict::Drop(DropReason::TooBig));
}

/// IPv6 hosts fragment by what they are told: the first fragment is answered, the rest is dropped.
#[test]
fn a_first_fragment_is_answered() {
    let mut net = small();
    let whole = udp(LINK, client(true, 1), service(true, false), &bytes(4000, 3));
    let parts = fragments(&whole, 5, 1448);
    let error = net.sent(&parts[0]);
    let (source, destination, mtu, quoted) = answer(&error);
    assert_eq!((source, destination, mtu), (vip(true), client(true, 1).ip(), MTU.into()));
    assert_eq!(quoted, &parts[0][14..14 + quoted.len()]);
    for part in &parts[1..] {
        assert_eq!(net.verdict(part), Verdict::Drop(DropReason::TooBig));
    }
}

#[test]
fn answers_are_bounded() {
    let mut net = small();
    net.establish(false, true, 1);
    let big = tcp(LINK, client(false, 1), service(false, true), ACK, &bytes(1450, 3));
    let flood = |net: &mut Net| {
        for _ in 0..3 * PER_SECOND {
            let _ = net.verdict(&big);
        }
        net.stats.too_big_answers.get()
    };
    assert_eq!(flood(&mut net), u64::from(PER_SECOND));
    assert_eq!(net.stats.drops(DropReason::TooBig), 2 * u64::from(PER_SECOND));
    net.pass(500);
    let half = u64::from(PER_SECOND) / 2;
    let then = flood(&mut net) - u64::from(PER_SECOND);
    assert!((half - 20..half + 20).contains(&then), "{then}");
}

/// An error about a fragment that we sent on, quoting its Fragment header: to whom sent it, about what
/// he sent.
#[test]
fn errors_about_fragments_are_translated() {
    for (v6, tcp, reply) in ways() {
        let mut net = Net::new();
        let lip = net.establish(v6, tcp, 1);
        let (from, to) = if reply { (backend(v6), lip) } else { (client(v6, 1), service(v6, tcp)) };
        let whole = datagram(tcp, from, to, ACK, &bytes(3000, 3));
        let parts = fragments(&whole, 0x1234, 1448);
        let sent: Vec<Vec<u8>> = parts.iter().map(|part| net.sent(part)).collect();
        let router: IpAddr =
            if v6 { "2001:db8:77::1".parse().unwrap() } else { [10, 77, 0, 1].into() };
        let we: IpAddr = if v6 {
            <[u8; 16]>::try_from(&sent[0][22..38]).unwrap().into()
        } else {
            <[u8; 4]>::try_from(&sent[0][26..30]).unwrap().into()
        };
        let error = |quoted: &[u8], bytes: usize| {
            let mut message =
                if v6 { vec![2, 0, 0, 0, 0, 0, 5, 0] } else { vec![3, 4, 0, 0, 0, 0, 5, 0] };
            message.extend(&quoted[14..14 + bytes]);
            crate::packet::build::icmp(LINK, router, we, &message)
        };
        // The rest of a header or not: routers of IPv4 may quote eight bytes of it only.
        for bytes in [if v6 { 56 } else { 28 }, 200] {
            let out = net.sent(&error(&sent[0], bytes));
            assert!(checksums_good(&out), "{v6} {tcp} {reply}");
            let start = if v6 { 62 } else { 42 };
            let mut quoted = out[start..start + bytes].to_vec();
            let mut expected = parts[0][14..14 + bytes].to_vec();
            // Identification, hop limit, IPv4's checksum: as we sent it.
            let changed: &[usize] = if v6 { &[7, 44, 45, 46, 47] } else { &[4, 5, 8, 10, 11] };
            for &at in changed {
                (quoted[at], expected[at]) = (0, 0);
            }
            assert_eq!(quoted, expected, "{v6} {tcp} {reply}");
            let to = if v6 { out[38..54].to_vec() } else { out[30..34].to_vec() };
            assert_eq!(to, if v6 { parts[0][22..38].to_vec() } else { parts[0][26..30].to_vec() });
        }
        let later = net.verdict(&error(&sent[1], 200));
        assert_eq!(later, Verdict::Drop(DropReason::UnsupportedHeader));
    }
}
