//! Sessions and announcements.

use super::{Facts, printable};
use crate::api::model::{
    AnnounceInfo, AnnouncePeer, BfdSessionInfo, BfdState, BgpErrorInfo, BgpInfo, BgpMessages,
    BgpNeighborInfo, BgpState, Direction,
};
use crate::cli::human;
use crate::cli::table::{Style, Table, Tone};

pub fn bgp(bgp: &BgpInfo, style: Style) -> String {
    let listening = bgp
        .listen_port
        .map_or_else(|| "does not listen".to_owned(), |port| format!("listens on port {port}"));
    let mut out = format!("AS {}, router id {}, {listening}\n", bgp.local_as, bgp.router_id);
    let kernel = bgp.kernel;
    let refused = [
        (kernel.md5_failure, "with a wrong MD5 signature"),
        (kernel.md5_not_found, "without the MD5 signature"),
        (kernel.md5_unexpected, "with an MD5 signature that is not configured"),
        (kernel.min_ttl_drop, "with a TTL too low (GTSM)"),
    ];
    for (count, what) in refused.into_iter().filter(|(count, _)| *count > 0) {
        let text = format!("The kernel dropped {} {what}.", human::counted(count, "segment"));
        out.push_str(&style.paint(Tone::Warning, &text));
        out.push('\n');
    }
    out.push('\n');
    if bgp.neighbors.is_empty() {
        out.push_str("No neighbour is configured.\n");
        return out;
    }
    let mut table = Table::default()
        .text("NEIGHBOUR")
        .text("AS")
        .text("STATE")
        .number("FOR")
        .number("SENT")
        .number("RECEIVED")
        .number("ACCEPTED")
        .number("UP")
        .text("BFD")
        .text("DESCRIPTION")
        .prose("LAST ERROR");
    for neighbor in &bgp.neighbors {
        table
            .row()
            .cell(neighbor.address.to_string())
            .cell(remote_as(neighbor))
            .toned(bgp_tone(neighbor), bgp_word(neighbor))
            .cell(human::seconds(neighbor.state_age_s))
            .cell(human::exact(neighbor.prefixes_announced))
            .cell(human::exact(neighbor.prefixes_received))
            .cell(human::exact(neighbor.prefixes_accepted))
            .cell(human::exact(neighbor.established_count))
            .toned(neighbor.bfd.map_or(Tone::Plain, bfd_tone), bfd_word(neighbor.bfd))
            .cell(&neighbor.description)
            .cell(neighbor.last_error.as_ref().map_or_else(String::new, error_text));
    }
    out.push_str(&table.render(style));
    out
}

fn remote_as(neighbor: &BgpNeighborInfo) -> String {
    neighbor.remote_as.map_or_else(|| neighbor.remote_as_configured.clone(), |asn| asn.to_string())
}

fn bgp_word(neighbor: &BgpNeighborInfo) -> &'static str {
    match &neighbor.shutdown {
        Some(_) => "shut down",
        None => neighbor.state.word(),
    }
}

fn bgp_tone(neighbor: &BgpNeighborInfo) -> Tone {
    match (neighbor.state, &neighbor.shutdown) {
        (BgpState::Established, _) => Tone::Good,
        (_, Some(_)) => Tone::Warning,
        (BgpState::OpenSent | BgpState::OpenConfirm, _) => Tone::Warning,
        _ => Tone::Bad,
    }
}

fn bfd_word(state: Option<BfdState>) -> &'static str {
    state.map_or("", BfdState::word)
}

fn bfd_tone(state: BfdState) -> Tone {
    match state {
        BfdState::Up => Tone::Good,
        BfdState::AdminDown | BfdState::Init => Tone::Warning,
        BfdState::Down => Tone::Bad,
    }
}

fn error_text(error: &BgpErrorInfo) -> String {
    let code = error.code.map_or_else(String::new, |(code, sub)| format!(" ({code}/{sub})"));
    let direction = match error.direction {
        Direction::Sent => "we sent: ",
        Direction::Received => "peer sent: ",
        Direction::Local => "",
    };
    format!("{} ago, {direction}{}{code}", human::seconds(error.age_s), error.text)
}

