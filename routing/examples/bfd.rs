//! A BFD speaker on its own, for interoperability tests and for trying a peer by hand:
//!
//! ```text
//! bfd PEER [local=ADDR] [interface=NAME] [multihop] [tx=MS] [rx=MS] [multiplier=N]
//!     [sha1=KEY | meticulous-sha1=KEY] [key-id=N]
//! ```
//!
//! Prints one line per change of state. Reads lines from standard input: `status` prints JSON-like
//! status, `drain` goes AdminDown, `undrain` ends it, `timers TX RX MULTIPLIER` changes timers,
//! end of file or `stop` shuts down.

use routing::bfd::{AuthConfig, AuthType, BfdHandle, SessionConfig};
use std::io::{self, BufRead};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = parse(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = BfdHandle::spawn()?;
    let mut events = handle.subscribe();
    runtime.block_on(handle.set_sessions(vec![config.clone()]))?;
    std::thread::spawn(move || {
        while let Ok(event) = events.blocking_recv() {
            println!(
                "event {} {:?} {:?} {:?} failure={}",
                event.key.peer,
                event.old,
                event.new,
                event.cause,
                event.is_failure()
            );
        }
    });
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["status"] => println!("status {:?}", runtime.block_on(handle.status())?),
            ["drain"] => runtime.block_on(handle.admin_down(true))?,
            ["undrain"] => runtime.block_on(handle.admin_down(false))?,
            ["timers", tx, rx, multiplier] => {
                config.min_tx = Duration::from_millis(tx.parse()?);
                config.min_rx = Duration::from_millis(rx.parse()?);
                config.multiplier = multiplier.parse()?;
                runtime.block_on(handle.set_sessions(vec![config.clone()]))?;
            }
            ["stop"] => break,
            _ => eprintln!("what is {line:?}?"),
        }
    }
    runtime.block_on(handle.shutdown());
    Ok(())
}

fn parse(
    mut words: impl Iterator<Item = String>,
) -> Result<SessionConfig, Box<dyn std::error::Error>> {
    let peer = words.next().ok_or("which peer?")?.parse()?;
    let mut config = SessionConfig {
        peer,
        local: None,
        interface: None,
        multihop: false,
        min_tx: Duration::from_millis(300),
        min_rx: Duration::from_millis(300),
        multiplier: 3,
        auth: None,
    };
    let mut key_id = 1;
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((&word, ""));
        let mut key = |kind| {
            config.auth = Some(AuthConfig { kind, key_id: 0, secret: value.as_bytes().to_vec() });
        };
        match name {
            "sha1" => key(AuthType::KeyedSha1),
            "meticulous-sha1" => key(AuthType::MeticulousKeyedSha1),
            "key-id" => key_id = value.parse()?,
            "local" => config.local = Some(value.parse()?),
            "interface" => config.interface = Some(value.to_owned()),
            "multihop" => config.multihop = true,
            "tx" => config.min_tx = Duration::from_millis(value.parse()?),
            "rx" => config.min_rx = Duration::from_millis(value.parse()?),
            "multiplier" => config.multiplier = value.parse()?,
            _ => return Err(format!("what is {word:?}?").into()),
        }
    }
    if let Some(auth) = &mut config.auth {
        auth.key_id = key_id;
    }
    Ok(config)
}
