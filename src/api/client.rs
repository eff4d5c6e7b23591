//! A client of the API: one request, one connection, every failure with what to do about it.

use super::model::ErrorBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Longest wait for a whole answer. More than the server gives the node.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Largest answer taken, bytes.
const MAX_ANSWER: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("dunlind is not running (no {0}): systemctl start dunlin; journalctl -u dunlin")]
    NotRunning(PathBuf),
    #[error(
        "nothing listens on {0}: dunlind has died or is starting: systemctl status dunlin; \
         journalctl -u dunlin"
    )]
    NotListening(PathBuf),
    #[error(
        "may not open {0}: run as root, or as a member of the group that owns it \
         (usermod -aG dunlin USER, then log in again)"
    )]
    Forbidden(PathBuf),
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, io::Error),
    #[error("dunlind did not answer within {} s: journalctl -u dunlin", TIMEOUT.as_secs())]
    Timeout,
    #[error("talking to dunlind failed: {0}")]
    Transport(String),
    /// The node's own answer.
    #[error("{}", refusal(.1))]
    Refused(StatusCode, ErrorBody),
    #[error("dunlind's answer is not what this version of dunlin reads: {0}")]
    Answer(String),
}

fn refusal(body: &ErrorBody) -> String {
    if body.hint.is_empty() {
        body.error.clone()
    } else {
        format!("{} ({})", body.error, body.hint)
    }
}

/// Talks to one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The body of `GET path`, as it came. `path` must be percent-encoded ([`encode`]).
    pub async fn get_raw(&self, path: &str) -> Result<Bytes, ClientError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(&self.get_raw(path).await?)
    }

    /// The body of the answer to `POST path` with a JSON body (which may be empty), as it came.
    pub async fn post_raw(&self, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        self.request(Method::POST, path, body.into()).await
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "dunlin")
            .header("connection", "close")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Transport(error.to_string()))?;
        tokio::time::timeout(TIMEOUT, self.exchange(request))
            .await
            .map_err(|_| ClientError::Timeout)?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.connect_error(error))?;
        let transport = |error: hyper::Error| ClientError::Transport(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(transport)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(transport)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| ClientError::Transport(error.to_string()))?
                .to_bytes();
            Ok((status, body))
        };
        // The connection moves the bytes while the answer is awaited; how it ends is told there.
        let (_, answer) = tokio::join!(connection, answer);
        let (status, body): (StatusCode, Bytes) = answer?;
        if status.is_success() {
            return Ok(body);
        }
        let refused = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorBody {
            error: format!("dunlind answered {status}"),
            hint: String::new(),
        });
        Err(ClientError::Refused(status, refused))
    }

    fn connect_error(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::NotRunning(socket),
            io::ErrorKind::ConnectionRefused => ClientError::NotListening(socket),
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(socket),
            _ => ClientError::Connect(socket, error),
        }
    }
}

/// A body as its type.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Answer(error.to_string()))
}

/// Percent-encode everything but the unreserved characters (RFC 3986 §2.3).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn what_is_not_unreserved_is_encoded() {
        assert_eq!(encode("web-1._~"), "web-1._~");
        assert_eq!(encode("[::1]:80"), "%5B%3A%3A1%5D%3A80");
        assert_eq!(encode("a b/ü"), "a%20b%2F%C3%BC");
    }
}
