//! The update bundle: a tar whose first members say what the others are, and who says so.
//!
//! In: a stream. Out: a manifest that is signed by the key of the image (where it has one), then the
//! files in the order in which they are written. Nothing of a bundle is believed before the signature
//! was checked, and no file before its hash was. Sizes are bounded by the manifest, the manifest by
//! [`MAX_MANIFEST`].

use super::version;
use crate::appliance::host::Root;
use anyhow::{Context, Result, bail, ensure};
use ed25519_dalek::pkcs8::DecodePublicKey;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;

pub const ROOT: &str = "root.squashfs";
pub const VERITY: &str = "root.verity";
pub const KERNEL: &str = "dunlin.efi";
/// Members behind the manifest, in their order.
const FILES: [&str; 3] = [ROOT, VERITY, KERNEL];
const MAX_MANIFEST: u64 = 64 << 10;
const SIGNATURE: u64 = 64;
/// The builder's public key, part of the verified system.
const KEY: &str = "usr/share/dunlin/release-key.pem";

/// What a bundle holds, as its builder says.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub version: String,
    /// Of the dm-verity hash tree, 64 hexadecimal digits.
    pub root_hash: String,
    pub files: BTreeMap<String, FileInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FileInfo {
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
}

impl Manifest {
    pub fn file(&self, name: &str) -> Result<&FileInfo> {
        self.files.get(name).with_context(|| format!("the manifest does not have {name}"))
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.format == 1,
            "the bundle has format {}, and this version reads format 1",
            self.format
        );
        ensure!(version::is_sound(&self.version), "{:?} is not a version", self.version);
        ensure!(is_hash(&self.root_hash), "the manifest's root_hash is not one");
        for name in FILES {
            let file = self.file(name)?;
            ensure!(is_hash(&file.sha256), "the manifest's sha256 of {name} is not one");
            ensure!(file.size > 0, "{name} is empty");
        }
        Ok(())
    }
}

/// SHA-256, in hexadecimal digits.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Who vouches for a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    ByTheBuilder,
    /// This system was built without a key, so anything is taken.
    NotChecked,
}

/// The key that this system was built with.
pub fn key(root: &Root) -> Result<Option<VerifyingKey>> {
    if !root.exists(KEY) {
        return Ok(None);
    }
    let text = root.read(KEY).with_context(|| format!("/{KEY} cannot be read"))?;
    let key = VerifyingKey::from_public_key_pem(&text);
    // A key that cannot be read must not become no key.
    Ok(Some(key.map_err(|error| anyhow::anyhow!("/{KEY}: {error}"))?))
}

/// Read a bundle: `begin` is given the manifest once it is known to be good, then `file` each file
/// with its contents, which it must read to the end.
pub fn read<R: Read, T>(
    stream: R,
    key: Option<&VerifyingKey>,
    begin: impl FnOnce(&Manifest, &Signed) -> Result<T>,
    mut file: impl FnMut(&mut T, &str, &FileInfo, &mut dyn Read) -> Result<()>,
) -> Result<T> {
    let mut archive = tar::Archive::new(stream);
    // Raw: the extensions of tar can name sizes that nobody signed.
    let mut members = archive.entries().context("this is not a bundle")?.raw(true);
    let text = small(members.next(), "manifest.json", MAX_MANIFEST)?;
    let mut next = members.next();
    let name = match &next {
        Some(Ok(entry)) => String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
        _ => String::new(),
    };
    let signature = match name == "manifest.sig" {
        true => {
            let signature = small(next, "manifest.sig", SIGNATURE)?;
            next = members.next();
            Some(signature)
        }
        false => None,
    };
    let signed = verify(&text, signature.as_deref(), key)?;
    let manifest: Manifest = serde_json::from_slice(&text).context("manifest.json")?;
    manifest.check()?;
    let mut state = begin(&manifest, &signed)?;
    for name in FILES {
        let info = manifest.file(name)?;
        let mut entry = named(next.take(), name)?;
        ensure!(
            entry.size() == info.size,
            "{name} has {} bytes, and the manifest says {}",
            entry.size(),
            info.size
        );
        file(&mut state, name, info, &mut entry)?;
        next = members.next();
    }
    Ok(state)
}

fn verify(text: &[u8], signature: Option<&[u8]>, key: Option<&VerifyingKey>) -> Result<Signed> {
    let Some(key) = key else { return Ok(Signed::NotChecked) };
    let Some(signature) = signature else {
        bail!("the bundle is not signed, and this system takes only what its builder signed");
    };
    let signature = Signature::from_slice(signature).context("manifest.sig")?;
    // Strict: no signature of a weak key, and only one form of each signature.
    if key.verify_strict(text, &signature).is_err() {
        bail!("the bundle is NOT signed by the builder of this system; nothing was changed");
    }
    Ok(Signed::ByTheBuilder)
}

type Member<'a, R> = Option<std::io::Result<tar::Entry<'a, R>>>;

fn named<'a, R: Read>(member: Member<'a, R>, name: &str) -> Result<tar::Entry<'a, R>> {
    let entry = member.with_context(|| format!("the bundle ends before {name}"))?;
    let entry = entry.with_context(|| format!("the bundle is broken before {name}"))?;
    let found = entry.path_bytes();
    ensure!(
        *found == *name.as_bytes() && entry.header().entry_type().is_file(),
        "this is not a bundle: found {}, expected {name}",
        String::from_utf8_lossy(&found).escape_debug()
    );
    drop(found);
    Ok(entry)
}

fn small<R: Read>(member: Member<'_, R>, name: &str, most: u64) -> Result<Vec<u8>> {
    let entry = named(member, name)?;
    ensure!(entry.size() <= most, "{name} is too large");
    let size = entry.size();
    let mut bytes = Vec::new();
    entry.take(most).read_to_end(&mut bytes).with_context(|| format!("reading {name}"))?;
    ensure!(bytes.len() as u64 == size, "the bundle ends within {name}");
    Ok(bytes)
}

/// Hashes what goes through, in pieces that `each` is given.
pub fn pump(
    name: &str,
    info: &FileInfo,
    content: &mut dyn Read,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let count = fill(content, &mut piece).with_context(|| format!("reading {name}"))?;
        if count == 0 {
            break;
        }
        ensure!(done + count as u64 <= info.size, "{name} is longer than the manifest says");
        hash.update(&piece[..count]);
        each(done, &piece[..count])?;
        done += count as u64;
    }
    ensure!(done == info.size, "the bundle ends within {name}");
    let found = hex(&hash.finalize());
    ensure!(found == info.sha256, "{name} has SHA-256 {found}, expected {}", info.sha256);
    Ok(())
}

/// As much as there is room for, or as there is left.
fn fill(content: &mut dyn Read, piece: &mut [u8]) -> std::io::Result<usize> {
    let mut count = 0;
    while count < piece.len() {
        match content.read(&mut piece[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
