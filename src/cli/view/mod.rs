//! Answers of the API as text for people. Pure functions: a value and a style in, lines out.

mod bfd;
mod cluster;
mod forwarding;
mod node;
mod ospf;
mod routing;

pub use super::table::printable;
pub use bfd::{bfd, bfd_sessions};
pub use cluster::cluster;
pub use forwarding::{backends, drops, flows, ports, services, workers};
pub use node::{config, drained, reloaded, status};
pub use ospf::{ospf, ospf_neighbors};
pub use routing::{announce, bgp, neighbor};

use super::table::{Style, Tone};

/// Lines of `label  text`, labels padded to one width.
#[derive(Debug, Default)]
struct Facts {
    lines: Vec<(&'static str, String)>,
}

impl Facts {
    /// A fact. One without text is left out.
    fn add(&mut self, label: &'static str, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.lines.push((label, text));
        }
    }

    fn render(&self, style: Style) -> String {
        let width = self.lines.iter().map(|(label, _)| label.len()).max();
        let width = width.unwrap_or(0) + 2;
        let mut out = String::new();
        for (label, text) in &self.lines {
            out.push_str(&style.paint(Tone::Faint, label));
            out.extend(std::iter::repeat_n(' ', width - label.len()));
            out.push_str(text);
            out.push('\n');
        }
        out
    }
}

fn yes_no(value: bool) -> (Tone, &'static str) {
    if value { (Tone::Good, "yes") } else { (Tone::Bad, "no") }
}
