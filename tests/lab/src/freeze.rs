//! Freezing one thread of a running process, as if its core had hung, by ptrace.
//!
//! SIGSTOP would stop the whole process; this stops one worker while its siblings go on. A
//! dedicated thread is the tracer (ptrace binds to the calling thread) and holds the thread
//! until the [`Frozen`] is dropped.

use anyhow::{Context, Result, bail};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// A frozen thread. Dropping it lets the thread go on.
#[derive(Debug)]
pub struct Frozen {
    thread: Pid,
    since: Instant,
    release: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

/// Thread ids of a process by thread name.
pub fn threads(process: Pid, name: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    let tasks = format!("/proc/{process}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("no process {process}"))? {
        let task = task?;
        // A thread may end while we look.
        let Ok(comm) = fs::read_to_string(task.path().join("comm")) else {
            continue;
        };
        if comm.trim_end() == name
            && let Some(tid) = task.file_name().to_str().and_then(|t| t.parse().ok())
        {
            found.push(Pid::from_raw(tid));
        }
    }
    Ok(found)
}

/// Freeze the one thread called `name`. It stands still when this returns.
pub fn freeze(process: Pid, name: &str) -> Result<Frozen> {
    let thread = match threads(process, name)?.as_slice() {
        [one] => *one,
        [] => bail!("process {process} has no thread {name}"),
        more => bail!("process {process} has {} threads {name}", more.len()),
    };
    let (release, released) = channel();
    let (report, reported) = channel();
    let tracer = std::thread::Builder::new()
        .name("freeze".into())
        .spawn(move || trace(thread, &report, &released))?;
    reported
        .recv()
        .context("the tracer ended")?
        .with_context(|| format!("cannot freeze thread {name} ({thread})"))?;
    Ok(Frozen { thread, since: Instant::now(), release: Some(release), tracer: Some(tracer) })
}

impl Frozen {
    pub fn thread(&self) -> Pid {
        self.thread
    }

    /// When it stood still.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Let it go on. Returns when.
    pub fn thaw(self) -> Instant {
        drop(self);
        Instant::now()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

fn trace(thread: Pid, report: &Sender<nix::Result<()>>, released: &Receiver<()>) {
    let stopped = stop(thread);
    let failed = stopped.is_err();
    let _ = report.send(stopped);
    if failed {
        return;
    }
    // Ends when the other side is dropped. Should this thread die instead, the kernel detaches.
    let _ = released.recv();
    let _ = ptrace::detach(thread, None);
}

fn stop(thread: Pid) -> nix::Result<()> {
    ptrace::seize(thread, ptrace::Options::empty())?;
    ptrace::interrupt(thread)?;
    loop {
        match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => return Ok(()),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Err(nix::Error::ESRCH),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_until;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    /// State letter of a thread, field 3 of its `stat`.
    fn state(pid: Pid) -> char {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.chars().next().unwrap()
    }

    #[test]
    fn a_frozen_thread_stands_and_goes_on() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let patience = Duration::from_secs(5);
        wait_until("exec", patience, || threads(pid, "sleep").is_ok_and(|t| t == [pid])).unwrap();
        assert!(freeze(pid, "worker-0").is_err());
        let frozen = freeze(pid, "sleep").unwrap();
        assert_eq!(state(pid), 't');
        frozen.thaw();
        wait_until("running again", patience, || state(pid) == 'S').unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
