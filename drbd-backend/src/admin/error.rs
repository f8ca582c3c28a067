//! Errors as JSON: every one of them, also of routes, methods and bodies that there are not.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What kind of error it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    NotFound,
    /// Somebody uses it.
    InUse,
    /// It has to wait for something; nothing proves yet that it would be safe.
    Held,
    /// The replica says no.
    Refused,
    Invalid,
    /// Something else is there.
    Conflict,
    /// Another node, or the arbiter, does not answer.
    Unreachable,
    Forbidden,
    Internal,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::InUse | Self::Held | Self::Refused | Self::Conflict => StatusCode::CONFLICT,
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What could not be done and why, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    pub code: Code,
    pub message: String,
    pub remedy: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Form {
    error: Inside,
}

#[derive(Debug, Serialize, Deserialize)]
struct Inside {
    code: Code,
    message: String,
    remedy: Option<String>,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { status: code.status(), code, message: message.into(), remedy: None }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub fn held(message: impl Into<String>) -> Self {
        Self::new(Code::Held, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Code::Refused, message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Code::Unreachable, message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// The same, in the words of whoever asked for more.
    #[must_use]
    pub fn within(self, story: impl std::fmt::Display) -> Self {
        Self { message: format!("{story}: {}", self.message), ..self }
    }

    /// What another node answered, as it said it.
    #[must_use]
    pub fn of_answer(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice::<Form>(body) {
            Ok(Form { error: Inside { code, message, remedy } }) => Self { status, code, message, remedy },
            Err(_) => Self::internal(format!("another node answered {status}, and not in our form")),
        }
    }

    /// An error of ours, with its causes.
    pub fn of(error: &dyn std::error::Error) -> Self {
        let mut story = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            story = format!("{story}: {error}");
            cause = error.source();
        }
        tracing::error!(error = story, "a request could not be answered");
        Self::internal(story)
    }
}

impl From<crate::arbiter::Failure> for Problem {
    fn from(failure: crate::arbiter::Failure) -> Self {
        Self::unreachable(failure.to_string()).remedy("`tandem arbiter status` shows how the arbiter is")
    }
}

impl From<super::dead::BookError> for Problem {
    fn from(error: super::dead::BookError) -> Self {
        Self::of(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, message, remedy } = self;
        (status, Json(Form { error: Inside { code, message, remedy } })).into_response()
    }
}

/// A JSON body; whatever is wrong with it is said in our form. axum tells JSON that is none (400) from JSON that does not fit (422); here both are 400.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Json::from_request(request, state).await.map(|Json(body)| Self(body)).map_err(|rejection: JsonRejection| {
            let status = match rejection.status() {
                StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                status => status,
            };
            Problem { status, ..Problem::invalid(rejection.body_text()) }
        })
    }
}

/// What stands in the path's braces.
#[derive(Debug)]
pub(super) struct InPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = axum::extract::Path::from_request_parts(parts, state).await;
        found
            .map(|axum::extract::Path(path)| Self(path))
            .map_err(|rejection: PathRejection| Problem::invalid(rejection.body_text()))
    }
}

/// What stands behind the question mark.
#[derive(Debug)]
pub(super) struct InQuery<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = axum::extract::Query::from_request_parts(parts, state).await;
        found
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection: QueryRejection| Problem::invalid(rejection.body_text()))
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path())).remedy("GET /v1/openapi.json has all there is")
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let message = format!("{} does not take {method}", uri.path());
    Problem { status: StatusCode::METHOD_NOT_ALLOWED, ..Problem::invalid(message) }
        .remedy("the header Allow says what it takes")
}
