//! Sessions and announcements.

use super::{Facts, printable};
use crate::api::model::{
    AnnounceInfo, AnnouncePeer, BfdState, BgpErrorInfo, BgpInfo, BgpMessages, BgpNeighborInfo,
    BgpState, Direction, RefusedPrefix,
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
        (kernel.ao_bad, "with a wrong TCP-AO signature"),
        (kernel.ao_key_not_found, "with a TCP-AO key ID that is not configured"),
        (kernel.ao_required, "without the TCP-AO signature"),
    ];
    for (count, what) in refused.into_iter().filter(|(count, _)| *count > 0) {
        let text = format!("The kernel dropped {} {what}.", human::counted(count, "segment"));
        out.push_str(&style.paint(Tone::Warning, &text));
        out.push('\n');
    }
    if bgp.unknown_peers > 0 {
        let text = format!(
            "{} from addresses where nobody is configured refused.",
            human::counted(bgp.unknown_peers, "connection")
        );
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
        .number("REFUSED")
        .number("ACCEPTED")
        .number("UPS")
        .text("BFD")
        .text("DESCRIPTION")
        .prose("LAST ERROR");
    for neighbor in &bgp.neighbors {
        table
            .row()
            .cell(printable(&neighbor.name))
            .cell(remote_as(neighbor))
            .toned(bgp_tone(neighbor), bgp_word(neighbor))
            .cell(human::seconds(neighbor.state_age_s))
            .cell(human::exact(neighbor.prefixes_announced))
            .cell(match neighbor.unannounceable.len() {
                0 => String::new(),
                count => human::exact(count as u64),
            })
            .cell(human::exact(neighbor.prefixes_accepted))
            .cell(human::exact(neighbor.established_count))
            .toned(neighbor.bfd.map_or(Tone::Plain, bfd_tone), bfd_word(neighbor.bfd))
            .cell(&neighbor.description)
            .cell(last_word(neighbor));
    }
    out.push_str(&table.render(style));
    out
}

/// Why it is not up; of one that is, why it was not.
fn last_word(neighbor: &BgpNeighborInfo) -> String {
    let established = neighbor.state == BgpState::Established;
    let error = if established { &neighbor.last_down } else { &neighbor.last_error };
    error.as_ref().map_or_else(String::new, error_text)
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

pub(super) fn bfd_tone(state: BfdState) -> Tone {
    match state {
        BfdState::Up => Tone::Good,
        BfdState::AdminDown | BfdState::Init => Tone::Warning,
        BfdState::Down => Tone::Bad,
    }
}

fn error_text(error: &BgpErrorInfo) -> String {
    let code = error.code.map_or_else(String::new, |(code, sub)| format!(" ({code}/{sub})"));
    // A NOTIFICATION in words may name its codes itself.
    let code = if error.text.contains(code.trim_start()) { String::new() } else { code };
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
    let mut name = printable(&neighbor.name);
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
    if let Some(range) = neighbor.range {
        facts.add("Dialled in", format!("from listen-range {range}"));
    }
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
    facts.add("Roles", roles(neighbor));
    facts.add("Security", security(neighbor));
    if let Some(text) = graceful_restart(neighbor) {
        facts.add("Graceful restart", text);
    }
    facts.add(
        "BFD",
        neighbor.bfd.map_or_else(
            || "not used".to_owned(),
            |state| style.paint(bfd_tone(state), state.word()),
        ),
    );
    facts.add("Prefixes", prefixes(neighbor));
    facts.add("Bad updates", update_errors(neighbor));
    let error = neighbor.last_error.as_ref().map_or_else(|| "none".to_owned(), error_text);
    facts.add("Last error", printable(&error));
    // Often the same event seen twice.
    if neighbor.last_down != neighbor.last_error {
        let down = neighbor.last_down.as_ref().map_or_else(String::new, error_text);
        facts.add("Last down", printable(&down));
    }
    let mut out = facts.render(style);
    out.push('\n');
    out.push_str(&refused(&neighbor.unannounceable, style));
    out.push_str(&messages(neighbor.messages_in, neighbor.messages_out, style));
    if !neighbor.capabilities.is_empty() {
        out.push('\n');
        out.push_str(&capabilities(neighbor, style));
    }
    out
}

fn prefixes(neighbor: &BgpNeighborInfo) -> String {
    let established = neighbor.state == BgpState::Established;
    let sync = if established && !neighbor.in_sync { " (more to come)" } else { "" };
    format!(
        "{} announced{sync}, {} accepted (at most {})",
        human::exact(neighbor.prefixes_announced),
        human::exact(neighbor.prefixes_accepted),
        human::exact(u64::from(neighbor.max_prefixes))
    )
}

fn roles(neighbor: &BgpNeighborInfo) -> String {
    match (&neighbor.role, &neighbor.remote_role) {
        (None, None) => String::new(),
        (ours, theirs) => {
            let word = |role: &Option<String>| role.as_deref().map_or("none".into(), printable);
            format!("ours {}, the peer's {}", word(ours), word(theirs))
        }
    }
}

fn update_errors(neighbor: &BgpNeighborInfo) -> String {
    let errors = &neighbor.update_errors;
    if errors.treated_as_withdraw == 0 && errors.attributes_discarded == 0 {
        return String::new();
    }
    let last = errors
        .last
        .as_deref()
        .map_or_else(String::new, |text| format!("; the last: {}", printable(text)));
    format!(
        "{} taken as withdrawals, {} passed over{last}",
        human::exact(errors.treated_as_withdraw),
        human::counted(errors.attributes_discarded, "attribute")
    )
}

/// Prefixes that are wanted but cannot be announced here; the first of many.
pub(super) fn refused(refused: &[RefusedPrefix], style: Style) -> String {
    const MOST: usize = 20;
    if refused.is_empty() {
        return String::new();
    }
    let mut table = Table::default().text("NOT ANNOUNCED").prose("BECAUSE");
    for entry in refused.iter().take(MOST) {
        table.row().cell(printable(&entry.prefix)).cell(printable(&entry.reason));
    }
    let mut out = table.render(style);
    if refused.len() > MOST {
        let more = format!("and {} more\n", refused.len() - MOST);
        out.push_str(&more);
    }
    out.push('\n');
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

/// `None`: the usual, our routes go with the session.
fn graceful_restart(neighbor: &BgpNeighborInfo) -> Option<String> {
    let seconds = neighbor.graceful_restart_s?;
    Some(format!("the peer keeps our routes for {seconds} s after the session breaks"))
}

fn security(neighbor: &BgpNeighborInfo) -> String {
    let mut parts = Vec::new();
    if neighbor.security.md5 {
        parts.push("TCP-MD5".to_owned());
    }
    if neighbor.security.ao {
        parts.push("TCP-AO".to_owned());
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
        let hop = peer.next_hop.map_or_else(String::new, |hop| format!(", next hop {hop}"));
        let line = format!("  to {name:width$}  {word}{hop}{why}\n");
        out.push_str(&line);
    }
    out
}

fn peer_name(peer: &AnnouncePeer) -> String {
    format!("{} by {}", printable(&peer.name), printable(&peer.protocol))
}
