//! WS-Transfer Get: one instance, by its keys. DSP0226 7.3, rules.

use crate::cim::Path;
use crate::provider::{Error, Status};
use crate::soap::Vocabulary;
use crate::text::catalog::operation as texts;
use crate::wscim;
use crate::wsman::fault::{Fault, Tried, table};
use crate::wsman::request::Target;

use super::Server;
use super::exchange::Exchange;

/// The fault where no instance was found at `path`.
pub(super) fn unfound(error: Error, path: &Path) -> Fault {
    let kind = match error.status {
        Status::InvalidParameter if path.keys.is_empty() => &table::INVALID_URI_WMI_SINGLETON,
        Status::InvalidParameter if path.lacks_keys() => &table::INSUFFICIENT_SELECTORS,
        status => return Fault::from_status(status, error.text, Tried::Select),
    };
    kind.fault(error.text).because(error.status)
}

/// Answers with the instance that the selectors name.
pub(super) fn get(
    server: &Server,
    exchange: &Exchange<'_>,
    target: &Target,
) -> Result<String, Fault> {
    let found = server
        .registry
        .get(&exchange.context, &target.class, &target.path);
    // The work cannot be stopped halfway; a client that gave up meanwhile is told so (rule H-19).
    if server.left(exchange.headers, exchange.began).is_zero() {
        let limit = exchange.headers.timeout;
        let text = texts::GET_TIMED_OUT
            .with("class", &target.class.name)
            .with("seconds", limit.as_secs_f32());
        return Err(table::OPERATION_TIMEDOUT.fault(text));
    }
    let instance = found.map_err(|error| unfound(error, &target.path))?;
    let mut reply = exchange.reply(Vocabulary::Transfer);
    wscim::write_instance(reply.body(), &instance, None, exchange.headers.style());
    exchange.finish(reply)
}
