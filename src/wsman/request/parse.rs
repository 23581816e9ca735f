//! A whole request: its headers, then what it is about, then its body.

use crate::cim::Schema;
use crate::soap::{Envelope, ns};
use crate::text::Language;
use crate::text::catalog::wire;
use crate::wscim::epr::Names;
use crate::wsman::fault::{Extra, Fault, table};
use crate::wsman::uri::{Action, Family};

use super::headers::Blocks;
use super::{ClassOptions, Headers, Operation, Request, RequestLimits, body, target};

/// Reads the whole request.
pub(super) fn parse(
    envelope: &Envelope<'_>,
    schema: &Schema,
    limits: &RequestLimits,
    host: &str,
) -> Result<Request, Fault> {
    let payload = envelope.payload();
    if asks_identity(envelope) {
        return Ok(identify(limits));
    }
    if !envelope.has_header() {
        return Err(table::SCHEMA_VALIDATION_ERROR.fault(wire::NO_HEADER.text()));
    }
    let blocks = Blocks::sort(envelope)?;
    let headers = blocks.headers(limits)?;
    let action = Action::of(&headers.action);
    if action == Action::End {
        return Ok(Request {
            headers,
            operation: Operation::End,
        });
    }
    blocks.answerable()?;
    let to = blocks.to.map(|to| to.trimmed()).unwrap_or_default();
    let names = Names {
        own: &limits.host,
        to: &to,
        host,
    };
    let asked = target::Asked::new(&blocks, &headers, (schema, names), limits)?;
    let operation = match action {
        Action::Get => asked.get(),
        Action::Write => asked.write(),
        Action::Enumerate => asked.enumerate().and_then(|wanted| {
            body::enumerate(payload, wanted, &asked.scope(limits), &asked.reference())
        }),
        Action::Pull => body::pull(payload),
        Action::Release => body::release(payload),
        Action::Method(class, method) => {
            let (target, method) = asked.method(class, method)?;
            body::invoke(payload, target, method, &asked.reference())
        }
        Action::End => Ok(Operation::End),
        Action::NotOffered | Action::Unknown => Err(action_not_supported(&headers.action)),
    }?;
    Ok(Request { headers, operation })
}

/// Whether it is Identify, which anybody may ask.
pub(super) fn asks_identity(envelope: &Envelope<'_>) -> bool {
    let payload = envelope.payload();
    payload.is_some_and(|p| p.is(ns::IDENTITY, "Identify"))
}

fn action_not_supported(action: &str) -> Fault {
    table::ACTION_NOT_SUPPORTED
        .fault(wire::ACTION_NOT_SUPPORTED.with("action", action))
        .with(Extra::Action(action.to_owned()))
}

/// Identify needs no header; those that are there have no effect (rule O-1).
fn identify(limits: &RequestLimits) -> Request {
    Request {
        headers: Headers {
            message_id: None,
            action: String::new(),
            resource_uri: String::new(),
            family: Family::Dmtf,
            max_envelope_size: limits.max_envelope_size,
            timeout: limits.timeout,
            language: Language::default(),
            precise_arrays: false,
            show_types: false,
            class_options: ClassOptions::default(),
            wants_count: false,
            reply_parameters: String::new(),
        },
        operation: Operation::Identify,
    }
}
