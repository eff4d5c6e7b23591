//! Calling cargo, and what it knows about the workspace.

use anyhow::{Context, Result, bail};
use lab::Binaries;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's root directory.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that runs us.
pub fn command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command
}

/// Run cargo, its output going where ours goes.
pub fn run(
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    more: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<()> {
    let mut command = command();
    command.args(args).args(more);
    status(&mut command)
}

/// Run a command that must succeed.
pub fn status(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    println!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Run commands that must succeed, side by side. All are waited for.
pub fn status_of_all(commands: Vec<Command>) -> Result<()> {
    let running: Vec<_> = commands
        .into_iter()
        .map(|mut command| std::thread::spawn(move || status(&mut command)))
        .collect();
    let results: Vec<Result<()>> = running
        .into_iter()
        .map(|one| one.join().unwrap_or_else(|_| bail!("a thread that waits for cargo panicked")))
        .collect();
    results.into_iter().collect()
}

/// Make sure that `cargo SUBCOMMAND` is there: a minimal toolchain leaves some out.
pub fn component(subcommand: &str, component: &str) -> Result<()> {
    let there = command()
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if there.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    status(Command::new("rustup").args(["component", "add", component]))
        .with_context(|| format!("the Rust toolchain has no {component}"))
}

/// Build the node as the lab runs it.
pub fn build_node() -> Result<Binaries> {
    run(["build", "--package", "dunlin", "--bins"], [""; 0])?;
    Binaries::in_dir(&target_dir()?.join("debug"))
}

/// Where cargo builds.
pub fn target_dir() -> Result<PathBuf> {
    let metadata = metadata(&["--no-deps"])?;
    let dir = metadata["target_directory"].as_str();
    Ok(dir.context("cargo metadata: no target_directory")?.into())
}

/// `cargo metadata`.
pub fn metadata(args: &[&str]) -> Result<Value> {
    let output = command()
        .args(["metadata", "--format-version", "1"])
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}
