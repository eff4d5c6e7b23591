//! Ports on DPDK, against its virtual devices. One environment for the whole file: DPDK starts
//! once per process. No hugepages, no NIC.
#![cfg(feature = "dpdk")]

mod kernel;
mod pools;

use dunlin::config::model::Device;
use dunlin::packet::Frame;
use dunlin::port::dpdk::{
    AllocError, DpdkError, DpdkPort, DpdkQueue, Eal, EalConfig, Mbuf, Mempool, PoolConfig,
    PortConfig, TscClock, pin_current_thread,
};
use dunlin::port::{Burst, Queue};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

fn eal() -> &'static Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| {
        let config = EalConfig {
            file_prefix: format!("dunlin-test-{}", std::process::id()),
            // Pools are kept until the end of the process.
            memory_mib: 320,
            ..EalConfig::default()
        };
        Eal::init(&config).expect("DPDK starts without hugepages")
    })
}

fn pool() -> Mempool {
    Mempool::new(eal(), PoolConfig { mbufs: 4095, ..PoolConfig::default() }).expect("pool")
}

fn vdev(text: &str) -> PortConfig {
    PortConfig::new(Device::Vdev(text.into()))
}

fn open(text: &str, pool: &Mempool) -> DpdkPort {
    DpdkPort::open(eal(), &vdev(text), std::slice::from_ref(pool)).expect("port opens")
}

/// Poll until the condition holds; fails after ten seconds.
fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        thread::yield_now();
    }
}

#[test]
fn starts_once_per_process() {
    let _eal = eal();
    let again = Eal::init(&EalConfig::default());
    assert_eq!(again.err(), Some(DpdkError::AlreadyInitialised));
    assert!(Eal::version().starts_with("DPDK "));
}

#[test]
fn a_frame_holds_what_was_put_into_it() {
    let pool = pool();
    let bytes: Vec<u8> = (0..=255).collect();
    let mut frame = pool.alloc_from(&bytes).expect("fits");
    assert_eq!(frame.data(), bytes);
    assert_eq!(frame.total_len(), 256);
    frame.data_mut()[0] = 9;
    assert_eq!(frame.append(2).map(|tail| tail.len()), Some(2));
    assert_eq!((frame.to_vec()[0], frame.total_len()), (9, 258));
    assert_eq!(frame.append(u16::MAX), None);
    assert_eq!(pool.alloc_from(&[0; 4000]).err(), Some(AllocError::TooLong));
}

#[test]
fn buffers_come_back_to_their_pool() {
    let pool = Mempool::new(eal(), PoolConfig { mbufs: 127, ..PoolConfig::default() }).unwrap();
    assert_eq!(pool.available(), 127);
    let mut bursts: Vec<Burst<Mbuf>> = Vec::new();
    let mut burst = Burst::new();
    pool.alloc_burst(&mut burst).expect("64 of 127");
    bursts.push(burst);
    let mut burst = Burst::new();
    burst.push(pool.alloc().expect("one more"));
    assert_eq!(burst[0].total_len(), 0);
    pool.alloc_burst(&mut burst).expect_err("63 are wanted, 62 are left");
    assert_eq!((burst.len(), pool.available()), (1, 62));
    Mbuf::free_burst(&mut bursts[0]);
    drop(burst);
    assert_eq!(pool.available(), 127);
}

#[test]
fn a_registered_thread_has_its_own_cache_and_gives_everything_back() {
    let pool = pool();
    let in_thread = pool.clone();
    thread::spawn(move || {
        pin_current_thread(0).expect("CPU 0 exists");
        let registered = eal().register_worker_thread().expect("a free lcore");
        assert_ne!(registered.lcore_id(), u32::MAX);
        let frames: Vec<Mbuf> = (0..1000).map(|_| in_thread.alloc().expect("enough")).collect();
        assert_eq!(in_thread.available(), 4095 - 1000);
        drop(frames);
    })
    .join()
    .expect("no panic");
    assert_eq!(pool.available(), 4095);
}

