//! `dunlin banner`: what the console shows above the log-in prompt, kept fresh.
//!
//! In: the node's API, the kernel's addresses, the last verdict. Out: `/run/issue.d/dunlin.issue`, which
//! agetty shows, and a word to agetty when it has changed. Nothing in it counts seconds: the screen is
//! redrawn only when something has happened.

use super::gate::{self, Verdict};
use super::host::Host;
use super::node::Node;
use crate::api::model::{HealthState, Status};
use crate::cli::view::printable;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

const FILE: &str = "run/issue.d/dunlin.issue";
/// More problems than these do not help on a screen of 25 lines.
const MOST_PROBLEMS: usize = 5;
const MOST_VIPS: usize = 8;

/// What is shown.
#[derive(Debug, Default)]
struct Shown {
    hostname: String,
    version: String,
    slot: Option<String>,
    addresses: BTreeMap<String, Vec<String>>,
    /// Or why there is no answer.
    status: Option<Result<Status, String>>,
    sessions: Option<(usize, usize, usize)>,
    /// Why the last version on trial went back.
    went_back: Option<Verdict>,
}

/// Write it, again whenever it changes. Returns only if it cannot be written.
pub fn run(host: &Host, node: &dyn Node, every: Duration) -> Result<()> {
    let mut last = None;
    loop {
        let text = compose(&look(host, node));
        if last.as_ref() != Some(&text) {
            host.root.replace(FILE, text.as_bytes(), 0o644)?;
            // No agetty, no screen to redraw.
            let _ = host.run("agetty", &["--reload"]);
            last = Some(text);
        }
        std::thread::sleep(every);
    }
}

fn look(host: &Host, node: &dyn Node) -> Shown {
    let root = &host.root;
    let version = gate::running_version(root);
    let sessions = node.sessions().ok();
    Shown {
        hostname: root.read("proc/sys/kernel/hostname").unwrap_or_default(),
        slot: root.read("run/dunlin-image/slot"),
        addresses: addresses(),
        status: Some(node.status().map_err(|error| format!("{error:#}"))),
        sessions: sessions.map(|up| (up.bgp.len(), up.bfd.len(), up.ospf.len())),
        went_back: Verdict::load(root).filter(|verdict| {
            verdict.on_trial && !verdict.reasons.is_empty() && verdict.version != version
        }),
        version,
    }
}

/// Of every interface but the loopback; not the link-local ones.
fn addresses() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address.as_ref() else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| v4.ip().to_string());
        let v6 = address.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip);
        let v6 = v6.filter(|ip| !ip.is_unicast_link_local()).map(|ip| ip.to_string());
        if interface.interface_name != "lo"
            && let Some(text) = v4.or(v6)
        {
            found.entry(interface.interface_name).or_default().push(text);
        }
    }
    found
}

fn compose(shown: &Shown) -> String {
    let mut text = String::from("\n");
    let name = match &shown.status {
        Some(Ok(status)) => &status.name,
        _ => &shown.hostname,
    };
    let slot = shown.slot.as_ref().map_or(String::new(), |slot| format!(", slot {slot}"));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Dunlin {name}, version {}{slot}", shown.version);
    for (interface, addresses) in &shown.addresses {
        let _ = writeln!(text, "  {interface:<12} {}", addresses.join(" "));
    }
    match &shown.status {
        None => {}
        Some(Err(why)) => {
            let _ = writeln!(text, "  NODE         does not run: {why}");
        }
        Some(Ok(status)) => node(&mut text, shown, status),
    }
    if let Some(back) = &shown.went_back {
        let why = back.reasons.first().map_or("", String::as_str);
        let _ = writeln!(text, "  WENT BACK    from version {}: {why}", back.version);
    }
    text.push('\n');
    let lines: Vec<String> = text.lines().map(printable).collect();
    // A backslash begins one of agetty's own sequences.
    lines.join("\n").replace('\\', "\\\\") + "\n"
}

fn node(text: &mut String, shown: &Shown, status: &Status) {
    let _ = writeln!(text, "  node         {}", status.health.state.word());
    if let Some((bgp, bfd, ospf)) = shown.sessions {
        let mut sessions = match status.bgp {
            Some(all) => vec![format!("{bgp} of {} BGP", all.neighbors)],
            None => Vec::new(),
        };
        sessions.extend((bfd > 0).then(|| format!("{bfd} BFD")));
        sessions.extend((ospf > 0).then(|| format!("{ospf} OSPF")));
        if !sessions.is_empty() {
            let _ = writeln!(text, "  sessions up  {}", sessions.join(", "));
        }
    }
    let announced = status.vips.iter().filter(|vip| vip.announced);
    let announced: Vec<String> = announced.map(|vip| vip.prefix.to_string()).collect();
    let _ = match announced.len() {
        0 => writeln!(text, "  announced    nothing"),
        count @ 1..=MOST_VIPS => writeln!(text, "  announced    {}", announced[..count].join(" ")),
        count => writeln!(
            text,
            "  announced    {} and {} more",
            announced[..MOST_VIPS].join(" "),
            count - MOST_VIPS
        ),
    };
    if status.health.state != HealthState::Ok {
        for reason in status.health.reasons.iter().take(MOST_PROBLEMS) {
            let _ = writeln!(text, "  PROBLEM      {reason}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: Result<Status, String>) -> Shown {
        Shown {
            hostname: "lb7".into(),
            version: "0.2.0".into(),
            slot: Some("b".into()),
            addresses: BTreeMap::from([("eno1".into(), vec!["192.0.2.5".into()])]),
            status: Some(status),
            sessions: Some((1, 1, 0)),
            went_back: None,
        }
    }

    fn status() -> Status {
        serde_json::from_str(include_str!("../../tests/fixtures/cli/status.json")).unwrap()
    }

    #[test]
    fn a_console_tells_name_addresses_sessions_vips_and_problems() {
        let text = compose(&shown(Ok(status())));
        for part in
            ["version 0.2.0, slot b", "eno1         192.0.2.5", "sessions up  1 of", "announced"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        for reason in &status().health.reasons {
            assert!(text.contains(reason), "{text}");
        }
        assert!(text.lines().count() < 25, "{text}");
    }

    #[test]
    fn a_node_that_is_down_and_a_version_that_went_back_are_said() {
        let mut down = shown(Err("no \\socket\x1b[2J".into()));
        down.went_back = Some(Verdict {
            version: "0.3.0".into(),
            on_trial: true,
            reasons: vec!["BGP 10.1.1.1 was up before".into()],
            at: 0,
        });
        let text = compose(&down);
        assert!(text.contains("Dunlin lb7") && text.contains("does not run"), "{text}");
        assert!(text.contains("WENT BACK    from version 0.3.0: BGP 10.1.1.1"), "{text}");
        assert!(text.contains("\\\\socket") && !text.contains('\x1b'), "{text}");
    }
}
