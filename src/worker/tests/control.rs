//! Floods: what is forwarded does not starve the kernel's traffic, nor the other way round.

use super::*;
use crate::worker::control::{Class, Gate};
use crate::worker::ring;

const BGP: &str = "10.1.1.2:179";

/// A segment of the router's BGP session with this node; the number tells it from others.
fn bgp(number: u32) -> Vec<u8> {
    build::tcp(INBOUND, address("10.1.1.1:40000"), address(BGP), 0x18, &number.to_be_bytes())
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[54..58].try_into().unwrap())
}

fn ping() -> Vec<u8> {
    let host = |n| IpAddr::from([10, 1, 1, n]);
    build::icmp(INBOUND, host(1), host(2), &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1])
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(ROUTER);
    frame.extend([0x08, 0x06]);
    frame.resize(60, 0);
    frame
}

impl Bench {
    fn turn(&mut self, worker: usize) {
        self.workers[worker].turn(self.now);
        assert_accounts(&self.workers[worker].shared.stats);
    }

    fn at_kernel(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.kernel.receive()).collect()
    }
}

/// The wire takes less than there is to forward, and at times nothing.
#[test]
fn a_flood_that_fills_the_wire_loses_nothing_of_the_kernels() {
    let mut bench = Bench::new(1, 1, &spec(1, 1, true));
    let (mut heard, mut spoken) = (Vec::new(), Vec::new());
    let (mut data, mut asked) = (0u16, 0);
    for turn in 0..600u32 {
        // The router's BGP comes in the midst of full bursts, ours at a quarter of the turns.
        assert!(bench.wires[0].send(bgp(turn)));
        for _ in 0..BURST - 1 {
            let frame = build::tcp(INBOUND, client(data % 500), address(VIP), SYN, b"");
            assert!(bench.wires[0].send(frame));
            data += 1;
        }
        if turn % 4 == 0 {
            assert!(bench.kernel.send(bgp(asked)));
            asked += 1;
        }
        bench.turn(0);
        heard.extend(bench.at_kernel().iter().map(|frame| number(frame)));
        if turn % 9 == 8 {
            let taken = std::iter::from_fn(|| bench.wires[0].receive()).take(16);
            spoken.extend(taken.filter(|frame| frame[36..38] == [0, 179]).map(|f| number(&f)));
        }
        bench.now = Now(bench.now.0 + 20_000);
    }
    assert_eq!(heard, (0..600).collect::<Vec<_>>(), "all of the router's, in order");
    while bench.sum(|s| s.from_kernel.packets.get()) < u64::from(asked) {
        let taken: Vec<_> = std::iter::from_fn(|| bench.wires[0].receive()).collect();
        assert!(!taken.is_empty(), "the wire moves");
        spoken.extend(taken.iter().filter(|frame| frame[36..38] == [0, 179]).map(|f| number(f)));
        bench.turn(0);
    }
    let rest = bench.sent();
    spoken.extend(rest.iter().filter(|frame| frame[36..38] == [0, 179]).map(|f| number(f)));
    assert_eq!(spoken, (0..asked).collect::<Vec<_>>(), "all of ours, in order");
    assert!(bench.sum(|s| s.drops(DropReason::TxFull)) > 10_000, "it was a flood");
}

