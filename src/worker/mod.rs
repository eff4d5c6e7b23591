//! The loop: take tables, receive, forward, transmit, count, beat.
//!
//! A [`Worker`] owns its receive queues, its share of the flows and its local ports, and shares
//! none of them. It never blocks: no lock, no allocation and no system call per packet. It alone
//! sends, frees and counts, by [`Verdict`].
//!
//! Accounting, at every moment between turns:
//! received (ports, kernel, other workers) = transmitted + to kernel + handed over + dropped + parked
//! (waiting for a neighbour, or for the first fragment of a datagram).

mod alarm;
mod control;
mod idle;
mod kept;
mod parked;
mod probe;
mod ring;
mod shared;
pub mod sharing;
#[cfg(test)]
mod tests;

pub use idle::Rest;
pub use parked::Neighbour;
pub use ring::Rings;
pub use shared::{FlowMemory, Place, Published, Shared};

use crate::config::model::PollMode;
use crate::forward::tables::{PortId, WorkerId};
use crate::forward::{
    DropReason, Engine, FlowView, Now, Origin, Tables, Verdict, WorkerStats, unresolved,
};
use crate::packet::Frame;
use crate::port::{BURST, Burst, Queue};
use alarm::Alarm;
use arrayvec::ArrayVec;
use control::Gate;
use idle::Idle;
use kept::Kept;
use parked::Parked;
use ring::{Errand, Parcel};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Flow slots looked at per turn for one `dunlin flows`: bounded, so that packets do not wait.
const SCAN_PER_TURN: usize = 256;

/// Bursts of at least so many frames for one port are sent as they are; of smaller ones several
/// are collected, so that the port is not asked for every frame or two.
const SENT_AT_ONCE: usize = 8;

/// Most packet buffers that each of so many workers holds outside of queues and caches: bursts under
/// way, frames that wait for a neighbour, and what others have handed over.
pub fn held_by_worker(workers: u16) -> u32 {
    let rings = if workers > 1 { ring::DEPTH } else { 0 };
    (4 * BURST + parked::CAPACITY + rings) as u32
}

/// A question to a worker, answered between bursts.
pub enum Command {
    /// Flows that `filter` accepts: all counted, up to `limit` listed.
    Flows {
        filter: Box<dyn Fn(&FlowView) -> bool + Send>,
        limit: usize,
        reply: tokio::sync::oneshot::Sender<FlowPage>,
    },
}

/// What a worker found.
#[derive(Debug, Default)]
pub struct FlowPage {
    pub flows: Vec<FlowView>,
    /// Flows that the filter accepted, listed or not.
    pub matched: u64,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flows { limit, .. } => write!(f, "Flows {{ limit: {limit} }}"),
        }
    }
}

