//! The stages of the packet path one by one, for `cargo bench`: so that a regression can be found.
//! Nothing else may use this.

use super::burst::{Frames, Tally};
use super::create::Arrival;
use super::engine::{Context, Engine, Origin};
use super::tables::{PortId, ServiceId};
use super::time::Now;
use super::tuple::Tuple;
use super::verdict::Verdict;
use super::{DropReason, Tables};
use crate::packet::{Frame, Transport};
use crate::port::BURST;

/// An engine, taken apart.
pub struct Stages<'a> {
    engine: &'a mut Engine,
    context: Context<'a>,
    verdicts: [Verdict; BURST],
}

impl std::fmt::Debug for Stages<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").finish_non_exhaustive()
    }
}

impl<'a> Stages<'a> {
    /// For frames that arrived on `port`.
    pub fn new(engine: &'a mut Engine, tables: &'a Tables, now: Now, port: PortId) -> Self {
        let context = Context { tables, now: now.tick(), port, origin: Origin::Port };
        Self { engine, context, verdicts: [Verdict::Kernel; BURST] }
    }

    /// Stage 1 over at most [`BURST`] frames: parsed and hashed.
    pub fn parse<F: Frame>(&mut self, frames: &[F]) {
        let mut parsed = std::mem::take(&mut self.engine.parsed.0);
        let way = self.engine.way(&self.context);
        self.engine.parse(&way, frames, &mut parsed, &mut self.verdicts);
        self.engine.parsed.0 = parsed;
    }

    /// Stage 2 over so many frames that were parsed last.
    pub fn look_up(&mut self, count: usize) {
        let mut parsed = std::mem::take(&mut self.engine.parsed.0);
        self.engine.look_up(&mut parsed[..count.min(BURST)]);
        self.engine.parsed.0 = parsed;
    }

    /// Stage 3 over frames that were parsed and looked up last. Returns how many leave.
    pub fn translate<F: Frame>(&mut self, frames: &mut [F]) -> usize {
        let parsed = std::mem::take(&mut self.engine.parsed.0);
        let way = self.engine.way(&self.context);
        let count = frames.len().min(BURST);
        let verdicts = &mut self.verdicts[..count];
        let all = Frames { frames, parsed: &parsed[..count], verdicts };
        self.engine.translate(&way, all, &mut Tally::new());
        self.engine.parsed.0 = parsed;
        let leaves = |verdict: &&Verdict| matches!(verdict, Verdict::Transmit { .. });
        self.verdicts[..count].iter().filter(leaves).count()
    }

    /// Choose a backend for a first packet, UDP over IPv4, and a local port toward it, which is given
    /// back at once. `with_port`: both; else the backend only.
    pub fn choose<F: Frame>(
        &mut self,
        frame: &F,
        service: ServiceId,
        with_port: bool,
    ) -> Result<(), DropReason> {
        let header = frame.data().first_chunk::<42>().ok_or(DropReason::Truncated)?;
        let tuple = Tuple::<u32>::read(header);
        let arrival = Arrival { transport: Transport::Udp4, tuple, hash: 0, flags: 0, ttl: 64 };
        let tables = self.context.tables;
        let backend = self.engine.schedule(tables, &arrival, service)?;
        if with_port {
            self.engine.take_local::<u32>(tables, Transport::Udp4, backend)?;
            self.engine.pool.give(backend);
        }
        Ok(())
    }
}
