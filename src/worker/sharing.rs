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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::tables::{TablesSpec, WorkerId};
    use crate::forward::{EngineConfig, Steering, WorkerStats};

    #[test]
    fn every_order_is_answered_a_few_per_turn_and_as_far_as_there_is_room() {
        let config = EngineConfig {
            worker: WorkerId(0),
            workers: 1,
            max_flows: 16,
            seed: 1,
            steering: Steering::default(),
        };
        let mut engine = Engine::new(config, Arc::new(WorkerStats::new(1, 1)));
        let tables = Tables::build(&TablesSpec::default(), None).unwrap();
        let (mut worker, mut task) = rings(Arc::new(Notify::new()));
        let key = FlowKey {
            client: "198.51.100.1:4000".parse().unwrap(),
            vip: "192.0.2.1:80".parse().unwrap(),
        };
        let mut tickets = 0..;
        let mut order = |orders: &mut rtrb::Producer<Order>| {
            while !orders.is_full() {
                let ticket = tickets.next().unwrap();
                orders.push(Order::Find { ticket, key }).unwrap();
            }
        };
        order(&mut task.orders);
        worker.turn(&mut engine, &tables, Now(0));
        assert_eq!(task.orders.slots(), ORDERS_PER_TURN);
        // Nobody reads the answers: the worker stops when it could not tell any more.
        for _ in 0..2 * DEPTH / ORDERS_PER_TURN {
            order(&mut task.orders);
            worker.turn(&mut engine, &tables, Now(0));
        }
        assert!(task.orders.is_full(), "looked up what could not be told");
        let answers = std::iter::from_fn(|| task.reports.pop().ok());
        let expected = (0..DEPTH as u64).map(|ticket| Report::Found { ticket, mapping: None });
        assert!(answers.eq(expected));
    }
}