/// This worker's queues of one port.
#[derive(Debug)]
pub struct PortQueues<Q: Queue> {
    /// A queue pair of the device. `None`: the device has fewer queues than there are workers.
    pub wire: Option<Q>,
    /// Who transmits for us where we have no queue.
    pub wire_deputy: WorkerId,
    /// The control interface, at the one worker that serves it.
    pub control: Option<Q>,
    pub control_owner: WorkerId,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts<Q: Queue> {
    pub id: WorkerId,
    pub engine: Engine,
    /// By [`PortId`].
    pub ports: Vec<PortQueues<Q>>,
    pub rings: Rings<Q::Frame>,
    pub published: Arc<Published>,
    pub shared: Arc<Shared>,
    pub commands: Receiver<Command>,
    /// Neighbours the kernel should resolve. Full: the next frame asks again.
    pub wanted_neighbours: tokio::sync::mpsc::Sender<Neighbour>,
    /// To the cluster task; `None`: flows are not shared with other nodes.
    pub sharing: Option<sharing::WorkerEnd>,
    pub poll: PollMode,
    pub max_sleep: Duration,
}

struct PortEnd<Q: Queue> {
    queues: PortQueues<Q>,
    to_wire: Burst<Q::Frame>,
    to_kernel: Burst<Q::Frame>,
    /// What the wire has not taken yet.
    from_kernel: Burst<Q::Frame>,
}

struct Scan {
    cursor: u32,
    filter: Box<dyn Fn(&FlowView) -> bool + Send>,
    limit: usize,
    found: FlowPage,
    reply: tokio::sync::oneshot::Sender<FlowPage>,
}

/// One forwarding thread.
pub struct Worker<Q: Queue> {
    id: WorkerId,
    engine: Engine,
    tables: Arc<Tables>,
    ports: Vec<PortEnd<Q>>,
    rings: Rings<Q::Frame>,
    parked: Parked<Q::Frame>,
    gate: Gate,
    kept: Kept<Q::Frame>,
    rx: Burst<Q::Frame>,
    verdicts: ArrayVec<Verdict, BURST>,
    published: Arc<Published>,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    scan: Option<Scan>,
    page: Vec<FlowView>,
    wanted_neighbours: tokio::sync::mpsc::Sender<Neighbour>,
    sharing: Option<sharing::WorkerEnd>,
    idle: Idle,
    /// `None`: its ports do not tell when frames come, or it does not wait.
    alarm: Option<Alarm>,
}

impl<Q: Queue> std::fmt::Debug for Worker<Q> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<Q: Queue> Worker<Q> {
    pub fn new(parts: WorkerParts<Q>) -> Self {
        let tables = parts.published.load();
        let mut engine = parts.engine;
        engine.set_tables(&tables);
        parts.shared.epoch.store(tables.epoch(), Ordering::Release);
        let end = |queues| PortEnd {
            queues,
            to_wire: Burst::new(),
            to_kernel: Burst::new(),
            from_kernel: Burst::new(),
        };
        let mut worker = Self {
            id: parts.id,
            engine,
            tables,
            ports: parts.ports.into_iter().map(end).collect(),
            rings: parts.rings,
            parked: Parked::new(),
            gate: Gate::new(),
            kept: Kept::new(),
            rx: Burst::new(),
            verdicts: ArrayVec::new(),
            published: parts.published,
            shared: parts.shared,
            commands: parts.commands,
            scan: None,
            page: Vec::with_capacity(SCAN_PER_TURN),
            wanted_neighbours: parts.wanted_neighbours,
            sharing: parts.sharing,
            idle: Idle::new(parts.poll, parts.max_sleep),
            alarm: None,
        };
        worker.set_alarm();
        worker
    }

    /// Turn until told to stop. `clock` is monotonic and the same for all workers.
    pub fn run(&mut self, clock: impl Fn() -> Now) {
        let mut start = clock();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let found_work = self.turn(start) > 0;
            let end = clock();
            if found_work {
                let busy = self.shared.busy_ns.load(Ordering::Relaxed) + (end.0 - start.0);
                self.shared.busy_ns.store(busy, Ordering::Relaxed);
            }
            self.shared.beat_ns.store(end.0, Ordering::Release);
            let rested = self.rest(found_work);
            start = if rested { clock() } else { end };
        }
    }

    /// One turn of the loop. Returns how many frames it took in.
    pub fn turn(&mut self, now: Now) -> usize {
        self.take_tables();
        let mut work = self.serve_control(now);
        for index in 0..self.ports.len() {
            work += self.receive(PortId(index as u16), now);
        }
        work += self.receive_handed_over(now);
        if !self.kept.is_empty() {
            self.serve_kept(now);
        }
        self.engine.tick(&self.tables, now);
        self.expire_parked(now);
        self.flush();
        self.answer_probe(now);
        self.serve_command(now);
        if let Some(sharing) = &mut self.sharing {
            sharing.turn(&mut self.engine, &self.tables, now);
        }
        work
    }

    fn take_tables(&mut self) {
        let Some(tables) = self.published.newer_than(self.tables.epoch()) else { return };
        self.engine.set_tables(&tables);
        self.tables = tables;
        self.retry_parked();
        self.shared.epoch.store(self.tables.epoch(), Ordering::Release);
    }

