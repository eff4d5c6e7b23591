//! The least that a forwarder can do: what testpmd's `5tswap` does.

use crate::mirror::swap;
use crate::{Args, Measured, cpu_ns};
use anyhow::Result;
use dunlin::packet::Frame;
use dunlin::port::dpdk::{DpdkQueue, Mbuf};
use dunlin::port::{Burst, Queue};
use std::path::Path;
use std::time::{Duration, Instant};

/// The swap callback, in place of the node.
pub fn run(mut queue: DpdkQueue, args: &Args) -> Result<Measured> {
    let mut burst = Burst::new();
    let mut pass = |until: &mut dyn FnMut(u64) -> bool| {
        let (mut received, mut sent) = (0, 0);
        while !until(received) {
            for _ in 0..256 {
                let (more, out) = turn(&mut queue, &mut burst);
                received += more;
                sent += out;
            }
        }
        (received, sent)
    };
    let warm = Instant::now();
    pass(&mut |received| {
        received > 2 * u64::from(args.flows) && warm.elapsed() > Duration::from_millis(300)
    });
    let schedstat = Path::new("/proc/thread-self/schedstat");
    let before = cpu_ns(schedstat)?;
    let (start, time) = (Instant::now(), Duration::from_secs(args.seconds));
    let (received, sent) = pass(&mut |received| match args.packets {
        Some(packets) => received >= packets,
        None => start.elapsed() >= time,
    });
    let (cpu_ns, wall_ns) = (cpu_ns(schedstat)? - before, start.elapsed().as_nanos() as u64);
    Ok(Measured { received, sent, cpu_ns, wall_ns, ..Measured::default() })
}

/// Receive, swap, send and free one burst. Returns how many were received and sent.
fn turn(queue: &mut DpdkQueue, burst: &mut Burst<Mbuf>) -> (u64, u64) {
    let received = queue.rx_burst(burst) as u64;
    for frame in &mut *burst {
        swap(frame.data_mut());
    }
    let sent = queue.tx_burst(burst) as u64;
    Mbuf::free_burst(burst);
    (received, sent)
}
