//! Ports that meet the kernel: TAP and af_packet, in network namespaces of their own.

use super::{eal, eventually, open, vdev};
use dunlin::packet::Frame;
use dunlin::port::dpdk::{DpdkPort, Eal, Interrupts, Mbuf, Mempool, PoolConfig, PortConfig};
use dunlin::port::{Burst, Queue};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// In a network namespace of a thread of its own; TAPs, sockets and children are made in it.
fn in_own_namespace(test: impl FnOnce() + Send) {
    let run = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        test();
    };
    thread::scope(|scope| scope.spawn(run).join().expect("no panic"));
}

/// The control interface as the lab uses it: a TAP of the kernel's. Frames go both ways, and what
/// the kernel sends has complete checksums and needs no offload of ours.
#[test]
#[ignore = "needs root: cargo xtask test dpdk"]
fn a_tap_connects_to_the_kernel_both_ways() {
    let eal = eal();
    in_own_namespace(|| {
        tap_both_ways(eal);
    });
}

fn tap_both_ways(eal: &Eal) {
    let pool = Mempool::new(eal, PoolConfig { mbufs: 4095, ..PoolConfig::default() }).unwrap();
    let device = "net_tap0,iface=wan0,mac=02:00:00:00:00:01";
    let port = DpdkPort::open(eal, &vdev(device), std::slice::from_ref(&pool)).expect("opens");
    assert_eq!(port.info().driver, "net_tap");
    ip("link set wan0 up");
    ip("addr add 10.9.0.1/24 dev wan0");
    ip("addr add fd09::1/64 dev wan0 nodad");
    ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev wan0");
    ip("neigh replace fd09::2 lladdr 02:00:00:00:00:02 dev wan0");
    let mut queue = port.queue(0).expect("free");

    for (local, remote) in [("10.9.0.1:0", "10.9.0.2:7"), ("[fd09::1]:0", "[fd09::2]:7")] {
        let socket = UdpSocket::bind(local).expect("address is up");
        socket.send_to(b"to the wire", remote).expect("sent");
        let mut frame = receive(&mut queue, 17);
        assert!(frame.to_vec().ends_with(b"to the wire"));
        assert_eq!(l4_sum(frame.data()), 0xffff, "the kernel's UDP checksum is complete");

        turn_around(frame.data_mut());
        let mut burst = Burst::new();
        burst.push(frame);
        assert_eq!(queue.tx_burst(&mut burst), 1);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = [0; 64];
        let (len, from) = socket.recv_from(&mut bytes).expect("the reply comes up");
        assert_eq!((&bytes[..len], from.to_string()), (&b"to the wire"[..], remote.to_owned()));
    }

    // A SYN is enough to see TCP's checksum. Nobody answers: the attempt is left to its timeout.
    let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let connecting = thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let address = "10.9.0.2:80".parse().unwrap();
        TcpStream::connect_timeout(&address, Duration::from_millis(500))
    });
    let frame = receive(&mut queue, 6);
    assert_eq!(l4_sum(frame.data()), 0xffff, "the kernel's TCP checksum is complete");
    connecting.join().expect("no panic").expect_err("nobody listens");
    drop(frame);

    assert!(port.link().expect("link").up);
    drop((queue, port));
    let links = Command::new("ip").args(["-br", "link"]).output().expect("iproute2");
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert!(!links.contains("wan0"), "the interface goes with its port: {links}");
    assert_eq!(pool.available(), 4095);
}

/// The descriptor of a TAP's queue tells of every frame, and of nothing else; drivers without
/// interrupts are refused with the reason, and work.
#[test]
#[ignore = "needs root: cargo xtask test dpdk"]
fn a_tap_tells_when_a_frame_arrives() {
    let eal = eal();
    in_own_namespace(|| {
        wakes_by_tap(eal);
    });
}

