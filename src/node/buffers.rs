//! The pools of packet buffers that the node's ports receive into: made here as
//! [`crate::port::buffers`] plans.

use super::places::node_of_core;
use crate::appliance::host::Root;
use crate::config::model::Config;
use crate::port::buffers::{Demand, Made, Surroundings, make, plan};
use crate::port::dpdk::{Attached, CACHED, DpdkError, Eal, Mempool, PoolConfig, PortConfig};
use crate::worker::held_by_worker;
use anyhow::{Context, Result};

/// The pool of a port and of its control interface.
#[derive(Debug, Clone)]
pub struct PortPool {
    pub pool: Mempool,
    pub shown: PoolShown,
}

/// For the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolShown {
    pub mbufs: u32,
    /// `None`: wherever there was memory.
    pub node: Option<u32>,
    /// Why there.
    pub why: String,
}

/// Make the pools. In the order of the ports, each with its own.
pub fn pools(eal: &Eal, config: &Config, wires: &[Attached]) -> Result<Vec<PortPool>> {
    let workers = config.dataplane.workers.len() as u16;
    let first = config.dataplane.workers.first();
    let around = Surroundings {
        workers,
        held_by_worker: CACHED + held_by_worker(workers),
        home: first.and_then(|core| node_of_core(&Root::system(), *core)),
        by_node: config.dataplane.hugepages,
        configured: config.dataplane.mbufs,
    };
    let demands: Vec<Demand> = wires.iter().map(demand).collect();
    let plan = plan(&demands, &around);
    let mut made: Vec<Made<Mempool>> = Vec::new();
    for pool in &plan.pools {
        if pool.mbufs < pool.needed {
            tracing::warn!(
                mbufs = pool.mbufs,
                needed = pool.needed,
                "fewer packet buffers than the queues can hold: packets may be dropped for want of \
                 one (dataplane: mbufs)"
            );
        }
        let create = |mbufs, socket| create(eal, mbufs, socket);
        let pool = make(pool, create).context("no memory for packet buffers")?;
        if let Some(why) = &pool.disappointment {
            tracing::warn!(mbufs = pool.mbufs, why, "packet buffers are not as planned");
        }
        made.push(pool);
    }
    let of_port = plan.of_port.iter().zip(wires);
    Ok(of_port.filter_map(|(&pool, wire)| Some(of(made.get(pool)?, wire, &around))).collect())
}

fn create(eal: &Eal, mbufs: u32, socket: Option<u32>) -> Result<Mempool, DpdkError> {
    Mempool::new(eal, PoolConfig { mbufs, socket, ..PoolConfig::default() })
}

/// A port's queues and those of its control interface, which has one pair.
fn demand(wire: &Attached) -> Demand {
    let (pair, control) = (wire.descriptors_of_pair(), PortConfig::DESCRIPTORS);
    Demand { node: wire.socket, descriptors: u32::from(wire.queues) * pair + control }
}

fn of(made: &Made<Mempool>, wire: &Attached, around: &Surroundings) -> PortPool {
    let why = match (&made.disappointment, wire.socket, made.node) {
        (Some(why), _, _) => why.clone(),
        (None, Some(_), Some(_)) => "where the port is".to_owned(),
        (None, None, Some(_)) => "where worker 0 is; the port is on no NUMA node".to_owned(),
        (None, _, None) if !around.by_node => "memory is not hugepages".to_owned(),
        (None, _, None) => "neither the port nor worker 0 says where it is".to_owned(),
    };
    let shown = PoolShown { mbufs: made.mbufs, node: made.node, why };
    PortPool { pool: made.pool.clone(), shown }
}
