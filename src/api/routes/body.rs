//! Bodies of requests: read whole, in time and up to a limit of size, then understood.

use crate::api::error::{ApiError, ErrorKind};
use crate::api::model::DrainRequest;
use axum::body::Bytes;
use axum::extract::Request;
use std::time::Duration;

/// Largest body of a request, bytes.
const MAX_BODY: usize = 64 * 1024;

/// From the headers to the end of a request's body.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn read(request: Request) -> Result<Bytes, ApiError> {
    let reading = axum::body::to_bytes(request.into_body(), MAX_BODY);
    match tokio::time::timeout(TIMEOUT, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(ApiError::new(
            ErrorKind::TooLarge,
            "the body is too large",
            format!("at most {MAX_BODY} bytes"),
        )),
        Ok(Err(error)) => Err(ApiError::bad_request(
            format!("the body did not arrive whole: {error}"),
            "send Content-Length bytes, or valid chunks",
        )),
        Err(_) => Err(ApiError::new(
            ErrorKind::RequestTimeout,
            "the body did not arrive in time",
            format!("send it within {} s", TIMEOUT.as_secs()),
        )),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

pub(super) fn drain_request(body: &[u8]) -> Result<DrainRequest, ApiError> {
    const EXPECTED: &str = r#"expected no body, or a JSON object like {"reason": "new kernel"}"#;
    if body.trim_ascii().is_empty() {
        return Ok(DrainRequest::default());
    }
    // An array would do as well for serde, but not for whoever reads the request later.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::bad_request("the body is not a JSON object", EXPECTED));
    }
    let request: DrainRequest = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("bad body: {error}"), EXPECTED))?;
    if request.reason.len() > DrainRequest::REASON_MAX {
        return Err(ApiError::bad_request(
            format!("the reason is {} bytes long", request.reason.len()),
            format!("at most {} bytes", DrainRequest::REASON_MAX),
        ));
    }
    Ok(request)
}

pub(super) fn no_body(body: &[u8]) -> Result<(), ApiError> {
    match body.trim_ascii() {
        b"" | b"{}" => Ok(()),
        _ => Err(ApiError::bad_request("this request takes no body", "expected no body, or {}")),
    }
}