    fn receive(&mut self, port: PortId, now: Now) -> usize {
        let Some(wire) = &mut self.ports[usize::from(port.0)].queues.wire else { return 0 };
        let received = wire.rx_burst(&mut self.rx);
        if received > 0 {
            let bytes = bytes(&self.rx);
            self.shared.stats.received.add(received as u64, bytes);
            self.forward(port, Origin::Port, now, bytes);
        }
        received
    }

    /// Frames from other workers, at most a burst of each, forwarded in runs of the same port.
    fn receive_handed_over(&mut self, now: Now) -> usize {
        let mut received = 0;
        for ring in 0..self.rings.from.len() {
            let mut run = PortId(0);
            for _ in 0..BURST {
                let Ok(Parcel { errand, frame }) = self.rings.from[ring].pop() else { break };
                received += 1;
                match errand {
                    Errand::Transmit(port) => self.transmit(port, frame),
                    Errand::Kernel(port) => self.give_to_kernel(port, frame, now),
                    Errand::Forward(port) => {
                        if port != run {
                            self.forward_handed_over(run, now);
                            run = port;
                        }
                        self.rx.push(frame);
                    }
                }
            }
            self.forward_handed_over(run, now);
        }
        if received > 0 {
            self.shared.stats.received_by_handover.packets.add(received as u64);
        }
        received
    }

    fn forward_handed_over(&mut self, port: PortId, now: Now) {
        if !self.rx.is_empty() {
            let bytes = bytes(&self.rx);
            self.forward(port, Origin::Handover, now, bytes);
        }
    }

    /// Forward what is in `rx`, so many bytes, and carry out the verdicts.
    fn forward(&mut self, port: PortId, origin: Origin, now: Now, bytes: u64) {
        let egress = self.engine.forward_burst(
            &self.tables,
            now,
            port,
            origin,
            &mut self.rx,
            &mut self.verdicts,
        );
        if let Some(egress) = egress
            && self.send_at_once(egress, bytes)
        {
            return;
        }
        let mut burst = std::mem::take(&mut self.rx);
        let verdicts = std::mem::take(&mut self.verdicts);
        for (frame, verdict) in burst.drain(..).zip(verdicts) {
            self.carry_out(verdict, (port, origin), frame, now);
        }
    }

    /// Send all of `rx`, so many bytes, after what waits for the same port. `false`: not done, it is
    /// not worth it or the port is not ours.
    fn send_at_once(&mut self, port: PortId, length: u64) -> bool {
        if self.rx.len() < SENT_AT_ONCE {
            return false;
        }
        let Some(PortEnd { queues: PortQueues { wire: Some(wire), .. }, to_wire, .. }) =
            self.ports.get_mut(usize::from(port.0))
        else {
            return false;
        };
        let stats = &self.shared.stats;
        if !to_wire.is_empty() {
            let waiting = bytes(to_wire);
            send_all(wire, to_wire, waiting, stats);
        }
        send_all(wire, &mut self.rx, length, stats);
        true
    }

    fn carry_out(
        &mut self,
        verdict: Verdict,
        (from, origin): (PortId, Origin),
        frame: Q::Frame,
        now: Now,
    ) {
        match verdict {
            Verdict::Transmit { port } => self.transmit(port, frame),
            Verdict::Kernel => self.give_to_kernel(from, frame, now),
            Verdict::Handover { worker } => {
                self.hand_over(worker, Errand::Forward(from), frame, DropReason::HandoverFull);
            }
            Verdict::Wait { next_hop } => match unresolved(&self.tables, next_hop, &frame) {
                Some(neighbour) => self.park(frame, neighbour, now),
                None => self.drop_frame(frame, DropReason::Unresolved),
            },
            Verdict::Await { datagram } => self.keep(frame, datagram, (from, origin), now),
            // Counted by the engine.
            Verdict::Drop(_) => drop(frame),
        }
    }

