//! What an upgrade leaves for the next boot to be measured by: `/var/lib/dunlin/upgrade.json`.

use super::host::Root;
use super::node::Sessions;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

const FILE: &str = "var/lib/dunlin/upgrade.json";

/// The last change of version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version that ran.
    pub from: String,
    /// The version that was made the next boot.
    pub to: String,
    /// Seconds since 1970-01-01 UTC.
    pub at: u64,
    /// Sessions that were up then.
    pub sessions: Sessions,
    /// Prefixes that were announced then.
    pub announced: Vec<String>,
}

impl Record {
    pub fn store(&self, root: &Root) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        root.replace(FILE, text.as_bytes(), 0o644).context("cannot note the sessions")
    }

    /// `None`: no version was ever changed, or nobody can read what was noted.
    pub fn load(root: &Root) -> Option<Self> {
        serde_json::from_str(&root.read(FILE)?).ok()
    }
}
