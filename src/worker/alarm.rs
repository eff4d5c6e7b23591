//! Waits for the first frame at any of several ports: their descriptors behind one `epoll`.
//!
//! Edge-triggered, and nothing is read from them: what a descriptor holds is the driver's (the frames
//! themselves, with a TAP). A port signals every arrival, so what arrives after the last look is
//! never missed; an old signal costs one look for nothing.

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Waits that end without a signal, frames being there, until the ports are not believed any more.
const PATIENCE: u32 = 64;
/// Shorter waits say nothing: cards hold interrupts back for up to about 50 µs, to have fewer.
const LONG_ENOUGH: Duration = Duration::from_micros(150);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Something,
    Nothing,
}

#[derive(Debug)]
pub struct Alarm {
    epoll: Epoll,
    /// All queues of the worker are behind it, so that silence can be told from idleness.
    whole: bool,
    /// The ports have been told to signal.
    armed: bool,
    /// Frames that had come when a long wait ended without a signal.
    silent_at: Option<u64>,
    silences: u32,
}

impl Alarm {
    /// Of these descriptors, which must stay open as long as the alarm is used. `None`: there is none,
    /// or the kernel refuses one.
    pub fn new(lines: &[BorrowedFd<'_>], whole: bool) -> Option<Self> {
        if lines.is_empty() {
            return None;
        }
        let add_all = || -> nix::Result<Epoll> {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            for line in lines {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI | EpollFlags::EPOLLET;
                epoll.add(line, EpollEvent::new(flags, 0))?;
            }
            Ok(epoll)
        };
        match add_all() {
            Ok(epoll) => Some(Self { epoll, whole, armed: false, silent_at: None, silences: 0 }),
            Err(errno) => {
                tracing::warn!(%errno, "receive interrupts cannot be waited for");
                None
            }
        }
    }

    /// Note whether the ports signal. `true`: this is new, so tell them.
    pub fn set(&mut self, armed: bool) -> bool {
        std::mem::replace(&mut self.armed, armed) != armed
    }

    /// Wait at most so long. `frames`: those that have come so far.
    pub fn wait(&mut self, at_most: Duration, frames: u64) -> Heard {
        // What epoll holds back is told by ppoll, which counts in less than milliseconds.
        let mut waiting = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
        let ready = ppoll(&mut waiting, Some(TimeSpec::from_duration(at_most)), None);
        if !matches!(ready, Ok(1..)) {
            // The time is over, or a signal came: to the process, not of a port.
            let long = self.whole && at_most >= LONG_ENOUGH && ready == Ok(0);
            self.silent_at = long.then_some(frames);
            return Heard::Nothing;
        }
        let mut events = [EpollEvent::empty(); 16];
        // Edges are taken off the list by it. What does not fit comes next time.
        let _ = self.epoll.wait(&mut events, EpollTimeout::ZERO);
        self.silences = 0;
        Heard::Something
    }

    /// After the turn that followed a wait; `frames` as above. Whether frames came so often without a
    /// signal that there will be none: drivers promise what they do not keep.
    pub fn was_silent(&mut self, frames: u64) -> bool {
        if self.silent_at.take().is_some_and(|before| frames > before) {
            self.silences += 1;
        }
        self.silences >= PATIENCE
    }
}
