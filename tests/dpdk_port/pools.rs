//! Which pool a port receives into. One pool is of NUMA node 0, which every machine has, another of
//! any node.

use super::{eal, vdev};
use dunlin::forward::tables::WorkerId;
use dunlin::forward::{Engine, EngineConfig, Steering, WorkerStats};
use dunlin::packet::Frame;
use dunlin::port::dpdk::{DpdkPort, Mempool, NodeMemory, PoolConfig, pin_current_thread};
use dunlin::port::{BURST, Burst, Queue};
use std::sync::Arc;
use std::thread;

const MBUFS: u32 = 511;

fn pool_on(socket: Option<u32>) -> Mempool {
    let config = PoolConfig { mbufs: MBUFS, socket, ..PoolConfig::default() };
    Mempool::new(eal(), config).expect("pool")
}

#[test]
fn frames_are_received_into_the_ports_own_pool() {
    let pools = [pool_on(Some(0)), pool_on(None)];
    for (own, device) in ["net_null40,size=60", "net_null41,size=60"].into_iter().enumerate() {
        let attached = DpdkPort::attach(eal(), &vdev(device)).expect("attaches");
        assert_eq!((attached.queues, attached.descriptors_of_pair()), (1, 2048));
        let port = attached.start(&pools[own]).expect("starts");
        assert_eq!(port.info().pool_socket, pools[own].config().socket);
        let mut queue = port.queue(0).expect("free");
        let mut burst = Burst::new();
        assert_eq!(queue.rx_burst(&mut burst), BURST, "the device always has frames");
        assert_eq!(burst[0].data().len(), 60);
        assert_eq!(pools[1 - own].available(), MBUFS, "{device}: the other pool is untouched");
        let taken = MBUFS - pools[own].available();
        assert!(taken >= BURST as u32, "{device}: {taken} buffers from its own pool");
        drop(burst);
    }
    assert!(pools.iter().all(|pool| pool.available() == MBUFS), "all are back");
}

#[test]
fn a_port_takes_the_pool_of_its_numa_node() {
    let pools = [pool_on(None), pool_on(Some(0))];
    thread::spawn(move || {
        // A virtual device is on the node of the thread that makes it.
        pin_current_thread(0).expect("CPU 0 exists");
        let _registered = eal().register_worker_thread().expect("a free lcore");
        let port = DpdkPort::open(eal(), &vdev("net_null44"), &pools).expect("opens");
        assert_eq!((port.info().socket, port.info().pool_socket), (Some(0), Some(0)));
        let port = DpdkPort::open(eal(), &vdev("net_null45"), &pools[..1]).expect("opens");
        assert_eq!((port.info().socket, port.info().pool_socket), (Some(0), None), "no other");
    })
    .join()
    .expect("no panic");
}

#[test]
fn a_device_that_is_only_attached_is_given_back() {
    drop(DpdkPort::attach(eal(), &vdev("net_null43")).expect("attaches"));
    DpdkPort::open(eal(), &vdev("net_null43"), &[pool_on(Some(0))]).expect("free again");
}

#[test]
fn a_workers_flows_lie_on_the_node_of_its_thread() {
    thread::spawn(|| {
        pin_current_thread(0).expect("CPU 0 exists");
        let registered = eal().register_worker_thread().expect("a free lcore");
        let memory = NodeMemory::of_worker(eal(), &registered);
        assert_eq!((memory.node(), memory.lent_from()), (Some(0), None), "nothing lent yet");
        let config = EngineConfig {
            worker: WorkerId(0),
            workers: 1,
            max_flows: 1024,
            seed: 1,
            steering: Steering::default(),
        };
        let engine = Engine::new_in(&memory, config, Arc::new(WorkerStats::new(1, 1)));
        assert!(engine.flows_are_lent());
        assert_eq!(memory.lent_from(), Some(0));
    })
    .join()
    .expect("no panic");
}