/// Everything about one session.
pub fn neighbor(neighbor: &BgpNeighborInfo, style: Style) -> String {
    let mut facts = Facts::default();
    let mut name = neighbor.address.to_string();
    if !neighbor.description.is_empty() {
        name.extend([" (", &printable(&neighbor.description), ")"]);
    }
    facts.add("Neighbour", style.paint(Tone::Strong, &name));
    facts.add(
        "State",
        format!(
            "{} for {}; came up {}",
            style.paint(bgp_tone(neighbor), bgp_word(neighbor)),
            human::seconds(neighbor.state_age_s),
            human::counted(neighbor.established_count, "time")
        ),
    );
    if let Some(message) = &neighbor.shutdown {
        facts.add("Shut down", format!("by configuration: {:?}", printable(message)));
    }
    if let Some(retry) = neighbor.retry_in_ms {
        facts.add("Next attempt", format!("in {}", human::milliseconds(retry)));
    }
    facts.add("AS", as_numbers(neighbor));
    facts.add("Router id", neighbor.remote_router_id.map_or_else(String::new, |id| id.to_string()));
    if let Some(transport) = neighbor.transport {
        let who = if transport.passive { "the peer connected" } else { "we connected" };
        facts.add("Connection", format!("{} to {}, {who}", transport.local, transport.remote));
    }
    facts.add("Timers", timers(neighbor));
    facts.add("Families", printable(&neighbor.families.join(", ")));
    facts.add("Security", security(neighbor));
    facts.add(
        "BFD",
        neighbor.bfd.map_or_else(
            || "not used".to_owned(),
            |state| style.paint(bfd_tone(state), state.word()),
        ),
    );
    facts.add(
        "Prefixes",
        format!(
            "{} announced, {} received, {} of them accepted",
            human::exact(neighbor.prefixes_announced),
            human::exact(neighbor.prefixes_received),
            human::exact(neighbor.prefixes_accepted)
        ),
    );
    let error = neighbor.last_error.as_ref().map_or_else(|| "none".to_owned(), error_text);
    facts.add("Last error", printable(&error));
    let mut out = facts.render(style);
    out.push('\n');
    out.push_str(&messages(neighbor.messages_in, neighbor.messages_out, style));
    if !neighbor.capabilities.is_empty() {
        out.push('\n');
        out.push_str(&capabilities(neighbor, style));
    }
    out
}

fn as_numbers(neighbor: &BgpNeighborInfo) -> String {
    let configured = &neighbor.remote_as_configured;
    let remote =
        neighbor.remote_as.map_or_else(|| "not known yet".to_owned(), |asn| asn.to_string());
    if *configured == remote {
        format!("{remote}, ours {}", neighbor.local_as)
    } else {
        let configured = printable(configured);
        format!("{remote} (configured: {configured}), ours {}", neighbor.local_as)
    }
}

fn timers(neighbor: &BgpNeighborInfo) -> String {
    let configured = neighbor.hold_time_configured_s;
    match (neighbor.hold_time_s, neighbor.keepalive_s) {
        (Some(0), _) => format!("no keepalives (hold time 0; configured {configured} s)"),
        (Some(hold), Some(keepalive)) => {
            format!("hold {hold} s (configured {configured} s), keepalive {keepalive} s")
        }
        _ => format!("hold {configured} s configured"),
    }
}