    fn transmit(&mut self, port: PortId, frame: Q::Frame) {
        let Some(end) = self.ports.get_mut(usize::from(port.0)) else {
            return self.drop_frame(frame, DropReason::PortDown);
        };
        if end.queues.wire.is_none() {
            let deputy = end.queues.wire_deputy;
            return self.hand_over(deputy, Errand::Transmit(port), frame, DropReason::TxFull);
        }
        if end.to_wire.is_full() {
            self.flush_wire(port);
        }
        self.ports[usize::from(port.0)].to_wire.push(frame);
    }

    fn hand_over(&mut self, to: WorkerId, errand: Errand, frame: Q::Frame, full: DropReason) {
        match self.rings.send(to, Parcel { errand, frame }) {
            Ok(()) => self.shared.stats.handed_over.packets.add(1),
            Err(frame) => self.drop_frame(frame, full),
        }
    }

    fn drop_frame(&mut self, frame: Q::Frame, reason: DropReason) {
        self.shared.stats.count_drop(reason);
        drop(frame);
    }

    fn flush(&mut self) {
        for index in 0..self.ports.len() {
            self.flush_wire(PortId(index as u16));
            self.flush_kernel(PortId(index as u16));
        }
    }

    fn flush_wire(&mut self, port: PortId) {
        let end = &mut self.ports[usize::from(port.0)];
        if let (Some(wire), false) = (&mut end.queues.wire, end.to_wire.is_empty()) {
            let waiting = bytes(&end.to_wire);
            send_all(wire, &mut end.to_wire, waiting, &self.shared.stats);
        }
    }

    /// The synthetic packet: through parse, tables and verdict like any other.
    fn answer_probe(&mut self, now: Now) {
        let asked = self.shared.probe_asked.load(Ordering::Acquire);
        if asked != self.shared.probe_answered.load(Ordering::Relaxed)
            && probe::comes_back(&mut self.engine, &self.tables, now, &self.shared.stats)
        {
            self.shared.probe_answered.store(asked, Ordering::Release);
        }
    }

    fn serve_command(&mut self, now: Now) {
        if self.scan.is_none()
            && let Ok(Command::Flows { filter, limit, reply }) = self.commands.try_recv()
        {
            self.scan = Some(Scan { cursor: 0, filter, limit, found: FlowPage::default(), reply });
        }
        let Some(mut scan) = self.scan.take() else { return };
        self.page.clear();
        let next =
            self.engine.scan_flows(&self.tables, now, scan.cursor, SCAN_PER_TURN, &mut self.page);
        for flow in self.page.drain(..).filter(|flow| (scan.filter)(flow)) {
            scan.found.matched += 1;
            if scan.found.flows.len() < scan.limit {
                scan.found.flows.push(flow);
            }
        }
        match next {
            Some(cursor) => {
                scan.cursor = cursor;
                self.scan = Some(scan);
            }
            // Whoever asked may have gone away; that is theirs to know.
            None => drop(scan.reply.send(scan.found)),
        }
    }
}

/// Send so many bytes to a wire; what it does not take is dropped and counted.
fn send_all<Q: Queue>(wire: &mut Q, burst: &mut Burst<Q::Frame>, length: u64, stats: &WorkerStats) {
    let (frames, bytes) = send(wire, burst, length);
    stats.transmitted.add(frames, bytes);
    if !burst.is_empty() {
        stats.count_drops(DropReason::TxFull, burst.len() as u64);
        burst.clear();
    }
}

/// Send until the port takes no more. `length`: of all frames together, bytes. Returns frames and
/// bytes sent.
fn send<Q: Queue>(queue: &mut Q, burst: &mut Burst<Q::Frame>, length: u64) -> (u64, u64) {
    let frames = burst.len() as u64;
    while !burst.is_empty() && queue.tx_burst(burst) > 0 {}
    (frames - burst.len() as u64, length - bytes(burst))
}

fn bytes<F: Frame>(frames: &[F]) -> u64 {
    frames.iter().map(|frame| frame.total_len() as u64).sum()
}
