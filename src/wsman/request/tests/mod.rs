//! Requests by rule: each header, selector and body element once right and once wrong.

mod bad_input;
mod bodies;
mod captures;
mod headers;
mod invoke;
mod selectors;
