//! The report as text for people: what is wrong last, next to the prompt.

use super::{Finding, Level, Report};
use crate::cli::human;
use crate::cli::table::{Style, Table, Tone, printable};
use std::fmt::Write;

pub fn text(report: &Report, style: Style) -> String {
    // Writing to a String cannot fail, here and below.
    let mut out = String::new();
    heading(&mut out, style, "Found");
    for fact in &report.found {
        let _ = writeln!(out, "  {:<13} {}", fact.what, printable(&fact.text));
    }
    if !report.cards.is_empty() {
        out.push('\n');
        indent(&mut out, &cards(report).render(narrowed(style)));
    }
    if !report.chosen.is_empty() {
        out.push('\n');
        heading(&mut out, style, "Chosen");
        let mut table = Table::default().text("WHAT").text("CHOICE").prose("WHY");
        for choice in &report.chosen {
            table.row().cell(&choice.what).cell(&choice.choice).cell(&choice.why);
        }
        indent(&mut out, &table.render(narrowed(style)));
    }
    // The worst is read first where one looks first: above the prompt.
    for (level, title, tone) in [
        (Level::Faster, "What would make it faster", Tone::Plain),
        (Level::Warning, "Warnings", Tone::Warning),
        (Level::Problem, "Problems", Tone::Bad),
    ] {
        let of_level: Vec<_> = report.findings.iter().filter(|f| f.level == level).collect();
        if !of_level.is_empty() {
            out.push('\n');
            heading(&mut out, style, title);
            for finding in of_level {
                line(&mut out, finding, tone, style);
            }
        }
    }
    out.push('\n');
    out.push_str(&verdict(report, style));
    out
}

fn cards(report: &Report) -> Table {
    let mut table = Table::default()
        .text("CARD")
        .text("USE")
        .text("NIC")
        .text("MAC")
        .text("MADE BY")
        .text("DRIVER")
        .number("NUMA")
        .text("LINK");
    for card in &report.cards {
        table
            .row()
            .cell(&card.address)
            .toned(Tone::Strong, &card.role)
            .cell(card.interface.as_deref().unwrap_or(""))
            .cell(card.mac.as_deref().unwrap_or(""))
            .cell(&card.vendor)
            .cell(card.driver.as_deref().unwrap_or("none"))
            .cell(card.numa_node.map_or(String::new(), |node| node.to_string()))
            .cell(&card.link);
    }
    table
}

/// Tables stand two columns to the right.
fn narrowed(style: Style) -> Style {
    Style { width: style.width.map(|width| width.saturating_sub(2)), ..style }
}

fn indent(out: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "  {line}");
    }
}

fn heading(out: &mut String, style: Style, text: &str) {
    out.push_str(&style.paint(Tone::Strong, text));
    out.push('\n');
}

fn line(out: &mut String, finding: &Finding, tone: Tone, style: Style) {
    let mut lines = finding.what.lines().map(printable);
    let first = lines.next().unwrap_or_default();
    let _ = writeln!(out, "  - {}", style.paint(tone, &first));
    for more in lines {
        let _ = writeln!(out, "    {more}");
    }
    if !finding.advice.is_empty() {
        let _ = writeln!(out, "    → {}", printable(&finding.advice));
    }
}

fn verdict(report: &Report, style: Style) -> String {
    let count = |level| report.findings.iter().filter(|f| f.level == level).count() as u64;
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let (tone, text) = match problems {
        0 => (Tone::Good, "No problems".to_owned()),
        count => (Tone::Bad, human::counted(count, "problem")),
    };
    let rest = match warnings {
        0 => String::new(),
        count => format!(", {}", human::counted(count, "warning")),
    };
    format!("{}{rest}.\n", style.paint(tone, &text))
}
