//! An OSPF speaker on its own, for interoperability tests and for trying a peer by hand:
//!
//! ```text
//! ospf v2|v3 ROUTER-ID AREA normal|stub|nssa [bfd] INTERFACE[,option…] …
//! ```
//!
//! Interface options: `broadcast`, `passive`, `mtu-ignore`, `cost=N`, `hello=S`, `dead=S`,
//! `priority=N`, `simple=PASSWORD`, `md5=ID:KEY`, `sha1=ID:KEY`, `sha256=…`, `sha384=…`,
//! `sha512=…`.
//!
//! Prints one line per event. Reads lines from standard input: `announce PREFIX stub|e1|e2 COST`,
//! `withdraw PREFIX`, `status`; end of file or `stop` shuts down.

use routing::bfd::BfdHandle;
use routing::ospf::auth::{Algorithm, Auth, Key};
use routing::ospf::{
    AreaKind, BfdTimers, Config, InterfaceConfig, NetworkKind, OspfHandle, Version,
};
use routing::{Announcement, OspfAttributes, OspfKind, Wanted};
use std::error::Error;
use std::io::{self, BufRead};
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [version, router_id, area, kind, interfaces @ ..] = &words[..] else {
        return Err("usage: ospf v2|v3 ROUTER-ID AREA normal|stub|nssa INTERFACE…".into());
    };
    let config = Config {
        version: if version == "v3" { Version::V3 } else { Version::V2 },
        router_id: router_id.parse()?,
        area: area.parse()?,
        area_kind: match kind.as_str() {
            "stub" => AreaKind::Stub,
            "nssa" => AreaKind::Nssa,
            _ => AreaKind::Normal,
        },
        interfaces: interfaces
            .iter()
            .filter(|word| *word != "bfd")
            .map(|word| interface(word))
            .collect::<Result<_, _>>()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let bfd = if interfaces.iter().any(|word| word == "bfd") {
        let interval = Duration::from_millis(100);
        let timers = BfdTimers { min_tx: interval, min_rx: interval, multiplier: 3, auth: None };
        Some((BfdHandle::spawn()?, timers))
    } else {
        None
    };
    let handle = runtime.block_on(async { OspfHandle::spawn(config, bfd.clone()) })?;
    let mut events = handle.subscribe();
    std::thread::spawn(move || {
        while let Ok(event) = events.blocking_recv() {
            println!("event {event:?}");
        }
    });
    let mut wanted = Wanted::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["announce", prefix, kind, cost] => {
                let kind = match kind {
                    "e1" => OspfKind::External1,
                    "e2" => OspfKind::External2,
                    _ => OspfKind::Stub,
                };
                let ospf = Some(OspfAttributes { cost: cost.parse()?, kind });
                wanted.insert(prefix.parse()?, Announcement { ospf, ..Announcement::default() });
                handle.set_wanted(wanted.clone());
            }
            ["withdraw", prefix] => {
                wanted.remove(&prefix.parse()?);
                handle.set_wanted(wanted.clone());
            }
            ["status"] => println!("status {:?}", runtime.block_on(handle.status())?),
            ["stop"] => break,
            _ => eprintln!("what is {line:?}?"),
        }
    }
    runtime.block_on(handle.shutdown());
    if let Some((bfd, _)) = bfd {
        runtime.block_on(bfd.shutdown());
    }
    Ok(())
}

fn interface(word: &str) -> Result<InterfaceConfig, Box<dyn Error>> {
    let mut parts = word.split(',');
    let mut config = InterfaceConfig::new(parts.next().unwrap_or_default());
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "broadcast" => config.network = NetworkKind::Broadcast,
            "passive" => config.passive = true,
            "mtu-ignore" => config.mtu_ignore = true,
            "cost" => config.cost = value.parse()?,
            "hello" => config.hello_interval = value.parse()?,
            "dead" => config.dead_interval = value.parse()?,
            "priority" => config.priority = value.parse()?,
            "simple" => {
                let mut password = [0; 8];
                password.iter_mut().zip(value.bytes()).for_each(|(to, from)| *to = from);
                config.auth = Auth::Simple(password);
            }
            "md5" => config.auth = key(Algorithm::Md5, value)?,
            "sha1" => config.auth = key(Algorithm::HmacSha1, value)?,
            "sha256" => config.auth = key(Algorithm::HmacSha256, value)?,
            "sha384" => config.auth = key(Algorithm::HmacSha384, value)?,
            "sha512" => config.auth = key(Algorithm::HmacSha512, value)?,
            _ => return Err(format!("what is {part:?}?").into()),
        }
    }
    Ok(config)
}

fn key(algorithm: Algorithm, value: &str) -> Result<Auth, Box<dyn Error>> {
    let (id, secret) = value.split_once(':').ok_or("a key is written ID:KEY")?;
    let secret = secret.as_bytes().to_vec();
    Ok(Auth::Crypto(vec![Key { id: id.parse()?, algorithm, secret }]))
}
