//! Whether the machine itself stood still.
//!
//! Everything in a lab shares a few cores. When something else takes them for half a second,
//! workers stall and BFD fails, rightly. A test that fails then should say so: this thread
//! sleeps a little, again and again, and remembers when it was woken too late.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const NAP: Duration = Duration::from_millis(10);

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct StallWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Longest delay, microseconds.
    worst: AtomicU64,
    /// When it ended.
    at: RwLock<Option<Instant>>,
}

impl StallWatch {
    pub fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("stall".into()).spawn({
            let shared = shared.clone();
            move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    std::thread::sleep(NAP);
                    let late = start.elapsed().saturating_sub(NAP).as_micros() as u64;
                    if late > shared.worst.fetch_max(late, Ordering::Relaxed) {
                        *shared.at.write().unwrap_or_else(PoisonError::into_inner) =
                            Some(Instant::now());
                    }
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The longest that a thread of this process was kept from running, and how long ago.
    pub fn worst(&self) -> (Duration, Duration) {
        let worst = Duration::from_micros(self.shared.worst.load(Ordering::Relaxed));
        let at = *self.shared.at.read().unwrap_or_else(PoisonError::into_inner);
        (worst, at.map(|at| at.elapsed()).unwrap_or_default())
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
