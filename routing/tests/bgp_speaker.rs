//! The speaker on real sockets, over loopback addresses: what the sans-IO tests cannot see. Both
//! ends are ours, or the other end is a bare socket that misbehaves. Needs no privileges.

use ipnet::IpNet;
use routing::bgp::config::{Import, NeighborConfig, PrefixMatch, RemoteAs};
use routing::bgp::fsm::State;
use routing::bgp::wire::{Capabilities, Families, Message, Open};
use routing::speaker::{NeighborStatus, RangeConfig, Speaker, SpeakerConfig, SpeakerHandle};
use routing::{Announcement, Wanted};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// Each speaker has a loopback address of its own, so that neighbours can be told apart.
fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 9, n))
}

/// A port no other run of these tests uses, below those the kernel hands out.
fn port() -> u16 {
    10_000 + (std::process::id() % 20_000) as u16
}

fn neighbor(us: u8, them: u8, port: u16) -> NeighborConfig {
    let everything =
        PrefixMatch { max_len: 32, ..PrefixMatch::exact("0.0.0.0/0".parse().unwrap()) };
    NeighborConfig {
        port,
        source: Some(address(us)),
        connect_retry: Duration::from_secs(1),
        import: Import::Prefixes(vec![everything]),
        max_prefixes: 100_000,
        // A loopback next hop would be refused.
        next_hop_v4: Some(Ipv4Addr::new(10, 0, 0, us)),
        ..NeighborConfig::new(address(them), RemoteAs::Exact(65000 + u32::from(them)))
    }
}

fn config(us: u8, port: u16, them: &[u8]) -> SpeakerConfig {
    SpeakerConfig {
        router_id: Ipv4Addr::new(10, 0, 0, us),
        asn: 65000 + u32::from(us),
        listen: vec![SocketAddr::new(address(us), port)],
        neighbors: them.iter().map(|&n| neighbor(us, n, port)).collect(),
        ranges: Vec::new(),
    }
}

fn wanted(prefixes: &[&str]) -> Arc<Wanted> {
    let all = prefixes.iter().map(|p| (p.parse().unwrap(), Announcement::default()));
    Arc::new(all.collect())
}

struct Ours {
    handle: SpeakerHandle,
    wanted: watch::Sender<Arc<Wanted>>,
}

fn spawn(config: SpeakerConfig) -> Ours {
    let (wanted, receiver) = watch::channel(Arc::default());
    Ours { handle: Speaker::spawn(config, receiver).unwrap(), wanted }
}

impl Ours {
    fn neighbor(&self, n: u8) -> Option<NeighborStatus> {
        self.handle.status().neighbors.into_iter().find(|s| s.address == address(n))
    }

