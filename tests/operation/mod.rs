//! `operation::Server` by the byte: envelopes in, envelopes out, over a small schema with a provider of its own.

mod enumeration;
mod fair;
mod invoke;
mod queries;
mod rig;
mod transfer;