#[test]
fn a_pool_that_is_too_large_says_how_much_memory_it_takes() {
    let config = PoolConfig { mbufs: 1_000_000, ..PoolConfig::default() };
    let error = Mempool::new(eal(), config).expect_err("320 MiB do not hold a million buffers");
    let text = error.to_string();
    assert!(text.contains("1000000 packet buffers"), "{text}");
    assert!(text.contains("MiB of DPDK memory"), "{text}");
}

#[test]
fn a_device_that_does_not_exist_is_an_error_that_says_so() {
    let pool = pool();
    let cases = [
        ("net_nosuchdriver0", "cannot open net_nosuchdriver0"),
        ("net_af_packet7,iface=nosuchif", "cannot open net_af_packet7"),
        ("net_pcap7,rx_pcap=/nosuchfile.pcap", "cannot open net_pcap7"),
        ("nul\0", "contains a NUL byte"),
    ];
    for (device, expected) in cases {
        let error = DpdkPort::open(eal(), &vdev(device), std::slice::from_ref(&pool))
            .expect_err(device)
            .to_string();
        assert!(error.contains(expected), "{device:?}: {error}");
    }
    let error = DpdkPort::open(eal(), &vdev("net_null77"), &[]).expect_err("no pool");
    assert_eq!(error, DpdkError::NoPool { device: "net_null77".into() });
}

#[test]
fn a_queue_has_one_holder_and_keeps_the_port_open() {
    let pool = pool();
    let port = open("net_null10,size=60", &pool);
    assert_eq!((port.info().driver.as_str(), port.info().queues), ("net_null", 1));
    let queue = port.queue(0).expect("free");
    assert!(matches!(port.queue(0), Err(DpdkError::QueueTaken { .. })));
    assert!(matches!(port.queue(1), Err(DpdkError::NoSuchQueue { granted: 1, .. })));
    drop(queue);
    let mut queue = port.queue(0).expect("given back");
    let second = DpdkPort::open(eal(), &vdev("net_null10"), std::slice::from_ref(&pool));
    assert!(matches!(second, Err(DpdkError::InUse { .. })));
    drop(port);
    let mut burst = Burst::new();
    assert_eq!(queue.rx_burst(&mut burst), 64, "the device always has frames");
    assert!(burst.iter().all(|frame| frame.data().len() == 60));
    assert_eq!(queue.tx_burst(&mut burst), 64);
    assert!(burst.is_empty());
    drop(queue);
    open("net_null10", &pool);
    assert_eq!(pool.available(), 4095, "nothing is left in the closed device");
}

#[test]
fn unnumbered_devices_do_not_collide() {
    let pool = pool();
    let (first, second) = (open("net_null", &pool), open("net_null", &pool));
    assert_ne!(first.info().device, second.info().device);
}

