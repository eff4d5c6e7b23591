//! OSPF: interfaces, neighbours, the database in numbers.

use super::routing::refused;
use super::{Facts, printable};
use crate::api::model::{OspfInfo, OspfInterfaceState, OspfNeighborInfo, OspfNeighborState};
use crate::cli::human;
use crate::cli::table::{Style, Table, Tone};
use std::net::Ipv4Addr;

pub fn ospf(versions: &[OspfInfo], style: Style) -> String {
    if versions.is_empty() {
        return "OSPF is not configured.\n".to_owned();
    }
    let each: Vec<String> = versions.iter().map(|ospf| one(ospf, style)).collect();
    each.join("\n")
}

fn one(ospf: &OspfInfo, style: Style) -> String {
    let mut out = format!(
        "OSPFv{}, router id {}, area {} ({})\n",
        ospf.version,
        ospf.router_id,
        ospf.area,
        printable(&ospf.area_type)
    );
    for (reason, count) in ospf.packets.drops().into_iter().filter(|(_, count)| *count > 0) {
        let text = format!("Dropped {}: {}.", human::counted(count, "packet"), in_words(reason));
        out.push_str(&style.paint(Tone::Warning, &text));
        out.push('\n');
    }
    out.push('\n');
    out.push_str(&refused(&ospf.refused, style));
    out.push_str(&interfaces(ospf, style));
    out.push('\n');
    out.push_str(&neighbors(ospf, style));
    if !ospf.database.is_empty() {
        let mut table = Table::default().text("LSA TYPE").number("COUNT").number("OURS");
        for lsas in &ospf.database {
            table
                .row()
                .cell(printable(&lsas.kind))
                .cell(human::exact(lsas.count))
                .cell(human::exact(lsas.own));
        }
        out.push('\n');
        out.push_str(&table.render(style));
    }
    out
}

fn in_words(reason: &str) -> &str {
    match reason {
        "auth" => "wrong or missing authentication",
        "malformed" => "malformed",
        "hello-mismatch" => "the neighbour's intervals, mask or area type differ from ours",
        "area" => "of another area or instance",
        "duplicate-router-id" => "another router uses our router id",
        "mtu" => "the neighbour's MTU is larger than ours",
        _ => "not from a neighbour, or not for us",
    }
}

fn interfaces(ospf: &OspfInfo, style: Style) -> String {
    let mut table = Table::default()
        .text("INTERFACE")
        .text("NETWORK")
        .text("STATE")
        .number("COST")
        .text("DR")
        .text("BACKUP")
        .number("SENT")
        .number("RECEIVED")
        .number("DROPPED");
    for interface in &ospf.interfaces {
        let tone = match interface.state {
            OspfInterfaceState::Down => Tone::Bad,
            OspfInterfaceState::Waiting => Tone::Warning,
            _ => Tone::Good,
        };
        let dropped: u64 = interface.packets.drops().iter().map(|(_, count)| count).sum();
        table
            .row()
            .cell(printable(&interface.name))
            .cell(printable(&interface.network))
            .toned(tone, interface.state.word())
            .cell(interface.cost.to_string())
            .cell(router(interface.designated))
            .cell(router(interface.backup))
            .cell(human::exact(interface.packets_sent))
            .cell(human::exact(interface.packets.received))
            .cell(human::exact(dropped));
    }
    table.render(style)
}

fn router(router: Option<Ipv4Addr>) -> String {
    router.map_or_else(String::new, |router| router.to_string())
}

fn neighbors(ospf: &OspfInfo, style: Style) -> String {
    if ospf.neighbors.is_empty() {
        let text = "No neighbour has been heard.";
        return format!("{}\n", style.paint(Tone::Warning, text));
    }
    let mut table = Table::default()
        .text("NEIGHBOUR")
        .text("ADDRESS")
        .text("INTERFACE")
        .text("STATE")
        .number("FOR")
        .number("DEAD IN")
        .number("PRIORITY")
        .number("UNACKED")
        .number("OWED");
    for neighbor in &ospf.neighbors {
        table
            .row()
            .cell(neighbor.router_id.to_string())
            .cell(neighbor.address.to_string())
            .cell(printable(&neighbor.interface))
            .toned(tone(neighbor.state), neighbor.state.word())
            .cell(human::seconds(neighbor.state_age_s))
            .cell(human::milliseconds(neighbor.dead_in_ms))
            .cell(neighbor.priority.to_string())
            .cell(human::exact(neighbor.unacknowledged))
            .cell(human::exact(neighbor.requested));
    }
    table.render(style)
}

fn tone(state: OspfNeighborState) -> Tone {
    match state {
        OspfNeighborState::Full => Tone::Good,
        OspfNeighborState::Down | OspfNeighborState::Attempt => Tone::Bad,
        _ => Tone::Warning,
    }
}

/// Everything about one neighbour, on each interface and by each version.
pub fn ospf_neighbors(neighbors: &[OspfNeighborInfo], style: Style) -> String {
    let each: Vec<String> =
        neighbors.iter().map(|neighbor| one_neighbor(neighbor, style)).collect();
    each.join("\n")
}

fn one_neighbor(neighbor: &OspfNeighborInfo, style: Style) -> String {
    let mut facts = Facts::default();
    facts.add("Neighbour", style.paint(Tone::Strong, &neighbor.router_id.to_string()));
    facts.add("Protocol", format!("OSPFv{}", neighbor.version));
    facts.add("Address", format!("{} on {}", neighbor.address, printable(&neighbor.interface)));
    facts.add(
        "State",
        format!(
            "{} for {}",
            style.paint(tone(neighbor.state), neighbor.state.word()),
            human::seconds(neighbor.state_age_s)
        ),
    );
    facts.add("Dead in", format!("{} of silence", human::milliseconds(neighbor.dead_in_ms)));
    facts.add("Priority", neighbor.priority.to_string());
    facts.add("Its DR", router(neighbor.designated));
    facts.add("Its backup", router(neighbor.backup));
    facts.add(
        "Database",
        format!(
            "{} not acknowledged, {} still owed to us",
            human::counted(neighbor.unacknowledged, "LSA"),
            human::counted(neighbor.requested, "LSA")
        ),
    );
    facts.render(style)
}
