//! A packet buffer may outlive everything else of DPDK: its memory must stay. A process of its own,
//! because DPDK starts once per process.
#![cfg(feature = "dpdk")]

use dunlin::config::model::Device;
use dunlin::packet::Frame;
use dunlin::port::dpdk::{DpdkError, DpdkPort, Eal, EalConfig, Mempool, PoolConfig, PortConfig};
use dunlin::port::{Burst, Queue};

#[test]
fn a_buffer_outlives_its_port_pool_and_environment() {
    let eal = Eal::init(&EalConfig {
        file_prefix: format!("dunlin-outlive-{}", std::process::id()),
        memory_mib: 64,
        ..EalConfig::default()
    })
    .expect("DPDK starts");
    let pool = Mempool::new(&eal, PoolConfig { mbufs: 2047, ..PoolConfig::default() }).unwrap();
    let config = PortConfig::new(Device::Vdev("net_null0,size=60".into()));
    let port = DpdkPort::open(&eal, &config, &[pool]).expect("opens");
    let mut queue = port.queue(0).expect("free");
    let mut burst = Burst::new();
    assert_eq!(queue.rx_burst(&mut burst), 64);
    drop((queue, port, eal));

    for (n, frame) in (0u8..).zip(&mut burst) {
        frame.data_mut().fill(n);
    }
    for (n, frame) in (0u8..).zip(&burst) {
        assert_eq!(frame.data(), [n; 60]);
    }
    drop(burst);
    assert_eq!(Eal::init(&EalConfig::default()).err(), Some(DpdkError::AlreadyInitialised));
}
