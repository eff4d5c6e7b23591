//! Files and directories: lists of words, copies that do not depend on the host's umask, removal by
//! pattern.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The words of a file, without its comments (`#` to the end of the line).
pub fn words(file: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    Ok(lines.flat_map(str::split_whitespace).map(str::to_owned).collect())
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Remove a file or a directory with all that is in it, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let result = if meta.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// Make a directory anew, empty.
pub fn fresh(dir: &Path) -> Result<PathBuf> {
    remove(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.to_owned())
}

/// Remove what matches patterns below a root. A pattern that matches nothing is an error: it has
/// outlived what it was for.
pub fn remove_matching(root: &Path, patterns: &[String]) -> Result<()> {
    for pattern in patterns {
        let found = matching(root, pattern)?;
        if found.is_empty() {
            bail!("nothing matches {pattern}");
        }
        for path in found {
            remove(&path)?;
        }
    }
    Ok(())
}

/// What matches a pattern below a root.
pub fn matching(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let whole = root.join(pattern.trim_start_matches('/'));
    let paths = glob::glob(&whole.to_string_lossy()).with_context(|| pattern.to_owned())?;
    paths.collect::<Result<_, _>>().with_context(|| pattern.to_owned())
}

/// Copy a tree over another one. Directories become 0755, files 0644, or 0755 where executable, all
/// of them root's: git keeps no more than that, and what it checks out depends on the umask.
pub fn lay_over(from: &Path, to: &Path) -> Result<()> {
    if !to.is_dir() {
        fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    }
    for name in names(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        let meta = fs::symlink_metadata(&source)?;
        if meta.is_dir() {
            lay_over(&source, &target)?;
        } else if meta.is_symlink() {
            remove(&target)?;
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            install(&source, &target, meta.permissions().mode() & 0o100 != 0)?;
        }
    }
    Ok(())
}

/// Copy one file, making the directories above it.
pub fn install(from: &Path, to: &Path, executable: bool) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    remove(to)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Write a file that all may read, making the directories above it.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    Ok(())
}
