//! Fragments of many datagrams, in any order.

use super::fragments::{ACK, Net, backend, bytes, datagram, id, service};
use super::*;
use crate::packet::build::{fragments, reassemble};

/// A datagram that somebody sends in fragments.
#[derive(Debug, Clone)]
struct Sending {
    v6: bool,
    tcp: bool,
    reply: bool,
    client: u8,
    payload: usize,
    size: usize,
}

fn sending() -> impl Strategy<Value = Sending> {
    (any::<[bool; 3]>(), 1u8..5, 30usize..3000, 24usize..1480).prop_map(
        |([v6, tcp, reply], client, payload, size)| Sending {
            v6,
            tcp,
            reply,
            client,
            payload,
            size,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Fragments of many datagrams, each sender counting its own identifications from 1, in any
    /// order: what leaves can be told apart by addresses and identification, and put together is what
    /// the whole datagrams become.
    #[test]
    fn any_interleaving_is_put_together_right(
        sendings in prop::collection::vec(sending(), 1..12),
        order: u64,
    ) {
        let mut net = Net::new();
        let mut counters: HashMap<(bool, bool, bool, u8), u32> = HashMap::new();
        let mut lips = HashMap::new();
        let (mut parts, mut wholes) = (Vec::new(), Vec::new());
        for (n, s) in sendings.iter().enumerate() {
            // Half of the UDP flows begin with a fragment.
            let known = s.tcp || s.reply || s.client % 2 == 0;
            let lip = known.then(|| {
                *lips.entry((s.v6, s.tcp, s.client)).or_insert_with(|| net.establish(s.v6, s.tcp, s.client))
            });
            let (from, to) = match lip {
                Some(lip) if s.reply => (backend(s.v6), lip),
                _ => (client(s.v6, s.client), service(s.v6, s.tcp)),
            };
            // A backend is one sender, whoever it answers.
            let sender = (s.v6, s.tcp, s.reply, if s.reply { 0 } else { s.client });
            let identification = counters.entry(sender).or_default();
            *identification += 1;
            let whole = datagram(s.tcp, from, to, ACK, &bytes(s.payload, n as u8));
            parts.extend(fragments(&whole, *identification, s.size));
            wholes.push(whole);
        }
        let mut state = order | 1;
        for at in (1..parts.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            parts.swap(at, (state >> 33) as usize % (at + 1));
        }
        // What waits is kept as a worker does.
        let mut kept: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            // Payloads that fit one IPv4 fragment are no fragments.
            match net.forward(&part) {
                (Verdict::Transmit { .. }, frame) => sent.push(frame),
                (Verdict::Await { datagram }, frame) => kept.push((datagram, frame)),
                (other, _) => prop_assert!(false, "{other:?}"),
            }
            let now = net.now;
            for (datagram, frame) in std::mem::take(&mut kept) {
                if net.engine.knows_datagram(datagram, Origin::Port, now) {
                    sent.push(net.sent(&frame));
                } else {
                    kept.push((datagram, frame));
                }
            }
        }
        prop_assert!(kept.is_empty());
        // As the receivers see it.
        let mut groups: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        let mut arrived = Vec::new();
        for frame in sent {
            let v6 = frame[12] == 0x86;
            if !v6 && frame[20..22] == [0, 0] {
                let mut frame = frame; // as `reassemble` leaves it
                frame[18..22].copy_from_slice(&[0, 0, 0x40, 0]);
                frame[24..26].fill(0);
                let value = crate::packet::checksum::checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&value.to_ne_bytes());
                arrived.push(frame);
                continue;
            }
            let mut name = frame[if v6 { 22..54 } else { 26..34 }].to_vec();
            name.push(frame[if v6 { 54 } else { 23 }]);
            name.extend(id(&frame).to_be_bytes());
            groups.entry(name).or_default().push(frame);
        }
        for group in groups.values() {
            let whole = reassemble(group);
            prop_assert!(whole.is_some(), "{} frames make no datagram", group.len());
            arrived.extend(whole);
        }
        let mut expected: Vec<Vec<u8>> = wholes.iter().map(|whole| net.sent(whole)).collect();
        prop_assert!(arrived.iter().all(|frame| checksums_good(frame)));
        arrived.sort();
        expected.sort();
        prop_assert_eq!(arrived, expected);
        prop_assert_eq!(net.stats.dropped(), 0);
        net.engine.flows.check();
    }
}
