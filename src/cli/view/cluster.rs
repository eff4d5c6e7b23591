//! Flows shared with other nodes.

use super::Facts;
use crate::api::model::ClusterInfo;
use crate::cli::human;
use crate::cli::table::{Style, Table, Tone};

pub fn cluster(cluster: &ClusterInfo, style: Style) -> String {
    let flows = cluster.flows;
    let mut facts = Facts::default();
    facts.add("Address", cluster.address.to_string());
    let now = human::counted(flows.adopted, "flow");
    facts.add(
        "Carried on",
        format!("{now} of other nodes now, {} ever", human::exact(flows.adoptions)),
    );
    facts.add("Asked for", human::counted(flows.asked, "flow"));
    facts.add("Found for peers", human::counted(flows.found, "flow"));
    let mut out = facts.render(style);
    let complaints = [
        (flows.not_asked, "not asked for: too many questions (max-questions)"),
        (flows.refused, "refused: services or backends differ, or too many (max-adopted)"),
        (flows.unconfirmed, "ended: the owner did not confirm them"),
    ];
    for (count, what) in complaints.into_iter().filter(|(count, _)| *count > 0) {
        let text = format!("{} {what}.", human::counted(count, "flow"));
        out.push_str(&style.paint(Tone::Warning, &text));
        out.push('\n');
    }
    let refused = cluster.datagrams.refused().into_iter().filter(|(_, count)| *count > 0);
    for (reason, count) in refused {
        let text = format!("Refused {}: {reason}.", human::counted(count, "datagram"));
        out.push_str(&style.paint(Tone::Warning, &text));
        out.push('\n');
    }
    out.push('\n');
    let mut table =
        Table::default().text("PEER").number("HEARD").number("ANSWERS").number("SILENCES");
    for peer in &cluster.peers {
        let heard = peer.heard_s.map_or_else(|| "never".to_owned(), human::seconds);
        let tone = if peer.silences > 0 { Tone::Warning } else { Tone::Plain };
        table
            .row()
            .cell(peer.address.to_string())
            .cell(heard)
            .cell(human::exact(peer.answers))
            .toned(tone, human::exact(peer.silences));
    }
    out.push_str(&table.render(style));
    out
}