    async fn until(&self, n: u8, what: &str, done: impl Fn(&NeighborStatus) -> bool) {
        let reached = async {
            while !self.neighbor(n).is_some_and(|s| done(&s)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = timeout(SOON, reached).await;
        assert!(reached.is_ok(), "{what}: {:#?}", self.neighbor(n));
    }

    async fn established(&self, n: u8) {
        self.until(n, "established", |s| s.state == State::Established).await;
    }

    async fn imports(&self, prefixes: &[&str]) {
        let mut imported = self.handle.imported();
        let expected: Vec<IpNet> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        let seen = imported.wait_for(|routes| routes.keys().copied().eq(expected.iter().copied()));
        let seen = timeout(SOON, seen).await;
        assert!(seen.is_ok(), "{expected:?} expected");
    }
}

/// A peer made by hand, greeted up to Established.
async fn stranger(us: u8, them: u8, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address(us), 0)).unwrap();
    let mut stream = socket.connect(SocketAddr::new(address(them), port)).await.unwrap();
    let open = Open {
        asn: 65000 + u32::from(us),
        hold_time: 90,
        router_id: Ipv4Addr::new(10, 0, 0, us),
        capabilities: Capabilities {
            families: Families { ipv4: true, ipv6: false },
            four_octet_as: true,
            ..Capabilities::default()
        },
    };
    let mut greeting = Vec::new();
    open.encode(&mut greeting);
    Message::encode_keepalive(&mut greeting);
    stream.write_all(&greeting).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_speakers_tell_each_other_what_they_want() {
    let port = port();
    let (one, two) = (spawn(config(1, port, &[2])), spawn(config(2, port, &[1])));
    one.established(2).await;
    two.established(1).await;
    one.wanted.send_replace(wanted(&["192.0.2.1/32", "192.0.2.2/32"]));
    two.imports(&["192.0.2.1/32", "192.0.2.2/32"]).await;
    one.wanted.send_replace(wanted(&["192.0.2.2/32"]));
    two.imports(&["192.0.2.2/32"]).await;
    let told = one.handle.announced(address(2), None).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].next_hop, IpAddr::from([10, 0, 0, 1]));
    assert!(one.handle.announced(address(9), None).await.is_none());
    let text = serde_json::to_string(&one.handle.status()).unwrap();
    let back: routing::speaker::SpeakerStatus = serde_json::from_str(&text).unwrap();
    assert_eq!(back.neighbors[0].prefixes_announced, 1, "a status travels as JSON");

    timeout(SOON, one.handle.shutdown("time to go")).await.unwrap();
    two.imports(&[]).await;
    let error = two.neighbor(1).unwrap().last_down.unwrap();
    assert!(error.text.contains("time to go"), "{error:?}");
    assert!(one.handle.status().neighbors.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_neighbours_that_changed_are_touched() {
    let port = port();
    let ours = spawn(config(11, port, &[12, 13, 14]));
    let others = [12, 13, 14].map(|n| spawn(config(n, port, &[11])));
    for (n, other) in [12, 13, 14].into_iter().zip(&others) {
        ours.established(n).await;
        other.established(11).await;
    }
    // A collision at the start may have cost a session already (RFC 4271 §6.8).
    let before = others.each_ref().map(|o| o.neighbor(11).unwrap().established_count);
    let mut new = config(11, port, &[12, 13]);
    new.neighbors[1].description = "changed".to_owned();
    ours.handle.reconfigure(new.clone()).unwrap();
    others[2]
        .until(11, "deconfigured", |s| s.last_down.as_ref().and_then(|e| e.code) == Some((6, 3)))
        .await;
    others[1].until(11, "changed", |s| s.established_count > before[1]).await;
    assert_eq!(others[0].neighbor(11).unwrap().established_count, before[0], "untouched");
    assert!(ours.neighbor(14).is_none());

    new.neighbors[0].shutdown = Some("out of order".to_owned());
    ours.handle.reconfigure(new.clone()).unwrap();
    others[0]
        .until(11, "told why", |s| {
            s.last_down.as_ref().is_some_and(|e| e.text.contains("out of order"))
        })
        .await;
    ours.until(12, "down", |s| s.admin_down && s.state == State::Idle).await;
    new.neighbors[0].shutdown = None;
    ours.handle.reconfigure(new).unwrap();
    ours.established(12).await;

    let twice = SpeakerConfig {
        neighbors: vec![neighbor(11, 12, port), neighbor(11, 12, port)],
        ..config(11, port, &[])
    };
    assert!(ours.handle.reconfigure(twice).is_err());
    assert_eq!(ours.neighbor(12).unwrap().state, State::Established, "and nothing happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_misbehaves_hurts_nobody_else() {
    let port = port();
    let mut ours = config(21, port, &[22, 23, 24]);
    ours.neighbors[1].passive = true;
    ours.neighbors[2].passive = true;
    let ours = spawn(ours);
    let good = spawn(config(22, port, &[21]));
    ours.established(22).await;
    good.established(21).await;
    let before = good.neighbor(21).unwrap().established_count;
    // One never reads, one sends nothing but noise for ever.
    let deaf = stranger(23, 21, port).await;
    ours.established(23).await;
    let noise = tokio::spawn(async move {
        loop {
            let mut stream = stranger(24, 21, port).await;
            let noise = vec![0xaa; 65536];
            while stream.write_all(&noise).await.is_ok() {}
        }
    });
    let everything: Wanted = (0..20_000u32)
        .map(|n| {
            let mut announcement = Announcement::default();
            announcement.bgp.med = Some(n);
            (IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n))), announcement)
        })
        .collect();
    for _ in 0..5 {
        ours.wanted.send_replace(Arc::new(everything.clone()));
        let full = |s: &NeighborStatus| s.in_sync && s.prefixes_announced == 20_000;
        ours.until(22, "all told", full).await;
        ours.wanted.send_replace(Arc::default());
        ours.until(22, "all withdrawn", |s| s.in_sync && s.prefixes_announced == 0).await;
    }
    let behind = ours.neighbor(23).unwrap();
    assert_eq!(behind.state, State::Established, "its hold time has not passed");
    ours.until(24, "noise was noticed", |s| {
        s.last_error.as_ref().and_then(|e| e.code) == Some((1, 1))
    })
    .await;
    assert_eq!(good.neighbor(21).unwrap().established_count, before);
    noise.abort();
    drop(deaf);
    ours.until(23, "closed", |s| s.state != State::Established).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_turned_away_and_counted() {
    let port = port();
    let ours = spawn(config(31, port, &[32]));
    let mut stream = stranger(39, 31, port).await;
    let mut answer = Vec::new();
    // A reset or a plain end, but not an octet of an answer.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty());
    assert_eq!(ours.handle.status().unknown_peers, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_may_dial_in_from_a_range() {
    let port = port();
    let mut template = NeighborConfig::new(IpAddr::from([0, 0, 0, 0]), RemoteAs::External);
    template.next_hop_v4 = Some(Ipv4Addr::new(10, 0, 0, 49));
    let prefix: IpNet = "127.0.9.40/29".parse().unwrap();
    let mut ranged = config(49, port, &[]);
    ranged.ranges = vec![RangeConfig { prefix: prefix.trunc(), max_peers: 2, template }];
    let ours = spawn(ranged.clone());
    ours.wanted.send_replace(wanted(&["192.0.2.1/32"]));
    let [one, two] = [41, 42].map(|n| spawn(config(n, port, &[49])));
    for other in [&one, &two] {
        other.established(49).await;
        other.imports(&["192.0.2.1/32"]).await;
    }
    assert_eq!(ours.handle.status().neighbors.len(), 2);
    let present: Vec<IpAddr> =
        ours.handle.dynamic_peers().borrow().iter().map(|peer| peer.address).collect();
    assert_eq!(present, [address(41), address(42)]);
    let mut third = stranger(43, 49, port).await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, third.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty(), "the range is full");

    ours.handle.reconfigure(ranged.clone()).unwrap();
    assert_eq!(ours.neighbor(41).unwrap().established_count, 1, "nothing changed, none touched");
    ranged.ranges.clear();
    ours.handle.reconfigure(ranged).unwrap();
    one.until(49, "uninvited", |s| s.last_down.as_ref().and_then(|e| e.code) == Some((6, 3))).await;
    let mut present = ours.handle.dynamic_peers();
    timeout(SOON, present.wait_for(|peers| peers.is_empty())).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_speaker_ends_with_its_last_handle() {
    let port = port();
    let (one, two) = (spawn(config(51, port, &[52])), spawn(config(52, port, &[51])));
    two.established(51).await;
    let clone = one.handle.clone();
    drop(one);
    assert_eq!(clone.status().neighbors.len(), 1, "a clone keeps it");
    drop(clone);
    two.until(51, "told", |s| s.last_down.as_ref().and_then(|e| e.code) == Some((6, 2))).await;
    // And its port is free again.
    let rebound = async {
        while std::net::TcpListener::bind((address(51), port)).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, rebound).await.expect("it stops listening");
}

#[test]
fn it_says_what_it_needs() {
    let (_sender, receiver) = watch::channel(Arc::default());
    let error = Speaker::spawn(config(61, 0, &[]), receiver).unwrap_err();
    assert_eq!(error.to_string(), "the BGP speaker needs a tokio runtime");
}
