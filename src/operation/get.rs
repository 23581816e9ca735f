//! WS-Transfer Get: one instance, by its keys. DSP0226 7.3, rules.

use crate::provider::Status;
use crate::soap::Vocabulary;
use crate::text::catalog::operation as texts;
use crate::wscim;
use crate::wsman::fault::{Fault, Tried, table};
use crate::wsman::request::Target;

use super::Server;
use super::exchange::Exchange;

/// Answers with the instance that the selectors name, or with the only one of its class.
pub(super) fn get(
    server: &Server,
    exchange: &Exchange<'_>,
    target: &Target,
) -> Result<String, Fault> {
    let (began, limit) = (server.clock.elapsed(), exchange.headers.timeout);
    let found = server.registry.get(&exchange.context, &target.path);
    // The work cannot be stopped halfway; a client that gave up meanwhile is told so (rule H-19).
    if server.clock.elapsed().saturating_sub(began) > limit {
        let text = texts::GET_TIMED_OUT
            .with("class", &target.class.name)
            .with("seconds", limit.as_secs_f32());
        return Err(table::OPERATION_TIMEDOUT.fault(text));
    }
    let instance = found.map_err(|error| {
        if error.status == Status::InvalidParameter && target.path.keys.is_empty() {
            return table::INVALID_URI_WMI_SINGLETON
                .fault(error.text)
                .because(error.status);
        }
        Fault::from_status(error.status, error.text, Tried::Select)
    })?;
    let mut reply = exchange.reply(Vocabulary::Transfer);
    wscim::write_instance(reply.body(), &instance, None, exchange.headers.style());
    exchange.finish(reply)
}