fn wakes_by_tap(eal: &Eal) {
    let pool = Mempool::new(eal, PoolConfig { mbufs: 4095, ..PoolConfig::default() }).unwrap();
    let pools = std::slice::from_ref(&pool);
    let with = |device: &str, interrupts| PortConfig { interrupts, ..vdev(device) };
    let config = with("net_tap30,iface=wan30", Interrupts::Tried);
    let port = DpdkPort::open(eal, &config, pools).expect("opens");
    assert_eq!(port.info().interrupts, Ok(()));
    ip("link set wan30 up");
    ip("addr add 10.9.30.1/24 dev wan30");
    ip("neigh replace 10.9.30.2 lladdr 02:00:00:00:00:02 dev wan30");
    let mut queue = port.queue(0).expect("free");
    let socket = UdpSocket::bind("10.9.30.1:0").expect("address is up");
    for _ in 0..3 {
        queue.arm(true);
        // The kernel may have said something of its own.
        eventually("nothing is left to tell", || {
            queue.rx_burst(&mut Burst::new());
            (!readable(&queue, PollTimeout::ZERO)).then_some(())
        });
        socket.send_to(b"to the wire", "10.9.30.2:7").expect("sent");
        assert!(readable(&queue, PollTimeout::from(10_000_u16)), "told");
        queue.arm(false);
        drop(receive(&mut queue, 17));
    }
    let unasked = DpdkPort::open(eal, &vdev("net_tap31,iface=wan31"), pools).expect("opens");
    assert!(unasked.queue(0).expect("free").arrivals().is_none());
    assert!(unasked.info().interrupts.is_err());
    for (interrupts, why) in [(Interrupts::Tried, "not tried with net_ring"), (Interrupts::Any, "")]
    {
        let port = DpdkPort::open(eal, &with("net_ring30", interrupts), pools).expect("opens");
        let refused = port.info().interrupts.clone().expect_err("it has none");
        assert!(!refused.is_empty() && refused.contains(why), "{refused}");
        let mut queue = port.queue(0).expect("free");
        assert!(queue.arrivals().is_none());
        let mut burst = Burst::new();
        burst.push(pool.alloc_from(&[1; 60]).expect("enough"));
        assert_eq!((queue.tx_burst(&mut burst), queue.rx_burst(&mut burst)), (1, 1));
    }
}

fn readable(queue: &impl Queue, at_most: PollTimeout) -> bool {
    let line = queue.arrivals().expect("it has an interrupt");
    let mut waiting = [PollFd::new(line, PollFlags::POLLIN)];
    // SIGIO, by which the driver learns of frames, may end it early.
    loop {
        match poll(&mut waiting, at_most) {
            Err(nix::errno::Errno::EINTR) => {}
            ready => return ready.expect("poll") > 0,
        }
    }
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {args}");
}

/// The next frame of this protocol; the kernel also sends neighbour discovery and the like.
fn receive(queue: &mut impl Queue<Frame = Mbuf>, protocol: u8) -> Mbuf {
    eventually("a frame from the kernel", || {
        let mut burst = Burst::new();
        queue.rx_burst(&mut burst);
        burst.into_iter().find(|frame| match frame.data() {
            data if data.len() < 34 => false,
            data if data[12..14] == [0x08, 0x00] => data[14 + 9] == protocol,
            data => data[12..14] == [0x86, 0xdd] && data[14 + 6] == protocol,
        })
    })
}

/// Addresses within the IP header: offset and length of one.
fn addresses(frame: &[u8]) -> (usize, usize) {
    if frame[14] >> 4 == 4 { (14 + 12, 4) } else { (14 + 8, 16) }
}

fn l4_offset(frame: &[u8]) -> usize {
    if frame[14] >> 4 == 4 { 34 } else { 54 }
}

/// Swap MACs, addresses and ports: no checksum changes by that.
fn turn_around(frame: &mut [u8]) {
    let (at, len) = addresses(frame);
    let l4 = l4_offset(frame);
    for (start, len) in [(0, 6), (at, len), (l4, 2)] {
        let (first, second) = frame[start..start + 2 * len].split_at_mut(len);
        first.swap_with_slice(second);
    }
}

