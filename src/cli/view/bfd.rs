//! BFD sessions.

use super::routing::bfd_tone;
use super::{Facts, printable};
use crate::api::model::{BfdInfo, BfdLastDown, BfdSessionInfo, BfdState};
use crate::cli::human;
use crate::cli::table::{Style, Table, Tone};

pub fn bfd(bfd: &BfdInfo, style: Style) -> String {
    let mut out = String::new();
    if !bfd.scheduling.is_empty() {
        out.extend(["BFD thread: ", &printable(&bfd.scheduling), "\n"]);
    }
    for (reason, count) in bfd.dropped.by_reason().into_iter().filter(|(_, count)| *count > 0) {
        let text = format!("Dropped {}: {}.", human::counted(count, "packet"), in_words(reason));
        out.push_str(&style.paint(Tone::Warning, &text));
        out.push('\n');
    }
    if !out.is_empty() {
        out.push('\n');
    }
    if bfd.sessions.is_empty() {
        out.push_str("No BFD session is configured.\n");
        return out;
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
        .number("UPS")
        .number("FAILURES")
        .text("AUTH")
        .text("USED BY")
        .prose("LAST DOWN");
    for session in &bfd.sessions {
        table
            .row()
            .cell(session.peer.to_string())
            .cell(via(session))
            .toned(bfd_tone(session.state), session.state.word())
            .cell(session.up_for_s.map_or_else(String::new, human::seconds))
            .cell(session.remote_state.word())
            .cell(human::microseconds(u64::from(session.tx_interval_us)))
            .cell(human::microseconds(u64::from(session.rx_interval_us)))
            .cell(detection(session))
            .cell(human::exact(session.up_count))
            .cell(human::exact(session.failure_count))
            .cell(session.authentication.as_deref().map_or_else(String::new, printable))
            .cell(session.users.join(","))
            .cell(match (&session.error, &session.last_down) {
                (Some(error), _) => printable(error),
                (None, Some(down)) => printable(&fall(down)),
                (None, None) => String::new(),
            });
    }
    out.push_str(&table.render(style));
    out
}

fn in_words(reason: &str) -> &str {
    match reason {
        "ttl" => "their TTL is not 255, so they crossed a router",
        "malformed" => "malformed",
        "unknown-discriminator" => "their discriminator names no session",
        "unknown-peer" => "no session with their source",
        _ => "single hop where multihop is configured, or the reverse",
    }
}

fn via(session: &BfdSessionInfo) -> &str {
    match &session.interface {
        Some(interface) => interface,
        None if session.multihop => "multihop",
        None => "",
    }
}

fn detection(session: &BfdSessionInfo) -> String {
    match session.detection_time_us {
        0 => "not known".to_owned(),
        time => human::microseconds(time),
    }
}

fn fall(down: &BfdLastDown) -> String {
    let what = if down.failure { "" } else { ", not a failure" };
    format!("{} ago: {}{what}", human::seconds(down.age_s), down.cause)
}

/// Everything about the sessions with one peer.
pub fn bfd_sessions(sessions: &[BfdSessionInfo], style: Style) -> String {
    let each: Vec<String> = sessions.iter().map(|session| one(session, style)).collect();
    each.join("\n")
}

fn one(session: &BfdSessionInfo, style: Style) -> String {
    let mut facts = Facts::default();
    facts.add("Peer", style.paint(Tone::Strong, &session.peer.to_string()));
    facts.add("Via", via(session));
    let since =
        session.up_for_s.map_or_else(String::new, |s| format!(" for {}", human::seconds(s)));
    let state = style.paint(bfd_tone(session.state), session.state.word());
    facts.add(
        "State",
        format!(
            "{state}{since}; came up {}, failed {}",
            human::counted(session.up_count, "time"),
            human::counted(session.failure_count, "time")
        ),
    );
    facts.add("Peer says", with_diagnostic(session.remote_state, &session.remote_diagnostic));
    facts.add("Diagnostic", printable(&session.diagnostic));
    facts.add("Problem", session.error.as_deref().map_or_else(String::new, printable));
    if let Some(down) = &session.last_down {
        let said = if down.remote_diagnostic.is_empty() {
            String::new()
        } else {
            format!(" (peer: {})", down.remote_diagnostic)
        };
        facts.add("Last down", printable(&format!("{}{said}", fall(down))));
    }
    facts.add("Local address", session.local.map_or_else(String::new, |local| local.to_string()));
    facts.add(
        "Discriminators",
        format!(
            "ours {:#010x}, the peer's {:#010x}",
            session.local_discriminator, session.remote_discriminator
        ),
    );
    facts.add("Authentication", session.authentication.as_deref().map_or("none".into(), printable));
    facts.add("Used by", printable(&session.users.join(", ")));
    facts.add(
        "Packets",
        format!(
            "{} received, {} sent, {} failed authentication, {} while administratively down, {} \
             not sent",
            human::exact(session.packets_in),
            human::exact(session.packets_out),
            human::exact(session.dropped_auth),
            human::exact(session.dropped_admin_down),
            human::exact(session.send_errors)
        ),
    );
    let mut out = facts.render(style);
    out.push('\n');
    out.push_str(&timers(session, style));
    if session.polling {
        out.push_str("The peer has not confirmed a change of timers yet.\n");
    }
    out
}

fn with_diagnostic(state: BfdState, diagnostic: &str) -> String {
    if diagnostic.is_empty() {
        state.word().to_owned()
    } else {
        format!("{} ({})", state.word(), printable(diagnostic))
    }
}

fn timers(session: &BfdSessionInfo, style: Style) -> String {
    let mut table =
        Table::default().text("TIMERS").number("OURS").number("PEER'S").number("IN USE");
    let time = |us: u32| human::microseconds(u64::from(us));
    table
        .row()
        .cell("transmit")
        .cell(time(session.min_tx_us))
        .cell(time(session.remote_min_tx_us))
        .cell(time(session.tx_interval_us));
    table
        .row()
        .cell("receive")
        .cell(time(session.min_rx_us))
        .cell(time(session.remote_min_rx_us))
        .cell(time(session.rx_interval_us));
    table
        .row()
        .cell("multiplier")
        .cell(session.multiplier.to_string())
        .cell(session.remote_multiplier.to_string())
        .cell("");
    table.row().cell("detection").cell("").cell("").cell(detection(session));
    table.render(style)
}
