//! Groupshot: a WS-Management server that takes a snapshot set of a whole collection of virtual machines.
//!
//! ```text
//!   client ──HTTP──▶ http/ ──bytes──▶ operation/ ──cim──▶ provider/ ──▶ snapshot/ ──▶ engine/
//!                     │ auth/           │ soap, wsman, wscim            │ job/  store/
//!                     ▼                 ▼                               ▼
//!                  Identity          Request / Fault               inventory records
//! ```
//!
//! Modules are in layers: a module may import from lower layers, and from modules that precede it within its own layer in
//! `LAYERS` of `tests/tidy.rs`, which enforces this. The path of one request is described in `ARCHITECTURE.md`.

#![cfg_attr(
    test,
    expect(
        clippy::string_slice,
        reason = "a test may fail by panicking; clippy.toml has no word for this lint"
    )
)]

// layer 0
pub mod audit;
pub mod clock;
pub mod document;
pub mod failpoint;
pub mod held;
pub mod id;
pub mod settings;
pub mod telemetry;
pub mod text;
// layer 1
pub mod cim;
pub mod inventory;
pub mod xml;
// layer 2
pub mod framing;
pub mod handler;
pub mod soap;
pub mod wscim;
pub mod wsman;
// layer 3
pub mod auth;
pub mod client;
pub mod doctor;
pub mod engine;
pub mod job;
pub mod snapshot;
pub mod store;
pub mod tls;
// layer 4
pub mod provider;
// layer 5
pub mod operation;
// layer 6
pub mod http;
// layer 7
pub mod cli;
pub mod config;
pub mod server;
