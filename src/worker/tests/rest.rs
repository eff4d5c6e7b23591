//! Idle workers: what wakes them, and ports that promise to.

use super::*;
use crate::port::memory::pair_with_interrupt;

/// A worker that may rest so long, over one port with an interrupt and a control interface with or
/// without.
fn bench(max_sleep: Duration, rings: bool, control: bool) -> Bench {
    let mut bench = Bench::new(1, 1, &spec(1, 1, true));
    let worker = &mut bench.workers[0];
    let (far, near) = pair_with_interrupt(256, rings).unwrap();
    bench.wires[0] = far;
    worker.ports[0].queues.wire = Some(near);
    if control {
        let (far, near) = pair_with_interrupt(256, rings).unwrap();
        bench.kernel = far;
        worker.ports[0].queues.control = Some(near);
    }
    worker.idle = Idle::new(PollMode::Adaptive, max_sleep);
    worker.set_alarm();
    bench
}

fn syn(n: u16) -> Vec<u8> {
    build::tcp(INBOUND, client(n), address(VIP), SYN, b"")
}

impl Bench {
    /// Turns without work until the worker is about to rest, its ports armed.
    fn tire(&mut self) {
        while !self.wires[0].is_awaited() {
            assert_eq!(self.workers[0].turn(self.now), 0);
            assert!(!self.workers[0].rest(false), "it looks once more after arming");
        }
    }
}

/// Rests of at least a minute, if nothing came: each of these ends by its frame.
#[test]
fn a_frame_ends_a_rest() {
    let mut bench = bench(Duration::from_secs(60), true, true);
    assert_eq!(bench.workers[0].shared.rest().0, Rest::WakesUp);
    for n in 0..3 {
        bench.tire();
        // Any further, and it rests for seconds.
        bench.workers[0].idle.tire();
        assert!(bench.wires[0].send(syn(n)));
        assert!(bench.workers[0].rest(false), "time has passed");
        assert!(bench.workers[0].idle.is_fresh(), "it was woken");
        assert_eq!(bench.workers[0].turn(bench.now), 1);
        assert_eq!(bench.sent().len(), 1);
        assert!(!bench.workers[0].rest(true));
        assert!(!bench.wires[0].is_awaited(), "no interrupts while there is work");

        bench.tire();
        bench.workers[0].idle.tire();
        assert!(bench.kernel.send(syn(n)));
        assert!(bench.workers[0].rest(false));
        assert!(bench.workers[0].idle.is_fresh(), "woken by the kernel");
        assert_eq!(bench.workers[0].turn(bench.now), 1);
        assert!(!bench.workers[0].rest(true));
        bench.sent();
    }
}

#[test]
fn a_rest_without_a_frame_ends_in_time() {
    let mut bench = bench(Duration::from_micros(200), true, true);
    bench.tire();
    for _ in 0..200 {
        assert_eq!(bench.workers[0].turn(bench.now), 0);
        assert!(bench.workers[0].rest(false));
        assert!(!bench.workers[0].idle.is_fresh());
    }
    assert_eq!(bench.workers[0].shared.rest().0, Rest::WakesUp, "idleness is no silence");
}

/// Frames come, each after a rest that nothing ended. Of a port that does not ring they show that it
/// never will; of one that does, or beside one that has no interrupt, they show nothing.
#[test]
fn a_port_that_promises_and_does_not_ring_is_found_out() {
    for (rings, control, found_out) in
        [(false, true, true), (true, true, false), (false, false, false)]
    {
        let mut bench = bench(Duration::from_micros(200), rings, control);
        let mut frames = 0;
        for n in 0..200 {
            if bench.workers[0].alarm.is_none() {
                break;
            }
            bench.tire();
            bench.workers[0].idle.tire();
            // An old ring ends the first of these.
            for _ in 0..2 {
                bench.workers[0].rest(false);
                bench.workers[0].idle.tire();
            }
            assert!(bench.wires[0].send(syn(n % 100)));
            frames += bench.workers[0].turn(bench.now);
            bench.workers[0].rest(true);
            bench.sent();
        }
        let (rest, why) = bench.workers[0].shared.rest();
        let case = format!("rings: {rings}, control: {control}: {why}, {frames} frames");
        assert_eq!(rest == Rest::Sleeps, found_out, "{case}");
        assert_eq!(bench.workers[0].alarm.is_none(), found_out, "{case}");
        assert_eq!(frames < 100, found_out, "{case}");
        if found_out {
            assert!(!bench.wires[0].is_awaited(), "disarmed");
            bench.workers[0].idle.tire();
            assert!(bench.workers[0].rest(false), "it sleeps");
        }
    }
}

#[test]
fn why_a_worker_does_what_it_does_is_told() {
    let mut one_of_two = bench(Duration::from_micros(200), true, false);
    let told = |bench: &Bench| bench.workers[0].shared.rest();
    let reason = "1 of its 2 queues have receive interrupts".to_owned();
    assert_eq!(told(&one_of_two), (Rest::WakesUp, reason));
    one_of_two.workers[0].idle = Idle::new(PollMode::Latency, Duration::from_micros(200));
    one_of_two.workers[0].set_alarm();
    assert_eq!(told(&one_of_two), (Rest::Spins, "as configured".to_owned()));
    let mut none = Bench::new(1, 1, &spec(1, 1, true));
    none.workers[0].idle = Idle::new(PollMode::Adaptive, Duration::from_micros(200));
    none.workers[0].set_alarm();
    let reason = "no port of it has receive interrupts (dunlin ports)".to_owned();
    assert_eq!(told(&none), (Rest::Sleeps, reason));
}
