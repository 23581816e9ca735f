//! The one test binary. Each module holds one boundary or one promise; helpers stand in `support`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::allow_attributes,
    missing_docs,
    reason = "a test may fail by panicking, and it may ask the host for the time"
)]

mod bad_input;
mod churn;
mod commands;
mod disks;
mod documents;
mod engines;
mod export;
mod flows;
mod fuzz_regression;
mod golden;
mod guests;
mod http;
mod kill;
mod links;
mod model;
mod network;
mod operation;
mod provider;
mod relocate;
mod replay;
mod running;
mod schema;
mod snapshot;
mod start;
mod support;
mod tidy;
mod tls;
