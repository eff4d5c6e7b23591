//! Accepting connections, and handing each to the neighbour it comes from.

use super::peer::Command;
use super::{PeerKey, Peers, lock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until aborted. Nothing of a stranger's connection is read: it is closed at once.
pub(super) async fn run(listener: Arc<TcpListener>, peers: Arc<Peers>, strangers: Arc<AtomicU64>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => hand_over(stream, remote, &peers, &strangers),
            Err(error) => {
                warn!(%error, "cannot accept BGP connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn hand_over(stream: TcpStream, remote: SocketAddr, peers: &Peers, strangers: &AtomicU64) {
    let key = PeerKey::of_remote(&remote);
    let peers = lock(&peers.0);
    // A full queue means a peer that dials faster than it can be served: it may dial again.
    let taken = peers.get(&key).map(|p| p.commands.try_send(Command::Accepted(stream)).is_ok());
    if taken.is_none() {
        strangers.fetch_add(1, Ordering::Relaxed);
        debug!(%remote, "connection from an address that is no neighbour's");
    }
}
