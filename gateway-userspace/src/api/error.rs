//! Failures as the socket tells them: a code for programs, a sentence for people, the way out, and an HTTP status.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::types::{ErrorAnswer, ErrorBody, SCHEMA, code};
use crate::{kernel::KernelError, policy::PolicyErrors};

/// Why a request changed nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of [`code`].
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// One line a fault, where there are several.
    pub details: Vec<String>,
}

impl Failure {
    /// A failure of kind `code`.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            details: Vec::new(),
        }
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_REQUEST, message)
    }

    /// What it names is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(code::NOT_FOUND, message)
    }

    /// A fault that is not the caller's.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds one line a fault.
    #[must_use]
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    fn status(&self) -> StatusCode {
        match self.code {
            code::INVALID_REQUEST => StatusCode::BAD_REQUEST,
            code::FORBIDDEN => StatusCode::FORBIDDEN,
            code::NOT_FOUND => StatusCode::NOT_FOUND,
            code::METHOD_NOT_ALLOWED => StatusCode::METHOD_NOT_ALLOWED,
            code::CONFLICT => StatusCode::CONFLICT,
            code::TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            code::TIMEOUT => StatusCode::REQUEST_TIMEOUT,
            code::INVALID_POLICY | code::NO_EFFECT | code::REFUSED => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status();
        let error = ErrorBody {
            code: self.code.into(),
            message: self.message,
            hint: self.hint,
            details: self.details,
        };
        (
            status,
            Json(ErrorAnswer {
                schema: SCHEMA,
                error,
            }),
        )
            .into_response()
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let code = match &error {
            KernelError::TooLarge { .. } => code::TOO_LARGE,
            KernelError::NoService { .. } | KernelError::NoInterface { .. } => code::NOT_FOUND,
            KernelError::Locked { .. }
            | KernelError::Occupied { .. }
            | KernelError::NotPinned { .. }
            | KernelError::Pending
            | KernelError::NotPending => code::CONFLICT,
            _ => code::INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}

impl From<PolicyErrors> for Failure {
    fn from(errors: PolicyErrors) -> Self {
        let details: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
        let message = match details.as_slice() {
            [only] => format!("the policy is invalid: {only}"),
            _ => format!("the policy has {} errors", errors.count()),
        };
        Self::new(code::INVALID_POLICY, message)
            .hint("what was in force stays in force; mend the file and apply it again")
            .details(details)
    }
}
