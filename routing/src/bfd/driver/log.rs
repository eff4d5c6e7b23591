//! Writes BFD's log lines from a thread of its own: a log that blocks must not delay packets. The
//! queue is bounded; lines beyond it are counted and the loss is logged.

use super::PeerEvent;
use std::io;
use std::sync::mpsc::{self, SyncSender, TrySendError};

const QUEUE: usize = 1024;

/// Something to log.
#[derive(Debug)]
pub(super) enum Line {
    Started { scheduling: String },
    Change(PeerEvent),
    SocketError { what: String, error: String },
}

/// The queue's end in the BFD thread.
#[derive(Debug)]
pub(super) struct Log {
    queue: SyncSender<(Line, u64)>,
    lost: u64,
}

impl Log {
    pub(super) fn write(&mut self, line: Line) {
        match self.queue.try_send((line, self.lost)) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lost += 1,
        }
    }
}

/// Starts the writer; it ends with the [`Log`].
pub(super) fn spawn() -> io::Result<Log> {
    let (queue, lines) = mpsc::sync_channel(QUEUE);
    std::thread::Builder::new().name("bfd-log".to_owned()).spawn(move || {
        for (line, lost) in lines {
            if lost > 0 {
                tracing::warn!(lost, "bfd: log queue overflowed");
            }
            emit(&line);
        }
    })?;
    Ok(Log { queue, lost: 0 })
}

fn emit(line: &Line) {
    match line {
        Line::Started { scheduling } => tracing::info!(%scheduling, "bfd: thread started"),
        Line::SocketError { what, error } => tracing::warn!(%what, %error, "bfd: socket"),
        Line::Change(event) => {
            let key = &event.key;
            let interface = key.interface.as_deref().unwrap_or("");
            // Two calls, since the level is part of the call site.
            if event.is_failure() {
                tracing::warn!(
                    peer = %key.peer, interface, multihop = key.multihop,
                    old = ?event.old, new = ?event.new, cause = ?event.cause,
                    diagnostic = ?event.diagnostic,
                    remote_diagnostic = ?event.remote_diagnostic,
                    "bfd: session failed"
                );
            } else {
                tracing::info!(
                    peer = %key.peer, interface, multihop = key.multihop,
                    old = ?event.old, new = ?event.new, cause = ?event.cause,
                    diagnostic = ?event.diagnostic,
                    remote_diagnostic = ?event.remote_diagnostic,
                    "bfd: session changed"
                );
            }
        }
    }
}
