//! What is asked, taken apart: paths, queries, bodies. Whatever is wrong with them is said in a sentence.

use super::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// The one variable part of the path, decoded.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let named = Path::<String>::from_request_parts(parts, state).await;
        named.map(|Path(name)| Self(name)).map_err(|refusal| ApiError::new(refusal.status(), refusal.body_text()))
    }
}

/// The query, in its order.
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        pairs.map(|Query(pairs)| Self(pairs)).map_err(|refusal| ApiError::new(refusal.status(), refusal.body_text()))
    }
}

/// A JSON body, whatever its Content-Type says; no body is `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|refusal| ApiError::new(refusal.status(), refusal.body_text()))?;
        let bytes: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        let asked = serde_json::from_slice(bytes);
        asked.map(Self).map_err(|error| ApiError::bad_request(format!("the body cannot be understood: {error}")))
    }
}

/// It stands in the timeline and the log afterwards, as one line.
pub(super) fn reason(text: &str) -> Result<&str, ApiError> {
    const LONGEST_CHARS: usize = 1000;
    let text = text.trim();
    if text.is_empty() {
        return Err(ApiError::bad_request("reason: say why; it is recorded"));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::bad_request("reason: one line without control characters"));
    }
    if text.chars().count() > LONGEST_CHARS {
        return Err(ApiError::bad_request(format!("reason: at most {LONGEST_CHARS} characters")));
    }
    Ok(text)
}
