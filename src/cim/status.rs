//! CIM status codes: how an operation on the CIM model can fail (DSP0223 5.5, table of status codes).

/// A CIM status code. `provider` raises them, `wsman::fault` turns them into faults (rule F-22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 1: anything without a code of its own.
    Failed,
    /// 2
    AccessDenied,
    /// 3
    InvalidNamespace,
    /// 4
    InvalidParameter,
    /// 5
    InvalidClass,
    /// 6
    NotFound,
    /// 7
    NotSupported,
    /// 11
    AlreadyExists,
    /// 12
    NoSuchProperty,
    /// 13
    TypeMismatch,
    /// 14
    QueryLanguageNotSupported,
    /// 15
    InvalidQuery,
    /// 16
    MethodNotAvailable,
    /// 17
    MethodNotFound,
    /// 21
    InvalidEnumerationContext,
    /// 22
    InvalidOperationTimeout,
    /// 27
    ServerLimitsExceeded,
    /// 28
    ServerIsShuttingDown,
}

impl Status {
    /// The number of the code.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Failed => 1,
            Self::AccessDenied => 2,
            Self::InvalidNamespace => 3,
            Self::InvalidParameter => 4,
            Self::InvalidClass => 5,
            Self::NotFound => 6,
            Self::NotSupported => 7,
            Self::AlreadyExists => 11,
            Self::NoSuchProperty => 12,
            Self::TypeMismatch => 13,
            Self::QueryLanguageNotSupported => 14,
            Self::InvalidQuery => 15,
            Self::MethodNotAvailable => 16,
            Self::MethodNotFound => 17,
            Self::InvalidEnumerationContext => 21,
            Self::InvalidOperationTimeout => 22,
            Self::ServerLimitsExceeded => 27,
            Self::ServerIsShuttingDown => 28,
        }
    }
}
