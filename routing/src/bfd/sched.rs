//! Scheduling class of the BFD thread: real time if permitted, else a better nice value.
#![allow(unsafe_code)]

/// What the kernel granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    /// SCHED_FIFO with this priority.
    Fifo(i32),
    /// The ordinary class with this nice value.
    Nice(i32),
    /// Nothing: the ordinary class as inherited.
    Ordinary,
}

/// Below the kernel's own threads (50 for threaded interrupts), above everything ordinary.
const FIFO_PRIORITY: i32 = 40;
const NICE: i32 = -15;

/// Raises the calling thread. The class is not inherited by what the thread may fork.
pub(super) fn raise() -> Granted {
    let param = libc::sched_param { sched_priority: FIFO_PRIORITY };
    // SAFETY: 0 names the calling thread; `param` outlives the call, which only reads it.
    let fifo = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const param)
    };
    if fifo == 0 {
        return Granted::Fifo(FIFO_PRIORITY);
    }
    // SAFETY: no pointers. On Linux PRIO_PROCESS with 0 means the calling thread.
    let nice = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if nice == 0 { Granted::Nice(NICE) } else { Granted::Ordinary }
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fifo(priority) => write!(f, "SCHED_FIFO priority {priority}"),
            Self::Nice(nice) => write!(f, "nice {nice} (SCHED_FIFO not permitted)"),
            Self::Ordinary => write!(f, "ordinary (neither SCHED_FIFO nor nice permitted)"),
        }
    }
}
