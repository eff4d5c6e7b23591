//! The software bill of materials: Debian packages with their versions and sources, crates with their
//! versions and licences, as SPDX 2.3 in JSON.

use super::release::Release;
use super::room::{self, Room};
use super::{hash, tree};
use crate::cargo;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// A Debian package that is part of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub name: String,
    pub version: String,
    /// The source package, and its version.
    pub source: String,
}

const FORMAT: &str =
    "${binary:Package}\t${Version}\t${source:Package} ${source:Version}\t${db:Status-Abbrev}\n";

/// What dpkg says is installed in a root.
pub fn installed(root: &Path) -> Result<Vec<Installed>> {
    let mut query = Command::new("dpkg-query");
    query.arg(format!("--admindir={}", root.join("var/lib/dpkg").display()));
    query.args(["--show", "--showformat", FORMAT]);
    let text = String::from_utf8(room::output(&mut query)?)?;
    Ok(text.lines().filter_map(package).collect())
}

fn package(line: &str) -> Option<Installed> {
    let mut fields = line.split('\t');
    let (name, version, source) = (fields.next()?, fields.next()?, fields.next()?);
    let name = name.split(':').next()?;
    fields.next()?.starts_with("ii").then(|| Installed {
        name: name.to_owned(),
        version: version.to_owned(),
        source: source.to_owned(),
    })
}

/// Packages of the room whose files are in the image: kernel, boot loaders, the initrd's programs.
pub fn from_room(room: &Room, names: &[String]) -> Result<Vec<Installed>> {
    let kernel = format!("linux-image-{}", room.kernel()?);
    let mut all = installed(room.root())?;
    all.retain(|package| names.contains(&package.name) || package.name == kernel);
    Ok(all)
}

/// Write the document.
pub fn write(release: &Release, packages: &[Installed], file: &Path) -> Result<()> {
    let mut parts = BTreeMap::new();
    for package in packages {
        let id = format!("SPDXRef-deb-{}", identifier(&package.name));
        parts.insert(id.clone(), debian(&id, package));
    }
    for krate in crates()? {
        let id =
            format!("SPDXRef-crate-{}-{}", identifier(&krate.name), identifier(&krate.version));
        parts.insert(id.clone(), crate_part(&id, &krate));
    }
    let relationships: Vec<Value> = parts
        .keys()
        .map(|id| {
            json!({
                "spdxElementId": "SPDXRef-dunlin",
                "relationshipType": "CONTAINS",
                "relatedSpdxElement": id,
            })
        })
        .chain([json!({
            "spdxElementId": "SPDXRef-DOCUMENT",
            "relationshipType": "DESCRIBES",
            "relatedSpdxElement": "SPDXRef-dunlin",
        })])
        .collect();
    let whole = json!({
        "SPDXID": "SPDXRef-dunlin",
        "name": "dunlin",
        "versionInfo": release.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseDeclared": "Apache-2.0",
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "comment": format!("commit {}", release.commit),
    });
    let content = std::iter::once(whole).chain(parts.into_values()).collect::<Vec<_>>();
    // The namespace must be unique to the document, and the same when it is built again.
    let name = hash::hex(&hash::sha256(serde_json::to_string(&content)?.as_bytes()));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("dunlin-{}", release.version),
        "documentNamespace": format!("urn:sha256:{name}"),
        "creationInfo": { "created": timestamp(release.epoch), "creators": ["Tool: cargo xtask image"] },
        "packages": content,
        "relationships": relationships,
    });
    tree::write(file, serde_json::to_string_pretty(&document)? + "\n")
}

fn debian(id: &str, package: &Installed) -> Value {
    json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "sourceInfo": format!("built from Debian's source package {}", package.source),
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseDeclared": "NOASSERTION",
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [purl(&format!("pkg:deb/debian/{}@{}", package.name, package.version))],
    })
}

struct Crate {
    name: String,
    version: String,
    licence: String,
}

fn crate_part(id: &str, krate: &Crate) -> Value {
    json!({
        "SPDXID": id,
        "name": krate.name,
        "versionInfo": krate.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseDeclared": krate.licence.replace('/', " OR "),
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [purl(&format!("pkg:cargo/{}@{}", krate.name, krate.version))],
    })
}

fn purl(locator: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": locator.replace('+', "%2B"),
    })
}

/// The crates that the node is linked from: not those of tests, nor of the build itself.
fn crates() -> Result<Vec<Crate>> {
    let mut tree = cargo::command();
    tree.args(["tree", "--locked", "--offline", "--package", "dunlin", "--edges", "normal"]);
    tree.args(["--prefix", "none", "--no-dedupe", "--format", "{p}\t{l}"]);
    let text = String::from_utf8(room::output(&mut tree)?)?;
    let mut crates = BTreeMap::new();
    for line in text.lines() {
        let (package, licence) = line.split_once('\t').context("cargo tree: no licence")?;
        let mut words = package.split_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        let key = (name.to_owned(), version.trim_start_matches('v').to_owned());
        let licence = if licence.is_empty() { "NOASSERTION" } else { licence };
        crates.insert(key, licence.to_owned());
    }
    let krate = |((name, version), licence)| Crate { name, version, licence };
    Ok(crates.into_iter().map(krate).collect())
}

/// SPDX identifiers have letters, digits, `.` and `-`.
fn identifier(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// Seconds since 1970 as SPDX wants them. Days to a date after Howard Hinnant's `civil_from_days`.
fn timestamp(epoch: u64) -> String {
    let (days, seconds) = (epoch / 86_400, epoch % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        for (epoch, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_428_189, "2026-11-23T10:03:09Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(timestamp(epoch), date);
        }
    }

    #[test]
    fn packages_that_are_installed_count() {
        let libc = package("libc6:amd64\t2.41-12\tglibc 2.41-12\tii ").unwrap();
        assert_eq!((libc.name.as_str(), libc.version.as_str()), ("libc6", "2.41-12"));
        assert_eq!(package("dash\t0.5\tdash 0.5\trc "), None);
    }
}
