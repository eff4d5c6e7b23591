//! The Unix socket, its connections and their limits.
//!
//! At most [`MAX_CONNECTIONS`] are served at a time; the next ones wait in the kernel's backlog. A
//! connection that does not send its headers in [`HEADER_TIMEOUT`] is closed, and none lives longer
//! than [`CONNECTION_LIFETIME`], so that a client that stops reading gives its place back.

use super::node::Node;
use super::routes::{Caller, router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

/// Connections served at a time.
pub const MAX_CONNECTIONS: usize = 64;

/// From the opening of a connection, or the end of its last answer, to the end of the headers.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest life of a connection, whatever it does.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

/// Most header fields of a request.
const MAX_HEADERS: usize = 64;

/// Bytes of a request buffered before its body: bounds the request line and the headers.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// How long the end waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);

/// A bound socket. Dropping it removes the socket file, unless another process has taken its place.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure, and the next start copes with a stale file.
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Bind `socket`, mode 0660, making its directory (0750) if there is none.
///
/// A socket file that nobody listens on is replaced. The file appears under its name only when it
/// is ready: a client never meets one that it may not open yet.
///
/// # Errors
/// `AddrInUse`: another process answers there. `AlreadyExists`: the path is not a socket. Others as
/// the file system has them; the message names the path. Must be called within a tokio runtime.
pub fn bind(socket: &Path) -> io::Result<Listener> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("API socket {}: {error}", socket.display()))
    };
    bind_there(socket).map_err(named)
}

fn bind_there(socket: &Path) -> io::Result<Listener> {
    if let Some(parent) = socket.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
    }
    refuse_if_taken(socket)?;
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = socket.with_file_name(name);
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    let placed = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))
        .and_then(|()| inode(&fresh))
        .and_then(|inode| std::fs::rename(&fresh, socket).map(|()| inode));
    match placed {
        Ok(inode) => Ok(Listener { socket: listener, path: socket.to_owned(), inode }),
        Err(error) => {
            let _ = std::fs::remove_file(&fresh);
            Err(error)
        }
    }
}

/// Only a socket that refuses connections may be replaced.
fn refuse_if_taken(socket: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(socket) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "exists and is not a socket; remove it or configure another path",
        ));
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it")),
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    std::fs::symlink_metadata(path).map(|metadata| metadata.ino())
}

/// Bind and serve until `shutdown` resolves. See [`bind`] for the errors, and for a start that
/// wants to know about them before it goes on.
pub async fn serve<N: Node>(
    node: Arc<N>,
    socket: &Path,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    serve_on(node, bind(socket)?, shutdown).await;
    Ok(())
}

/// Serve until `shutdown` resolves; then stop accepting, give answers under way two seconds, and
/// remove the socket file.
pub async fn serve_on<N: Node>(
    node: Arc<N>,
    listener: Listener,
    shutdown: impl Future<Output = ()> + Send,
) {
    let app = router(node);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let (stopping, stop) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.socket.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let app = app.clone();
                let stop = stop.clone();
                connections.spawn(async move {
                    connection(stream, app, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors or memory, most likely: trying again at once would spin.
                tracing::warn!(%error, "API: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::info!(left = connections.len(), "API: clients cut off at shutdown");
    }
}

async fn connection(stream: UnixStream, app: axum::Router, mut stop: watch::Receiver<bool>) {
    let caller = Caller::of(&stream);
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        app.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::time::timeout(CONNECTION_LIFETIME, async {
        tokio::select! {
            ended = serving.as_mut() => return ended,
            _ = stop.wait_for(|stopping| *stopping) => {}
        }
        serving.as_mut().graceful_shutdown();
        serving.await
    });
    match ended.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "API: connection"),
        Err(_) => tracing::debug!("API: connection closed, it lasted too long"),
    }
}
