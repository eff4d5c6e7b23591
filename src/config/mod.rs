//! The operator's document: parse, validate, diff.
//!
//! In: one TOML document, normally `/etc/dunlin/dunlin.toml`. Out: a [`model::Config`] that cannot
//! be wrong, or [`Errors`] that name file, line, column and field of every mistake. [`diff()`]
//! tells what changes from one configuration to the next, and what of it needs a restart.
//! Parsing looks at nothing but the text: not at the machine, the network or the clock. Whatever
//! the text, it never panics, and its memory is bounded by the text's size, which is capped.

pub mod diff;
mod error;
pub mod model;
pub mod schema;
mod secret;

mod announce;
mod bfd;
mod bgp;
mod cluster;
mod management;
mod network;
mod node;
mod ospf;
mod reader;
mod service;
pub(crate) mod value;

#[cfg(test)]
mod tests;

pub use diff::{Diff, diff, live_part};
pub use error::{ConfigError, Errors, MAX_ERRORS, Position};
pub use model::Config;
pub use secret::Secret;
pub(crate) use value::{show_bit_rate, show_extended_community};

use error::{Locator, Report};
use reader::Table;
use routing::ospf::Version;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use toml::de::DeTable;

/// Largest document accepted, bytes.
pub const MAX_DOCUMENT: u64 = 16 << 20;

impl Config {
    /// Reads and parses a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Errors> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        // One byte more than allowed, so that a file that grows while it is read is noticed.
        File::open(path)
            .and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes))
            .map_err(|error| Errors::of_file(&name, format!("cannot be read: {error}")))?;
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&text, &name),
            Err(error) => {
                let sound = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes());
                let position = Locator::new(&text).locate(sound);
                Err(Errors::single(&name, Some(position), "is not UTF-8 text".to_owned()))
            }
        }
    }

    /// Parses a document. `file_name` only names it in errors.
    ///
    /// A syntax error is reported alone; otherwise all mistakes are, up to [`MAX_ERRORS`].
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Errors> {
        if text.len() as u64 > MAX_DOCUMENT {
            let limit = MAX_DOCUMENT >> 20;
            return Err(Errors::of_file(file_name, format!("is larger than {limit} MiB")));
        }
        let document = DeTable::parse(text).map_err(|error| {
            // Not the error's own Display: it quotes the line, which may hold a password.
            let at = error.span().map_or(text.len(), |span| span.start);
            let position = Locator::new(text).locate(at);
            Errors::single(file_name, Some(position), format!("syntax: {}", error.message()))
        })?;
        let report = Report::new(file_name, text);
        let config = read(&Table::root(&report, &schema::ROOT, document.get_ref()));
        report.finish().map(|()| config)
    }
}

/// Reads every section. What is missing or wrong is reported and replaced by a default, so the
/// result means something only if nothing was reported.
fn read(root: &Table<'_>) -> Config {
    let report = root.report();
    let mut known = network::Known::default();
    let ports = network::ports(root, &mut known);
    let routes = network::routes(root);
    let before_local = report.count();
    let local_prefixes = network::local(root, &mut known);
    known.local_is_sound = report.count() == before_local;
    let local_addresses = local_prefixes.iter().flat_map(network::addresses_of).collect();
    let management = management::management(root, &mut known);
    let ospf = ospf::ospf(root, Version::V2, &mut known);
    let ospf3 = ospf::ospf(root, Version::V3, &mut known);
    Config {
        node: node::node(root, &ports),
        dataplane: node::dataplane(root),
        management,
        announce: announce::announce(root, &known),
        cluster: cluster::cluster(root),
        bfd: bfd::profile(root),
        bgp: bgp::bgp(root, &known),
        ospf,
        ospf3,
        services: service::services(root, &known),
        ports,
        routes,
        local_addresses,
        local_prefixes,
    }
}
