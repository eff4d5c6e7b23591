//! When a session sends and how long it waits: what it advertises, what is in use, jitter (RFC 5880
//! §6.8.2 to §6.8.4, §6.8.7).

use super::{SLOW_TX_US, Session, Timers};
use crate::bfd::packet::State;
use std::time::Duration;

/// The intervals that are advertised and those in use, which differ while a poll sequence that
/// would loosen them is not answered (§6.8.3).
#[derive(Debug, Clone, Copy)]
pub(super) struct Intervals {
    pub desired_tx: u32,
    pub required_rx: u32,
    pub tx_in_use: u32,
    pub rx_in_use: u32,
}

impl Session {
    /// The interval of periodic packets before jitter, in microseconds (§6.8.2).
    pub fn transmit_interval_us(&self) -> u32 {
        if self.is_saying_farewell() {
            return self.farewell_interval_us;
        }
        self.intervals.tx_in_use.max(self.remote.min_rx_us)
    }

    /// Silence of the peer that means Down (§6.8.4); zero while the peer was never heard.
    pub fn detection_time(&self) -> Duration {
        let interval = self.intervals.rx_in_use.max(self.remote.min_tx_us);
        Duration::from_micros(u64::from(self.remote.multiplier) * u64::from(interval))
    }

    /// Not Up: slow, and nothing to negotiate, since every packet carries the values.
    pub(super) fn advertise_slow(&mut self) {
        let desired_tx = self.timers.min_tx_us.max(SLOW_TX_US);
        let required_rx = self.timers.min_rx_us;
        self.intervals =
            Intervals { desired_tx, required_rx, tx_in_use: desired_tx, rx_in_use: required_rx };
        self.polling = false;
        self.timers_pending = false;
    }

    /// Up: advertises the configured values and starts a poll sequence if they are new. Values that
    /// would surprise the peer wait for its Final (§6.8.3).
    pub(super) fn advertise_configured(&mut self) {
        let Timers { min_tx_us, min_rx_us, .. } = self.timers;
        let intervals = &mut self.intervals;
        if (min_tx_us, min_rx_us) != (intervals.desired_tx, intervals.required_rx) {
            self.polling = true;
            self.transmit_due = true;
        }
        intervals.desired_tx = min_tx_us;
        intervals.required_rx = min_rx_us;
        intervals.tx_in_use = intervals.tx_in_use.min(min_tx_us);
        intervals.rx_in_use = intervals.rx_in_use.max(min_rx_us);
    }

    pub(super) fn end_poll(&mut self) {
        self.polling = false;
        self.intervals.tx_in_use = self.intervals.desired_tx;
        self.intervals.rx_in_use = self.intervals.required_rx;
        if std::mem::take(&mut self.timers_pending) {
            self.advertise_configured();
        }
    }

    /// §6.8.7: who may not send periodic packets.
    fn is_silent(&self) -> bool {
        let peer_demands_silence = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && !self.polling;
        self.remote.min_rx_us == 0 || peer_demands_silence
    }

    /// Brings the next periodic packet forward if the interval shrank, and stops or starts the
    /// timer if the peer said so.
    pub(super) fn reschedule(&mut self) {
        if self.is_silent() {
            self.next_transmit = None;
            return;
        }
        let jittered = self.jittered(self.transmit_interval_us());
        let at = self.last_transmit + jittered;
        self.next_transmit = Some(match self.next_transmit {
            // Redrawing at each packet received would bias the jitter: only a shorter interval
            // brings a packet forward.
            Some(planned) => {
                let longest = self.last_transmit
                    + Duration::from_micros(u64::from(self.transmit_interval_us()));
                if planned > longest { at } else { planned }
            }
            None => at,
        });
    }

    /// §6.8.7: 75–100 % of the interval; with a multiplier of 1, 75–90 %.
    fn jittered(&mut self, interval_us: u32) -> Duration {
        let nanos = u64::from(interval_us) * 1000;
        let top = if self.timers.multiplier == 1 { nanos / 10 * 9 } else { nanos };
        Duration::from_nanos(self.rng.range(nanos / 4 * 3, top))
    }
}
