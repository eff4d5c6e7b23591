//! The Debian that this machine runs, and where it takes its packages from.
//!
//! The image is built from the mirror that the machine's own apt uses: no host is named in this
//! repository, and a site's proxy or mirror is respected.

use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;

/// Debian's archive keys, on every Debian machine (package debian-archive-keyring).
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One package index of the machine's apt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Where the repository is: what a `deb` line names.
    pub uri: String,
    /// `bookworm`, `bookworm-backports`, `bookworm-security`, …
    pub codename: String,
    /// `Debian`, `Debian-Security`, `Debian Backports`, …
    pub label: String,
}

/// Where packages of any release come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub main: String,
    /// Security updates. None where the machine takes none.
    pub security: Option<String>,
}

impl Mirror {
    /// The lines of a sources.list for a release.
    pub fn sources(&self, release: &str) -> Vec<String> {
        let mut lines = vec![
            format!("deb {} {release} main", self.main),
            format!("deb {} {release}-updates main", self.main),
        ];
        if let Some(security) = &self.security {
            lines.push(format!("deb {security} {release}-security main"));
        }
        lines
    }
}

/// The codename of this machine's release.
pub fn host() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("no /etc/os-release")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(line.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// The indices that `apt-get update` has fetched or would fetch.
pub fn indices() -> Result<Vec<Index>> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)\t$(CODENAME)\t$(RELEASE)\t$(LABEL)"])
        .arg("Created-By: Packages")
        .output()
        .context("no apt-get: this needs Debian 12 or 13 (or a relative)")?;
    if !output.status.success() {
        bail!("apt-get indextargets: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(index).collect())
}

/// The machine's mirror.
pub fn mirror() -> Result<Mirror> {
    choose(&indices()?).context(
        "apt knows no Debian mirror; is there one in /etc/apt/sources.list.d, and has `apt-get \
         update` run?",
    )
}

/// apt's settings for proxies, as `-o` wants them.
pub fn proxies() -> Result<Vec<String>> {
    let output = Command::new("apt-config").args(["dump"]).output().context("no apt-config")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter(|line| line.starts_with("Acquire::http") && line.contains("::Proxy"))
        .map(|line| line.trim_end_matches(';').replacen(' ', "=", 1).replace('"', ""))
        .filter(|line| !line.ends_with('='))
        .collect())
}

fn index(line: &str) -> Option<Index> {
    let mut fields = line.split('\t');
    let mut next = || fields.next().filter(|field| !field.starts_with("$("));
    let uri = next()?.to_owned();
    let (codename, release) = (next(), next());
    let codename = codename.or(release)?.to_owned();
    // Nothing was fetched yet: then there is no label, and the suite has to tell.
    let label = next().unwrap_or(if codename.ends_with("-security") {
        "Debian-Security"
    } else {
        "Debian"
    });
    Some(Index { uri, codename, label: label.to_owned() })
}

fn choose(indices: &[Index]) -> Option<Mirror> {
    let of = |label: &str| indices.iter().find(|i| i.label == label).map(|i| i.uri.clone());
    Some(Mirror { main: of("Debian")?, security: of("Debian-Security") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_machine() {
        let lines = "http://a.example/bp/\tbookworm-backports\tbookworm-backports\tDebian Backports\n\
                     http://a.example/debian/\tbookworm\tbookworm\tDebian\n\
                     http://b.example/security/\tbookworm-security\t12\tDebian-Security\n";
        let indices: Vec<Index> = lines.lines().filter_map(index).collect();
        assert_eq!(indices.len(), 3);
        let mirror = choose(&indices).unwrap();
        assert_eq!(
            mirror.sources("trixie"),
            [
                "deb http://a.example/debian/ trixie main",
                "deb http://a.example/debian/ trixie-updates main",
                "deb http://b.example/security/ trixie-security main",
            ]
        );
    }

    #[test]
    fn indices_that_were_never_fetched_are_known_by_their_suite() {
        let lines = "http://a.example/d/\t$(CODENAME)\ttrixie\t$(LABEL)\n\
                     http://a.example/s/\t$(CODENAME)\ttrixie-security\t$(LABEL)\n";
        let indices: Vec<Index> = lines.lines().filter_map(index).collect();
        let mirror = choose(&indices).unwrap();
        assert_eq!(mirror.main, "http://a.example/d/");
        assert_eq!(mirror.security.as_deref(), Some("http://a.example/s/"));
    }

    #[test]
    fn a_machine_without_debian_is_told_so() {
        assert_eq!(choose(&[]), None);
    }
}
