//! Between a worker and the cluster task: questions out, answers in, on bounded rings.
//!
//! The worker never waits: what finds no room is counted and forgotten; whoever needed it asks
//! again.

use crate::forward::{Engine, FlowKey, FlowMapping, Now, Tables};
use std::sync::Arc;
use tokio::sync::Notify;

/// Orders and reports that a ring holds.
const DEPTH: usize = 2048;
/// Orders carried out per turn: bounded, so that packets do not wait.
const ORDERS_PER_TURN: usize = 64;

/// What a worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Look for a flow of our own; answered by [`Report::Found`] with the same ticket.
    Find { ticket: u64, key: FlowKey },
    /// Take over a flow of peer number `peer`.
    Adopt { peer: u16, mapping: FlowMapping },
}

/// What a worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// It has got a segment of a flow that is not here.
    Missing(FlowKey),
    Found {
        ticket: u64,
        mapping: Option<FlowMapping>,
    },
}

/// The worker's ends.
#[derive(Debug)]
pub struct WorkerEnd {
    orders: rtrb::Consumer<Order>,
    reports: rtrb::Producer<Report>,
    news: Arc<Notify>,
}

/// The task's ends, for one worker.
#[derive(Debug)]
pub struct TaskEnd {
    pub orders: rtrb::Producer<Order>,
    pub reports: rtrb::Consumer<Report>,
}

/// Rings between one worker and the task; `news` wakes the task.
pub fn rings(news: Arc<Notify>) -> (WorkerEnd, TaskEnd) {
    let (order_sender, orders) = rtrb::RingBuffer::new(DEPTH);
    let (reports, report_receiver) = rtrb::RingBuffer::new(DEPTH);
    let task = TaskEnd { orders: order_sender, reports: report_receiver };
    (WorkerEnd { orders, reports, news }, task)
}

impl WorkerEnd {
    /// Carry out what was ordered, and pass on what the engine asks. Wakes the task at most once.
    pub(super) fn turn(&mut self, engine: &mut Engine, tables: &Tables, now: Now) {
        let mut told = false;
        for _ in 0..ORDERS_PER_TURN {
            // Nothing is looked for that could not be told.
            if self.reports.is_full() {
                break;
            }
            match self.orders.pop() {
                Ok(Order::Find { ticket, key }) => {
                    let mapping = engine.find_flow(tables, now, &key);
                    told |= self.reports.push(Report::Found { ticket, mapping }).is_ok();
                }
                Ok(Order::Adopt { peer, mapping }) => {
                    engine.adopt(tables, now, peer, &mapping);
                }
                Err(_) => break,
            }
        }
        while !self.reports.is_full()
            && let Some(key) = engine.next_question()
        {
            told |= self.reports.push(Report::Missing(key)).is_ok();
        }
        if told {
            self.news.notify_one();
        }
    }
}
