//! The update bundle, one file for `dunlin upgrade`: an uncompressed tar of a manifest, its signature,
//! the system with its hash tree, and the unified kernel image, in that order, so that a node knows what
//! it gets before it gets it.

use super::keys::Keys;
use super::release::Release;
use super::room::Room;
use super::system::Packed;
use super::{hash, tree};
use anyhow::Result;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Put a bundle together.
pub fn build(
    room: &Room,
    release: &Release,
    system: &Packed,
    kernel: &Path,
    keys: Option<&Keys>,
    bundle: &Path,
) -> Result<()> {
    let dir = tree::fresh(&room.work("bundle")?)?;
    let mut members = vec!["manifest.json"];
    let files = [
        ("root.squashfs", system.squashfs.as_path()),
        ("root.verity", system.verity.as_path()),
        ("dunlin.efi", kernel),
    ];
    let mut described = serde_json::Map::new();
    for (name, file) in files {
        described.insert(name.to_owned(), describe(file)?);
        fs::hard_link(file, dir.join(name))?;
    }
    let manifest = json!({
        "format": 1,
        "version": release.version,
        "root_hash": system.root_hash,
        "files": described,
        "built": release.epoch,
    });
    let manifest = serde_json::to_string(&manifest)? + "\n";
    fs::write(dir.join("manifest.json"), &manifest)?;
    if let Some(keys) = keys {
        fs::write(dir.join("manifest.sig"), keys.sign(room, manifest.as_bytes())?)?;
        members.push("manifest.sig");
    }
    members.extend(files.map(|(name, _)| name));
    let mut tar = room.command("tar");
    tar.args(["--format=ustar", "--owner=0", "--group=0", "--numeric-owner", "--mode=0644"]);
    tar.args(["--hard-dereference", &format!("--mtime=@{}", release.epoch)]);
    tar.arg("--directory").arg(room.inside(&dir)?);
    tar.arg("--create").arg("--file").arg(room.inside(bundle)?).args(members);
    super::room::output(&mut tar).map(drop)
}

fn describe(file: &Path) -> Result<Value> {
    Ok(json!({ "size": fs::metadata(file)?.len(), "sha256": hash::file(file)? }))
}
