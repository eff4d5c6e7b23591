//! A BGP speaker on its own, driven by lines on standard input: what the interop tests run.
//!
//! ```text
//! speaker ASN ROUTER_ID [listen=ADDR:PORT]... [neighbor=ADDR|INTERFACE,OPTION...]...
//!     [range=PREFIX,OPTION...]...
//! ```
//! Options: `remote-as=N|external|internal`, `port=`, `source=`, `interface=`, `password=`, `hold=`,
//! `retry=` (seconds), `multihop=`, `passive`, `gtsm`, `import`, `extended-next-hop`,
//! `ao=ID:ALGORITHM:KEY`, `restart=SECONDS`, `shutdown=TEXT`. `bfd=MS` before them all follows every
//! neighbour by BFD. Commands: `announce PREFIX [community=A:B] [large=A:B:C] [med=N] [prepend=N]
//! [bandwidth=BYTES]`, `withdraw PREFIX`, `announce-many COUNT`, `withdraw-all`, `status`,
//! `imported`, `memory`, `settled`, `bfd`, `bfd-down ADDR`, `shutdown TEXT`. Every command is answered by one line of JSON.

use ipnet::IpNet;
use routing::bfd::{BfdHandle, SessionConfig};
use routing::bgp::config::{AoAlgorithm, AoKey, Import, NeighborConfig, Password, RemoteAs};
use routing::speaker::{RangeConfig, Speaker, SpeakerConfig, SpeakerHandle};
use routing::{Announcement, Wanted};
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).json().init();
    let mut args = std::env::args().skip(1);
    let mut config = SpeakerConfig {
        asn: args.next().ok_or("AS number missing")?.parse()?,
        router_id: args.next().ok_or("router id missing")?.parse()?,
        listen: Vec::new(),
        neighbors: Vec::new(),
        ranges: Vec::new(),
    };
    let mut bfd_interval = None;
    for arg in args {
        match arg.split_once('=') {
            Some(("bfd", ms)) => bfd_interval = Some(Duration::from_millis(ms.parse()?)),
            Some(("listen", address)) => config.listen.push(address.parse()?),
            Some(("neighbor", text)) => config.neighbors.push(neighbor(text)?),
            Some(("range", text)) => {
                let (prefix, options) = text.split_once(',').unwrap_or((text, ""));
                config.ranges.push(RangeConfig {
                    prefix: prefix.parse()?,
                    max_peers: 10,
                    template: neighbor(&format!("0.0.0.0,{options}"))?,
                });
            }
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    let (wanted, receiver) = watch::channel(Arc::new(Wanted::new()));
    let followed = config.neighbors.clone();
    let speaker = Speaker::spawn(config, receiver)?;
    let bfd = BfdHandle::spawn()?;
    if let Some(interval) = bfd_interval {
        tokio::spawn(follow(speaker.clone(), bfd.clone(), followed, interval));
    }
    let (sender, mut lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::result::Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        if let Some(text) = line.strip_prefix("shutdown") {
            speaker.shutdown(text.trim()).await;
            println!("\"down\"");
            break;
        }
        if line == "bfd" {
            println!("{}", serde_json::to_string(&bfd.status().await?)?);
            continue;
        }
        match command(&line, &wanted, &speaker) {
            Ok(answer) => println!("{answer}"),
            Err(error) => println!("{}", serde_json::json!({ "error": error.to_string() })),
        }
    }
    Ok(())
}

/// Has every neighbour followed by BFD, those whose address is not configured once it is known.
async fn follow(
    speaker: SpeakerHandle,
    bfd: BfdHandle,
    neighbors: Vec<NeighborConfig>,
    interval: Duration,
) {
    let session = |peer, interface: Option<String>| SessionConfig {
        peer,
        local: None,
        interface,
        multihop: false,
        min_tx: interval,
        min_rx: interval,
        multiplier: 3,
        auth: None,
    };
    let known = || neighbors.iter().filter(|n| !n.address.is_unspecified());
    let mut events = bfd.subscribe();
    let mut dynamic = speaker.dynamic_peers();
    loop {
        let found = dynamic.borrow_and_update().clone();
        let found = found.iter().map(|peer| session(peer.address, peer.interface.clone()));
        let known = known().map(|n| session(n.address, n.interface.clone()));
        if let Err(error) = bfd.set_sessions(known.chain(found).collect()).await {
            eprintln!("{error}");
        }
        loop {
            tokio::select! {
                Ok(()) = dynamic.changed() => break,
                Ok(event) = events.recv() => if event.is_failure() {
                    let interface = event.key.interface.as_deref();
                    speaker.peer_down(event.key.peer, interface, "BFD");
                },
                else => return,
            }
        }
    }
}

fn neighbor(text: &str) -> Result<NeighborConfig> {
    let mut parts = text.split(',');
    let address = parts.next().ok_or("address missing")?;
    let mut config = match address.parse() {
        Ok(address) => NeighborConfig::new(address, RemoteAs::External),
        Err(_) => NeighborConfig::unnumbered(address, RemoteAs::External),
    };
    config.connect_retry = Duration::from_secs(2);
    for part in parts.filter(|p| !p.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "remote-as" => {
                config.remote_as = match value {
                    "external" => RemoteAs::External,
                    "internal" => RemoteAs::Internal,
                    asn => RemoteAs::Exact(asn.parse()?),
                };
            }
            "port" => config.port = value.parse()?,
            "source" => config.source = Some(value.parse()?),
            "interface" => config.interface = Some(value.to_owned()),
            "password" => config.password = Password::new(value),
            "hold" => config.hold_time = Duration::from_secs(value.parse()?),
            "retry" => config.connect_retry = Duration::from_secs(value.parse()?),
            "multihop" => config.multihop = Some(value.parse()?),
            "passive" => config.passive = true,
            "gtsm" => config.ttl_security = true,
            "import" => config.import = Import::DefaultRoute,
            "extended-next-hop" => config.extended_next_hop = true,
            "ao" => config.ao.push(ao_key(value)?),
            "restart" => config.graceful_restart = Some(value.parse()?),
            "shutdown" => config.shutdown = Some(value.to_owned()),
            _ => return Err(format!("unknown neighbour option {part}").into()),
        }
    }
    Ok(config)
}

