//! The node's API: HTTP/1.1 with JSON over a Unix socket, and the types its clients share.
//!
//! In: a [`Node`] (what `control` lets be asked and done) and a socket path. Out: REST paths under
//! `/v1` and Prometheus text. [`model`] holds every body as a type; the server ([`serve`]), the
//! [`client`] and the command line use the same ones. It must never touch the packet path, never
//! hold more than a bounded amount of memory for a client, and never let a slow or hostile client
//! delay another one. Who may connect is who may open the socket: mode 0660, the daemon's group.

pub mod client;
mod error;
pub mod health;
pub mod metrics;
pub mod model;
mod node;
mod routes;
mod server;

pub use error::{ApiError, ErrorKind};
pub use node::Node;
pub use routes::router;
pub use server::{Listener, bind, serve, serve_on};

/// Where the daemon listens and the command line looks, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/dunlin/api.sock";
