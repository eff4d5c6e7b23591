//! The node as a whole, and what became of an operator's request.

use super::{Facts, forwarding, printable, yes_no};
use crate::api::model::{
    ConfigInfo, DrainInfo, DrainPhase, DrainResult, HealthState, ReloadResult, Status,
};
use crate::cli::human;
use crate::cli::table::{Style, Table, Tone};

pub fn status(status: &Status, style: Style) -> String {
    let mut out = head(status, style);
    out.push('\n');
    out.push_str(&facts(status, style));
    out.push('\n');
    if status.vips.is_empty() {
        out.push_str("Nothing is configured to be announced.\n");
    } else {
        out.push_str(&vips(status, style));
    }
    out.push('\n');
    out.push_str(&forwarding::worker_load(&status.workers, style));
    out
}

fn head(status: &Status, style: Style) -> String {
    let tone = match status.health.state {
        HealthState::Ok => Tone::Good,
        HealthState::Degraded => Tone::Bad,
        HealthState::Draining => Tone::Warning,
    };
    let mut out = format!(
        "{} is {}\n",
        style.paint(Tone::Strong, &printable(&status.name)),
        style.paint(tone, status.health.state.word())
    );
    out.push_str(&bullets(&status.health.reasons));
    out
}

fn facts(status: &Status, style: Style) -> String {
    let mut facts = Facts::default();
    facts.add(
        "Node",
        format!(
            "dunlin {}, router id {}, pid {}, up {}",
            printable(&status.version),
            status.router_id,
            status.pid,
            human::seconds(status.uptime_s)
        ),
    );
    facts.add(
        "Configuration",
        format!(
            "{}, loaded {} ago",
            printable(&status.config_file),
            human::seconds(status.config_age_s)
        ),
    );
    if let Some(error) = &status.config_error {
        let text = format!("failed, nothing changed: {}", printable(error));
        facts.add("Last reload", style.paint(Tone::Bad, &text));
    }
    facts.add("Tables", format!("epoch {}", status.tables_epoch));
    let all = status.backends_healthy == status.backends_total;
    let services = format!(
        "{}, {} of {} healthy",
        human::counted(status.services, "service"),
        status.backends_healthy,
        human::counted(status.backends_total, "backend")
    );
    let tone = if all { Tone::Plain } else { Tone::Bad };
    facts.add("Services", style.paint(tone, &services));
    let bgp = status.bgp.map_or_else(
        || "not configured".to_owned(),
        |bgp| {
            let sessions = human::counted(bgp.neighbors, "session");
            let text = format!("{} of {sessions} established", bgp.established);
            let all = bgp.established == bgp.neighbors;
            style.paint(if all { Tone::Plain } else { Tone::Bad }, &text)
        },
    );
    facts.add("BGP", bgp);
    if let Some(drain) = &status.drain {
        facts.add("Drain", drain_progress(drain));
    }
    facts.render(style)
}

fn drain_progress(drain: &DrainInfo) -> String {
    let phase = match drain.phase {
        DrainPhase::Lowered => "still announced, at a lower preference",
        DrainPhase::Withdrawn => "withdrawn",
    };
    let flows = match drain.flows_left {
        0 => "no flows left: safe to stop".to_owned(),
        left => format!("{} left", human::counted(left, "flow")),
    };
    let mut text = format!("for {}, {phase}, {flows}", human::seconds(drain.age_s));
    if !drain.reason.is_empty() {
        text.extend([" (", &printable(&drain.reason), ")"]);
    }
    text
}

fn vips(status: &Status, style: Style) -> String {
    let mut table = Table::default().text("PREFIX").text("ANNOUNCED").prose("WHY NOT");
    for vip in &status.vips {
        let (tone, word) = yes_no(vip.announced);
        table.row().cell(vip.prefix.to_string()).toned(tone, word).cell(if vip.announced {
            ""
        } else {
            &vip.reason
        });
    }
    table.render(style)
}

/// The running document, as it can be fed back (but for the secrets).
pub fn config(config: &ConfigInfo) -> String {
    let mut out = format!("# {}\n", printable(&config.file));
    for line in config.toml.lines() {
        out.push_str(&printable(&line.replace('\t', "    ")));
        out.push('\n');
    }
    out
}

/// What `drain` or `undrain` did.
pub fn drained(result: &DrainResult) -> String {
    let left = match result.flows_left {
        None => String::new(),
        Some(0) => "No flows are left on this node.\n".to_owned(),
        Some(left) => {
            let flows = human::counted(left, "flow");
            format!("{flows} left on this node; `dunlin status` says when there are none.\n")
        }
    };
    if result.changes.is_empty() {
        return format!("Nothing to do: it was so already.\n{left}");
    }
    let mut out = listed("", &result.changes);
    out.push_str(&left);
    out
}

/// What `reload` did.
pub fn reloaded(result: &ReloadResult, style: Style) -> String {
    let mut out = if result.changes.is_empty() {
        "No changes to apply.\n".to_owned()
    } else {
        format!("Applied:\n{}", bullets(&result.changes))
    };
    if !result.needs_restart.is_empty() {
        let title = "Takes effect at the next start only (systemctl restart dunlin):";
        out.push_str(&style.paint(Tone::Warning, title));
        out.push('\n');
        out.push_str(&bullets(&result.needs_restart));
    }
    out
}

fn bullets(lines: &[String]) -> String {
    listed("  - ", lines)
}

fn listed(before: &str, lines: &[String]) -> String {
    let mut out = String::new();
    for line in lines {
        out.extend([before, &printable(line), "\n"]);
    }
    out
}