#[test]
fn several_queues_are_spread_by_hash_where_the_device_can() {
    let pool = pool();
    let config = PortConfig { queues: 4, ..vdev("net_null11") };
    let port = DpdkPort::open(eal(), &config, std::slice::from_ref(&pool)).expect("opens");
    let info = port.info();
    assert_eq!(info.queues, 4);
    assert!(info.caps.rss);
    let rss = info.rss.as_ref().expect("net_null takes RSS");
    assert_eq!(rss.reta.len(), 128);
    for queue in 0..4u16 {
        assert_eq!(rss.reta.iter().filter(|q| **q == queue).count(), 32);
    }
    assert_eq!(rss.key[..4], [0x6d, 0x5a, 0x56, 0xda]);
    let queues: Vec<_> = (0..4).map(|n| port.queue(n).expect("free")).collect();
    assert_eq!(queues.iter().map(DpdkQueue::index).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn what_a_ring_device_sends_it_receives() {
    let pool = pool();
    let port = open("net_ring0", &pool);
    let mut queue = port.queue(0).expect("free");
    let mut burst = Burst::new();
    for n in 0..10u8 {
        burst.push(pool.alloc_from(&[n; 60]).expect("enough"));
    }
    assert_eq!(queue.tx_burst(&mut burst), 10);
    burst.push(pool.alloc_from(&[99; 60]).expect("enough"));
    assert_eq!(queue.rx_burst(&mut burst), 10, "appended behind what is there");
    let order: Vec<u8> = burst.iter().map(|frame| frame.data()[0]).collect();
    assert_eq!(order, [99, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let stats = port.stats().expect("counters");
    assert_eq!((stats.tx_packets, stats.rx_packets), (10, 10));
    assert!(port.link().expect("link").up);
    drop(burst);
    drop((queue, port));
    assert_eq!(pool.available(), 4095);
}

#[test]
fn what_a_full_device_does_not_take_stays_in_order() {
    let pool = pool();
    let port = open("net_ring1", &pool);
    let mut queue = port.queue(0).expect("free");
    let mut number = 0u32;
    // The ring holds fewer frames than the pool: it must fill up.
    let left = eventually("the ring fills", || {
        let mut burst = Burst::new();
        while !burst.is_full() {
            burst.push(pool.alloc_from(&number.to_be_bytes()).expect("enough"));
            number += 1;
        }
        queue.tx_burst(&mut burst);
        (!burst.is_empty()).then_some(burst)
    });
    let first_left = number - left.len() as u32;
    let left: Vec<Vec<u8>> = left.iter().map(Mbuf::to_vec).collect();
    let expected: Vec<Vec<u8>> = (first_left..number).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(left, expected);
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    assert_eq!(burst[0].data(), 0u32.to_be_bytes());
}

#[test]
fn a_capture_is_replayed_and_written() {
    use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
    let dir = std::env::temp_dir().join(format!("dunlin-pcap-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (input, output) = (dir.join("in.pcap"), dir.join("out.pcap"));
    // The second frame is longer than a buffer: it arrives in segments.
    let frames: Vec<Vec<u8>> = vec![vec![1; 60], (0..5000).map(|n| n as u8).collect()];
    let mut writer = PcapWriter::new(std::fs::File::create(&input).unwrap()).unwrap();
    for frame in &frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);

    let pool = pool();
    let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let port = open(&device, &pool);
    let mut queue = port.queue(0).expect("free");
    let mut burst = Burst::new();
    assert_eq!(queue.rx_burst(&mut burst), 2);
    assert_eq!(burst[1].total_len(), 5000);
    assert!(burst[1].data().len() < 5000);
    assert_eq!(burst.iter().map(Mbuf::to_vec).collect::<Vec<_>>(), frames);
    assert_eq!(queue.tx_burst(&mut burst), 2);
    drop((queue, port));

    let mut written = PcapReader::new(std::fs::File::open(&output).unwrap()).unwrap();
    for frame in &frames {
        assert_eq!(written.next_packet().unwrap().unwrap().data, frame.as_slice());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_tsc_clock_keeps_time() {
    let clock = TscClock::new(eal());
    let (start, start_ns) = (Instant::now(), clock.now_ns());
    let elapsed = eventually("100 ms", || {
        let elapsed = start.elapsed();
        (elapsed > Duration::from_millis(100)).then_some(elapsed)
    });
    let ns = clock.now_ns() - start_ns;
    let ratio = ns as f64 / elapsed.as_nanos() as f64;
    assert!((0.9..1.1).contains(&ratio), "{ns} ns against {elapsed:?}");
}

#[test]
fn errors_carry_what_dpdk_logged() {
    let pool = pool();
    let error = DpdkPort::open(
        eal(),
        &vdev("net_pcap8,rx_pcap=/nosuchfile.pcap"),
        std::slice::from_ref(&pool),
    )
    .expect_err("no such file");
    let text = error.to_string();
    assert!(text.contains("/nosuchfile.pcap"), "{text}");
}
