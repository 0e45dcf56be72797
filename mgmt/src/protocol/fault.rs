//! Why a request got no result.

use serde_json::{Value, json};

use crate::desired;

/// The kinds of failure, each with its JSON-RPC code and a stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Not JSON.
    Parse,
    /// JSON, but not a JSON-RPC 2.0 request.
    InvalidRequest,
    /// No such method.
    UnknownMethod,
    /// A parameter is unknown, missing or of the wrong form.
    InvalidParameters,
    /// The director failed, not the client.
    Internal,
    /// The desired state refuses the change; `data.name` and `data.errno` say why.
    Refused,
    /// This client may only look.
    Forbidden,
    /// Too much to do just now; try again.
    Busy,
    /// All places for clients are taken.
    TooManyClients,
    /// A line over the limit; the connection is closed.
    LineTooLong,
    /// Nothing was asked for too long, or a line took too long; the connection is closed.
    Idle,
    /// The director is going down.
    Stopping,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Parse,
        Self::InvalidRequest,
        Self::UnknownMethod,
        Self::InvalidParameters,
        Self::Internal,
        Self::Refused,
        Self::Forbidden,
        Self::Busy,
        Self::TooManyClients,
        Self::LineTooLong,
        Self::Idle,
        Self::Stopping,
    ];

    /// `error.code`; -32700 to -32603 are JSON-RPC's own.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Parse => -32_700,
            Self::InvalidRequest => -32_600,
            Self::UnknownMethod => -32_601,
            Self::InvalidParameters => -32_602,
            Self::Internal => -32_603,
            Self::Refused => -32_000,
            Self::Forbidden => -32_001,
            Self::Busy => -32_002,
            Self::TooManyClients => -32_003,
            Self::LineTooLong => -32_004,
            Self::Idle => -32_005,
            Self::Stopping => -32_006,
        }
    }

    /// `error.data.name`, unless a refusal has a closer one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::InvalidRequest => "invalid_request",
            Self::UnknownMethod => "unknown_method",
            Self::InvalidParameters => "invalid_parameters",
            Self::Internal => "internal",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
            Self::Busy => "busy",
            Self::TooManyClients => "too_many_clients",
            Self::LineTooLong => "line_too_long",
            Self::Idle => "idle",
            Self::Stopping => "stopping",
        }
    }
}

/// A failure with its sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// A sentence for people.
    pub message: String,
    /// A stable name for programs.
    pub name: &'static str,
    /// The kernel's error number for the same refusal.
    pub errno: Option<&'static str>,
    /// Byte in the line, from 1, where it stopped making sense.
    pub column: Option<usize>,
}

impl Fault {
    /// A failure of a kind.
    #[must_use]
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), name: kind.name(), errno: None, column: None }
    }

    /// The JSON-RPC error object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut data = json!({ "name": self.name });
        if let Some(errno) = self.errno {
            data["errno"] = errno.into();
        }
        if let Some(column) = self.column {
            data["column"] = column.into();
        }
        json!({ "code": self.kind.code(), "message": self.message, "data": data })
    }
}

impl From<desired::Refusal> for Fault {
    fn from(refusal: desired::Refusal) -> Self {
        let (name, errno) = refusal.code();
        let message = refusal.to_string();
        Self { kind: FaultKind::Refused, message, name, errno: Some(errno), column: None }
    }
}