/// Ones-complement sum over the pseudo-header and the layer-4 packet: 0xffff if it is right.
fn l4_sum(frame: &[u8]) -> u16 {
    let (at, len) = addresses(frame);
    let v4 = len == 4;
    let payload = &frame[l4_offset(frame)..];
    let protocol = if v4 { frame[14 + 9] } else { frame[14 + 6] };
    let mut bytes = frame[at..at + 2 * len].to_vec();
    bytes.extend([0, protocol]);
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend(payload);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The drivers the node is used with come as plugins; each must be found and take our settings.
#[test]
#[ignore = "needs root: cargo xtask test dpdk"]
fn the_drivers_of_the_lab_open() {
    let eal = eal();
    in_own_namespace(|| {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let pool = Mempool::new(eal, PoolConfig { mbufs: 8191, ..PoolConfig::default() }).unwrap();
        let dir = std::env::temp_dir().join(format!("dunlin-memif-{}", std::process::id()));
        let cases = [
            ("net_af_packet20,iface=left,qpairs=2".to_owned(), "net_af_packet", 2),
            (format!("net_memif20,role=server,socket={}", dir.display()), "net_memif", 2),
            ("net_ring20".to_owned(), "net_ring", 2),
            ("net_null20".to_owned(), "net_null", 2),
            ("net_tap20,iface=lan0".to_owned(), "net_tap", 2),
        ];
        for (device, driver, queues) in cases {
            let config = PortConfig { queues: 2, promiscuous: true, ..vdev(&device) };
            let port = DpdkPort::open(eal, &config, std::slice::from_ref(&pool))
                .unwrap_or_else(|error| panic!("{device}: {error}"));
            let info = port.info();
            assert_eq!((info.driver.as_str(), info.queues), (driver, queues), "{device}");
            port.stats().expect("counters");
            port.extended_stats().expect("driver counters");
            port.link().expect("link");
        }
        // Has no kernel side here: that it complains of that shows that its plugin is there.
        let config = vdev("virtio_user20,path=/nosuchdevice,queues=1,queue_size=256");
        let error = DpdkPort::open(eal, &config, std::slice::from_ref(&pool)).expect_err("no path");
        assert!(error.to_string().contains("virtio"), "{error}");
        assert_eq!(pool.available(), 8191);
    });
}

/// A veth pair with a port on one end: the way the lab is wired.
#[test]
#[ignore = "needs root: cargo xtask test dpdk"]
fn af_packet_carries_frames_of_a_veth() {
    let eal = eal();
    in_own_namespace(|| {
        ip("link add left type veth peer name right");
        for args in ["link set left up", "link set right up", "addr add 10.9.1.1/24 dev right"] {
            ip(args);
        }
        ip("neigh replace 10.9.1.2 lladdr 02:00:00:00:00:02 dev right");
        let pool = Mempool::new(eal, PoolConfig { mbufs: 4095, ..PoolConfig::default() }).unwrap();
        let port = open("net_af_packet21,iface=left", &pool);
        let mut queue = port.queue(0).expect("free");
        let socket = UdpSocket::bind("10.9.1.1:0").expect("address is up");
        socket.send_to(b"over the wire", "10.9.1.2:7").expect("sent");
        let mut frame = receive(&mut queue, 17);
        turn_around(frame.data_mut());
        // veth leaves the checksum to hardware that does not exist: finish it (RFC 768: or none).
        frame.data_mut()[40..42].fill(0);
        let mut burst = Burst::new();
        burst.push(frame);
        assert_eq!(queue.tx_burst(&mut burst), 1);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = [0; 64];
        let (len, _) = socket.recv_from(&mut bytes).expect("the reply arrives");
        assert_eq!(&bytes[..len], b"over the wire");
    });
}