/// Worker 1 floods worker 0 with replies that are worker 0's; BGP comes and goes by the same way.
#[test]
fn a_flood_between_workers_does_not_fill_the_way_to_the_kernel() {
    // One queue each; the control interface is worker 0's.
    let mut bench = Bench::new(2, 2, &spec(1, 2, true));
    for n in 0..32 {
        assert!(bench.wires[0].send(build::tcp(INBOUND, client(n), address(VIP), SYN, b"")));
    }
    bench.settle();
    let replies: Vec<Vec<u8>> = bench
        .sent()
        .iter()
        .map(|request| {
            let (lip, backend) = tuple(request);
            build::tcp(INBOUND, backend, lip, SYN_ACK, b"")
        })
        .collect();
    assert_eq!(replies.len(), 32);
    let mut heard = Vec::new();
    for round in 0..20u32 {
        // Worker 0 has one turn while worker 1 has forty.
        for turn in 0..40u32 {
            for n in 0..BURST - 1 {
                assert!(bench.wires[1].send(replies[n % replies.len()].clone()));
            }
            if turn == 39 {
                assert!(bench.wires[1].send(bgp(round)));
            }
            bench.turn(1);
        }
        bench.turn(0);
        heard.extend(bench.at_kernel().iter().map(|frame| number(frame)));
        bench.sent();
        bench.now = Now(bench.now.0 + 1_000_000);
    }
    assert_eq!(heard, (0..20).collect::<Vec<_>>());
    assert!(bench.sum(|s| s.drops(DropReason::HandoverFull)) > ring::DEPTH as u64, "a flood");
    assert_eq!(bench.sum(|s| s.drops(DropReason::KernelFull)), 0);
}

/// A port that only worker 0 has a queue of, and a control interface that worker 1 serves.
#[test]
fn the_kernels_frames_pass_a_full_ring_of_data() {
    let mut bench = Bench::new(2, 1, &spec(1, 2, true));
    let control = bench.workers[0].ports[0].queues.control.take();
    assert!(control.is_some());
    bench.workers[1].ports[0].queues.control = control;
    let stuffing = |n| Parcel { errand: Errand::Forward(PortId(0)), frame: MemoryFrame(n) };
    while bench.workers[1].rings.send(WorkerId(0), stuffing(arp())).is_ok() {}
    for n in 0..10 {
        assert!(bench.kernel.send(bgp(n)));
    }
    bench.workers[1].turn(bench.now);
    bench.workers[0].turn(bench.now);
    let spoken: Vec<u32> = bench.sent().iter().map(|frame| number(frame)).collect();
    assert_eq!(spoken, (0..10).collect::<Vec<_>>());
    // Nobody takes them any more: the ring fills, then the kernel's own queue, and nothing is lost.
    let mut sent = 10;
    while bench.kernel.send(bgp(sent)) {
        sent += 1;
        bench.turn(1);
    }
    assert!(sent as usize > ring::CONTROL_DEPTH + BURST, "{sent} frames wait");
    let mut spoken = Vec::new();
    while spoken.len() < sent as usize - 10 {
        bench.workers[0].turn(bench.now);
        bench.turn(1);
        let some = bench.sent();
        assert!(!some.is_empty(), "{} of {sent}", spoken.len());
        spoken.extend(some.iter().map(|frame| number(frame)));
    }
    assert_eq!(spoken, (10..sent).collect::<Vec<_>>(), "in order");
}

/// Half of every burst is for the kernel: pings, or ARP.
#[test]
fn a_flood_for_the_kernel_is_rationed_and_starves_nobody() {
    for (flood, per_second, at_once) in [(ping(), 50_000, 2048), (arp(), 10_000, 1024)] {
        let mut bench = Bench::new(1, 1, &spec(1, 1, true));
        let (mut routing, mut flooded, mut forwarded) = (Vec::new(), 0u64, 0);
        // Two seconds, a turn every 200 µs: 155 000 frames of the flood a second.
        let (turns, step) = (10_000u32, 200_000);
        for turn in 0..turns {
            for n in 0..31 {
                assert!(bench.wires[0].send(flood.clone()));
                let frame = build::tcp(INBOUND, client(n), address(VIP), SYN, b"");
                assert!(bench.wires[0].send(frame));
            }
            assert!(bench.wires[0].send(bgp(turn)));
            bench.turn(0);
            for frame in bench.at_kernel() {
                if frame == flood { flooded += 1 } else { routing.push(number(&frame)) }
            }
            forwarded += bench.sent().len();
            bench.now = Now(bench.now.0 + step);
        }
        assert_eq!(routing, (0..turns).collect::<Vec<_>>(), "BGP passes, all of it and in order");
        assert_eq!(forwarded, 31 * turns as usize, "so does what is forwarded");
        let seconds = u64::from(turns) * step / 1_000_000_000;
        let ration = at_once + per_second * seconds;
        assert!((ration - 200..=ration).contains(&flooded), "{flooded} of {ration}");
        let rest = 31 * u64::from(turns) - flooded;
        assert_eq!(bench.sum(|s| s.drops(DropReason::KernelFull)), rest, "the rest is counted");
    }
}

