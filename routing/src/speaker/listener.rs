//! Accepting connections.

use super::registry::Inner;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;
use tracing::warn;

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until aborted, or until the speaker is gone.
pub(super) async fn run(listener: Arc<TcpListener>, speaker: Weak<Inner>) {
    loop {
        let accepted = listener.accept().await;
        let Some(speaker) = speaker.upgrade() else { return };
        match accepted {
            Ok((stream, remote)) => speaker.accept(stream, remote),
            Err(error) => {
                drop(speaker);
                warn!(%error, "cannot accept BGP connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