fn security(neighbor: &BgpNeighborInfo) -> String {
    let mut parts = Vec::new();
    if neighbor.security.md5 {
        parts.push("TCP-MD5".to_owned());
    }
    if neighbor.security.gtsm {
        parts.push("GTSM (TTL 255)".to_owned());
    }
    if let Some(ttl) = neighbor.security.multihop {
        parts.push(format!("multihop (TTL {ttl})"));
    }
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

fn messages(received: BgpMessages, sent: BgpMessages, style: Style) -> String {
    let mut table = Table::default().text("MESSAGES").number("RECEIVED").number("SENT");
    for ((kind, received), (_, sent)) in received.by_type().into_iter().zip(sent.by_type()) {
        table.row().cell(kind).cell(human::exact(received)).cell(human::exact(sent));
    }
    let (received, sent) = (received.total(), sent.total());
    table.row().cell("all").cell(human::exact(received)).cell(human::exact(sent));
    table.render(style)
}

fn capabilities(neighbor: &BgpNeighborInfo, style: Style) -> String {
    let mut table = Table::default().text("CAPABILITY").text("OURS").text("PEER'S");
    let mark = |offered: bool| if offered { "yes" } else { "-" };
    for capability in &neighbor.capabilities {
        table
            .row()
            .cell(&capability.name)
            .cell(mark(capability.local))
            .cell(mark(capability.remote));
    }
    table.render(style)
}

pub fn bfd(sessions: &[BfdSessionInfo], style: Style) -> String {
    if sessions.is_empty() {
        return "No BFD session is configured.\n".to_owned();
    }
    let mut table = Table::default()
        .text("PEER")
        .text("VIA")
        .text("STATE")
        .number("FOR")
        .text("PEER SAYS")
        .number("SENDS")
        .number("HEARS")
        .number("DETECTS IN")
        .number("OUT")
        .number("IN")
        .number("INVALID")
        .number("UP")
        .text("USED BY")
        .prose("DIAGNOSTIC");
    for session in sessions {
        table
            .row()
            .cell(session.peer.to_string())
            .cell(session.interface.as_deref().unwrap_or("multihop"))
            .toned(bfd_tone(session.state), session.state.word())
            .cell(human::seconds(session.state_age_s))
            .cell(session.remote_state.word())
            .cell(human::microseconds(u64::from(session.tx_interval_us)))
            .cell(human::microseconds(u64::from(session.rx_interval_us)))
            .cell(match session.detection_time_us {
                0 => "not known".to_owned(),
                time => human::microseconds(time),
            })
            .cell(human::exact(session.packets_out))
            .cell(human::exact(session.packets_in))
            .cell(human::exact(session.packets_invalid))
            .cell(human::exact(session.up_count))
            .cell(session.users.join(","))
            .cell(diagnostics(session));
    }
    table.render(style)
}

fn diagnostics(session: &BfdSessionInfo) -> String {
    match (session.diagnostic.as_str(), session.remote_diagnostic.as_str()) {
        (ours, "") => ours.to_owned(),
        ("", theirs) => format!("peer: {theirs}"),
        (ours, theirs) => format!("{ours}; peer: {theirs}"),
    }
}

pub fn announce(prefixes: &[AnnounceInfo], style: Style) -> String {
    if prefixes.is_empty() {
        return "Nothing is configured to be announced.\n".to_owned();
    }
    let each: Vec<String> = prefixes.iter().map(|entry| one_prefix(entry, style)).collect();
    each.join("\n")
}

fn one_prefix(entry: &AnnounceInfo, style: Style) -> String {
    let sent = entry.peers.iter().any(|peer| peer.sent);
    let (tone, word) = match (entry.wanted, sent) {
        (true, true) => (Tone::Good, "announced"),
        (true, false) => (Tone::Bad, "wanted, but no peer has it"),
        (false, true) => (Tone::Warning, "being withdrawn"),
        (false, false) => (Tone::Bad, "not announced"),
    };
    let prefix = style.paint(Tone::Strong, &entry.prefix.to_string());
    let what = if entry.services.is_empty() {
        "local addresses".to_owned()
    } else {
        printable(&entry.services.join(", "))
    };
    let mut out = format!("{prefix} ({what}): {}\n", style.paint(tone, word));
    for reason in &entry.reasons {
        out.extend(["  - ", &printable(reason), "\n"]);
    }
    if !entry.attributes.is_empty() {
        out.extend(["  with ", &printable(&entry.attributes.join(", ")), "\n"]);
    }
    let names: Vec<String> = entry.peers.iter().map(peer_name).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for (peer, name) in entry.peers.iter().zip(&names) {
        let (tone, word) = match (peer.sent, entry.wanted) {
            (true, _) => (Tone::Good, "sent"),
            (false, true) => (Tone::Bad, "not sent"),
            (false, false) => (Tone::Faint, "not sent"),
        };
        let word = style.paint(tone, word);
        let why = if peer.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", printable(&peer.reason))
        };
        let line = format!("  to {name:width$}  {word}{why}\n");
        out.push_str(&line);
    }
    out
}

fn peer_name(peer: &AnnouncePeer) -> String {
    format!("{} by {}", peer.address, printable(&peer.protocol))
}
