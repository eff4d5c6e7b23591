//! The bodies of the packet path's fuzz targets: run by libFuzzer (`fuzz/`) and, bounded, by
//! `tests/fuzz_packet.rs`. They panic if something does not hold.

use super::{Bench, INNER, OUTER, frames::TestFrame, plain};
use dunlin::forward::{Origin, Verdict};
use dunlin::packet::{
    Checksum, Fragment, Frame, Kind, Other, PROTOCOL_ICMP, PROTOCOL_ICMPV6, RxMeta,
};
use dunlin::packet::{destination, parse};

/// Any bytes as one frame: parsing and forwarding end, and a frame left to others is unchanged.
pub fn frame(data: &[u8]) {
    for verify in [false, true] {
        if let Ok(kind) = parse(data, data.len(), verify) {
            // What parsed can be read.
            let _ = destination(data, false);
            let _ = destination(data, true);
            assert!(data.len() >= 14, "{kind:?}");
        }
        // The headers must be in the first segment, wherever the frame ends.
        let _ = parse(data, data.len() + 1000, verify);
        let _ = parse(data, data.len() / 2, verify);
    }
    let mut bench = Bench::new(plain(), 8);
    forward_one(&mut bench, data, 0);
}

/// Any bytes as a sequence of frames: a control byte, a length byte and as many bytes, repeated.
/// The control byte says which port, what the port found, whether to fix what usually stops a
/// mutated frame early (destination MAC and IPv4 header checksum), and how much time passes.
pub fn forward(data: &[u8]) {
    let mut bench = Bench::new(plain(), 8);
    let mut frames = 0;
    let mut left = data;
    while let [control, length, rest @ ..] = left {
        let (one, after) = rest.split_at(usize::from(*length).min(rest.len()));
        left = after;
        forward_one(&mut bench, one, *control);
        frames += 1;
        if control & 0x80 != 0 {
            bench.now.0 += 1_500_000_000;
            bench.engine.tick(&bench.tables, bench.now);
        }
        let stats = &bench.stats;
        assert_eq!(
            stats.flows_created.get(),
            stats.flows.get()
                + stats.flows_expired.get()
                + stats.flows_evicted.get()
                + stats.flows_replaced.get(),
            "flows do not add up after {frames} frames"
        );
        assert!(bench.engine.flow_count() <= 8);
    }
}

fn forward_one(bench: &mut Bench, bytes: &[u8], control: u8) {
    let port = if control & 1 == 0 { OUTER } else { INNER };
    let mut frame = TestFrame {
        bytes: bytes.to_vec(),
        meta: RxMeta {
            rss_hash: None,
            ip_checksum: if control & 2 == 0 { Checksum::Unknown } else { Checksum::Good },
            l4_checksum: if control & 4 == 0 { Checksum::Unknown } else { Checksum::Bad },
        },
    };
    if control & 8 == 0 && frame.bytes.len() >= 6 {
        let mac = &bench.spec.ports[usize::from(port.0)].mac.0;
        frame.bytes[..6].copy_from_slice(mac);
    }
    let before = frame.bytes.clone();
    let drops = bench.stats.dropped();
    let verdict = bench.burst(port, Origin::Port, std::slice::from_mut(&mut frame))[0];
    assert_eq!(frame.bytes.len(), before.len(), "the length changed");
    match verdict {
        Verdict::Kernel | Verdict::Handover { .. } | Verdict::Await { .. } => {
            assert_eq!(frame.bytes, before);
        }
        Verdict::Drop(_) => assert_eq!(bench.stats.dropped(), drops + 1),
        Verdict::Transmit { .. } => sent(&frame, &before),
        Verdict::Wait { .. } => {
            let again = bench.engine.resolve(&bench.tables, &mut frame);
            assert_eq!(again, verdict);
        }
    }
}

/// A frame that leaves is as good as it came: a right header checksum stays right, a wrong
/// layer-4 checksum stays wrong and a right one right.
fn sent(after: &TestFrame, before: &[u8]) {
    use dunlin::packet::build::checksums_good;
    use dunlin::packet::checksum::checksum;
    let verified = after.rx_meta().ip_checksum != Checksum::Good;
    let icmp = |frame: &[u8]| match frame[12..14] {
        [0x86, 0xdd] => frame[20] == PROTOCOL_ICMPV6,
        _ => frame[23] == PROTOCOL_ICMP,
    };
    // Too big for its way out: the answer is all ours.
    if icmp(&after.bytes) && !icmp(before) {
        assert!(checksums_good(&after.bytes));
        return;
    }
    if let Ok(Kind::OtherIp { v6, why: Other::Fragment }) = parse(before, before.len(), false) {
        let fragment = Fragment::read(before, v6).expect("what was translated is right");
        let now = Fragment::read(&after.bytes, v6).expect("and stays so");
        assert_eq!(Fragment { identification: now.identification, ..fragment }, now);
        let l4 = if v6 { 62 } else { 34 };
        if fragment.offset > 0 {
            assert_eq!(after.bytes[l4..], before[l4..], "data was changed");
        }
        if !v6 && verified {
            assert_eq!(checksum(&after.bytes[14..34]), 0);
        }
        // Only the first has a checksum.
        if v6 || fragment.offset > 0 {
            return;
        }
    }
    let options = before[12..14] == [0x08, 0x00] && before[14] != 0x45;
    if verified && !options {
        assert_eq!(checksums_good(before), checksums_good(&after.bytes));
    }
}