fn ao_key(text: &str) -> Result<AoKey> {
    let parts: Vec<&str> = text.split(':').collect();
    let [id, algorithm, key] = parts.as_slice() else { return Err("ao=ID:ALGORITHM:KEY".into()) };
    Ok(AoKey {
        send_id: id.parse()?,
        receive_id: id.parse()?,
        algorithm: match *algorithm {
            "hmac-sha-1-96" => AoAlgorithm::HmacSha1,
            "aes-128-cmac-96" => AoAlgorithm::Aes128Cmac,
            other => return Err(format!("unknown algorithm {other}").into()),
        },
        secret: Password::new(*key).ok_or("key too long")?,
    })
}

fn command(
    line: &str,
    wanted: &watch::Sender<Arc<Wanted>>,
    speaker: &SpeakerHandle,
) -> Result<String> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    match name {
        "announce" => {
            let prefix: IpNet = words.next().ok_or("prefix missing")?.parse()?;
            let announcement = announcement(words)?;
            wanted.send_modify(|w| {
                Arc::make_mut(w).insert(prefix, announcement);
            });
        }
        "withdraw" => {
            let prefix: IpNet = words.next().ok_or("prefix missing")?.parse()?;
            wanted.send_modify(|w| {
                Arc::make_mut(w).remove(&prefix);
            });
        }
        "announce-many" => {
            let count: u32 = words.next().ok_or("count missing")?.parse()?;
            let all = (0..count).map(|i| {
                let address = Ipv4Addr::from(0x0a80_0000 + i);
                (IpNet::from(std::net::IpAddr::from(address)), Announcement::default())
            });
            wanted.send_replace(Arc::new(all.collect()));
        }
        "withdraw-all" => {
            wanted.send_replace(Arc::new(Wanted::new()));
        }
        "settled" => speaker.set_settled(),
        "status" => return Ok(serde_json::to_string(&speaker.status())?),
        "imported" => {
            return Ok(serde_json::to_string(&**speaker.imported().borrow())?);
        }
        "memory" => {
            // Resident, in KiB.
            let status = std::fs::read_to_string("/proc/self/status")?;
            let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
            let kib = line.and_then(|l| l.split_whitespace().next()).ok_or("VmRSS missing")?;
            return Ok(kib.to_owned());
        }
        "bfd-down" => {
            let address = words.next().ok_or("address missing")?.parse()?;
            return Ok(speaker.peer_down(address, None, "told so").to_string());
        }
        _ => return Err(format!("unknown command {name}").into()),
    }
    Ok("\"ok\"".to_owned())
}

fn announcement<'a>(words: impl Iterator<Item = &'a str>) -> Result<Announcement> {
    let mut announcement = Announcement::default();
    let bgp = &mut announcement.bgp;
    for word in words {
        let (name, value) = word.split_once('=').ok_or("attribute without value")?;
        let parts: Vec<&str> = value.split(':').collect();
        match (name, parts.as_slice()) {
            ("community", [a, b]) => bgp.communities.push((a.parse()?, b.parse()?)),
            ("large", [a, b, c]) => {
                bgp.large_communities.push((a.parse()?, b.parse()?, c.parse()?));
            }
            ("med", [v]) => bgp.med = Some(v.parse()?),
            ("prepend", [v]) => bgp.prepend = v.parse()?,
            ("bandwidth", [v]) => bgp.link_bandwidth = Some(v.parse::<f32>()?.into()),
            _ => return Err(format!("unknown attribute {word}").into()),
        }
    }
    Ok(announcement)
}
