//! WS-Management messages as types (DSP0226, DSP0227, MS-WSMV): what a client may ask, what it is told.
//!
//! [`request::Request::parse`] turns an envelope into a [`request::Request`] whose selectors and parameters
//! are typed against the schema; after it nobody looks at XML. `fault` is the only place that knows subcodes,
//! `uri` the only one that holds URIs.

pub mod config;
pub mod enumeration;
pub mod fault;
#[cfg(test)]
pub(crate) mod fixture;
pub mod identify;
pub mod request;
pub mod uri;
