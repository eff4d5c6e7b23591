//! What is built: version, commit, time.

use super::room;
use crate::cargo;
use anyhow::{Context, Result, bail};
use std::process::Command;

#[derive(Debug, Clone)]
pub struct Release {
    pub version: String,
    /// Of git, in full; `-dirty` behind it when there are changes that are not committed.
    pub commit: String,
    /// The commit's time, seconds since 1970: the date of all files.
    pub epoch: u64,
    /// Compress less.
    pub quick: bool,
}

impl Release {
    /// From git and the workspace's version, unless another one is asked for.
    pub fn new(version: Option<String>, quick: bool) -> Result<Self> {
        let version = version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
        check(&version)?;
        let git = |args: &[&str]| -> Result<String> {
            let mut git = Command::new("git");
            git.current_dir(cargo::root()).args(args);
            Ok(String::from_utf8(room::output(&mut git)?)?.trim().to_owned())
        };
        let mut commit = git(&["rev-parse", "HEAD"])?;
        let epoch = git(&["log", "-1", "--format=%ct"])?;
        if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
            commit.push_str("-dirty");
        }
        let epoch = epoch.parse().context("git's commit time")?;
        Ok(Self { version, commit, epoch, quick })
    }

    /// The content of /etc/os-release.
    pub fn os_release(&self) -> String {
        let version = &self.version;
        format!(
            "NAME=Dunlin\nID=dunlin\nID_LIKE=debian\nPRETTY_NAME=\"Dunlin {version}\"\n\
             VERSION_ID={version}\nIMAGE_ID=dunlin\nIMAGE_VERSION={version}\nBUILD_ID={}\n",
            self.commit
        )
    }
}

/// The version is part of file names in which `+` counts boots and `_` ends a name.
fn check(version: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '~' | '-');
    let starts = version.starts_with(|c: char| c.is_ascii_digit());
    if !starts || version.len() > 32 || !version.chars().all(good) {
        bail!(
            "a version starts with a digit and has letters, digits, . ~ - (32 at most): {version:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_fit_into_file_names() {
        for good in ["0.1.0", "1.2.3~rc1", "0.2.0-7"] {
            assert!(super::check(good).is_ok(), "{good}");
        }
        for bad in ["", "v1", "1.0+1", "1_0", "1/0", "1 0", "123456789.123456789.123456789.123"] {
            assert!(super::check(bad).is_err(), "{bad}");
        }
    }
}
