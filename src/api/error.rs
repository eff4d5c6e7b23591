//! What goes wrong, in words for the operator and a status code for programs.

use super::model::ErrorBody;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Kinds of failure; each is one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400: the request cannot be understood.
    BadRequest,
    /// 404: no such path, service, backend or neighbour.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 408: the client did not send its body in time.
    RequestTimeout,
    /// 409: understood, but the node's state forbids it.
    Conflict,
    /// 413: the body is larger than the API takes.
    TooLarge,
    /// 422: understood, but the configuration it asks for is not valid.
    Unprocessable,
    /// 500: a defect in the node.
    Internal,
    /// 503: the part of the node that knows is not running (yet).
    Unavailable,
    /// 504: the node did not answer its own API in time.
    NodeTimeout,
}

/// A failed request: what went wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ApiError {
    pub kind: ErrorKind,
    /// What went wrong. One sentence without a full stop.
    pub error: String,
    /// What to do, or what would have been accepted.
    pub hint: String,
}

impl ApiError {
    pub fn new(kind: ErrorKind, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, error: error.into(), hint: hint.into() }
    }

    pub fn bad_request(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, error, hint)
    }

    /// `known` lists what does exist; it becomes the hint.
    pub fn not_found<T: ToString>(
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = T>,
    ) -> Self {
        Self::new(ErrorKind::NotFound, format!("no {what} {name}"), known_hint(what, known))
    }

    pub fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, error, hint)
    }

    /// The configuration is not valid; `error` names file, line and field.
    pub fn unprocessable(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unprocessable, error, hint)
    }

    pub fn unavailable(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, error, hint)
    }

    pub fn internal(error: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Internal,
            error,
            "this is a defect: journalctl -u dunlin has the details",
        )
    }

    pub const fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::NodeTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = ErrorBody { error: self.error, hint: self.hint };
        (status, Json(body)).into_response()
    }
}

/// Names listed in a hint; more would bury the sentence.
const LISTED: usize = 20;

fn known_hint<T: ToString>(what: &str, known: impl IntoIterator<Item = T>) -> String {
    let mut names: Vec<String> = known.into_iter().map(|name| name.to_string()).collect();
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match (names.is_empty(), more) {
        (true, _) => format!("no {what} is configured"),
        (false, 0) => format!("known: {}", names.join(", ")),
        (false, _) => format!("known: {} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_lists_what_exists_once_and_not_without_end() {
        let few = ApiError::not_found("service", "x", ["b", "a", "b"]);
        assert_eq!(few.error, "no service x");
        assert_eq!(few.hint, "known: a, b");
        let none = ApiError::not_found("service", "x", Vec::<String>::new());
        assert_eq!(none.hint, "no service is configured");
        let many = ApiError::not_found("backend", "x", (0..1000).map(|i| format!("b{i:04}")));
        assert!(many.hint.ends_with("b0019 and 980 more"), "{}", many.hint);
    }
}