#[test]
fn classes_are_told_by_protocol_and_port() {
    let udp = |port: u16| {
        let to = SocketAddr::new("10.1.1.2".parse().unwrap(), port);
        build::udp(INBOUND, address("10.1.1.1:49152"), to, b"x")
    };
    let v6 = |next: u8, l4: [u8; 4]| {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, next, 255]);
        frame.resize(54, 0);
        frame.extend(l4);
        frame.resize(78, 0);
        frame
    };
    let tagged = |frame: Vec<u8>| {
        let mut tagged = frame[..12].to_vec();
        tagged.extend([0x81, 0, 0, 7]);
        tagged.extend(&frame[12..]);
        tagged
    };
    let protocol = |protocol: u8| {
        let mut frame = bgp(1);
        frame[23] = protocol;
        frame
    };
    let fragment = {
        let mut frame = bgp(1);
        frame[21] = 9;
        frame
    };
    let with_options = {
        let mut frame = bgp(1);
        frame[14] = 0x46;
        frame.splice(34..34, [0; 4]);
        frame
    };
    let from_bgp = build::tcp(INBOUND, address(BGP), address("10.1.1.1:9"), 0x18, b"");
    let other = build::tcp(INBOUND, client(1), address("10.1.1.2:22"), 0x18, b"");
    let cases = [
        ("BGP, to us", bgp(1), Class::Routing),
        ("BGP, of a session that we opened", from_bgp, Class::Routing),
        ("BGP over IPv6", v6(6, [0, 179, 0, 9]), Class::Routing),
        ("BGP behind a tag", tagged(bgp(1)), Class::Routing),
        ("BGP behind two", tagged(tagged(bgp(1))), Class::Routing),
        ("BGP behind three", tagged(tagged(tagged(bgp(1)))), Class::Other),
        ("BGP behind options", with_options, Class::Routing),
        ("BFD", udp(3784), Class::Routing),
        ("BFD, multihop", udp(4784), Class::Routing),
        ("OSPF", protocol(89), Class::Routing),
        ("OSPFv3", v6(89, [3, 1, 0, 0]), Class::Routing),
        ("a later fragment", fragment, Class::Other),
        ("ARP", arp(), Class::Neighbour),
        ("neighbour advertisement", v6(58, [136, 0, 0, 0]), Class::Neighbour),
        ("a ping over IPv6", v6(58, [128, 0, 0, 0]), Class::Other),
        ("a ping", ping(), Class::Other),
        ("a login", other, Class::Other),
        ("DNS", udp(53), Class::Other),
        ("nothing", Vec::new(), Class::Other),
        ("half of it", bgp(1)[..35].to_vec(), Class::Other),
    ];
    for (what, frame, class) in cases {
        assert_eq!(Class::of(&frame), class, "{what}");
    }
}

#[test]
fn a_gate_fills_with_time_and_no_further() {
    let mut gate = Gate::new();
    let mut passed = |now| (0..5000).filter(|_| gate.admits(Class::Neighbour, Now(now))).count();
    assert_eq!(passed(1_000_000_000), 1024, "full at first");
    assert_eq!(passed(1_000_000_000), 0);
    assert_eq!(passed(1_001_000_000), 10, "10 000 a second");
    assert_eq!(passed(9_000_000_000), 1024);
    assert_eq!(passed(8_000_000_000), 0, "time that goes back earns nothing");
}
