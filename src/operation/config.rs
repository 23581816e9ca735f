//! Get of `winrm/config`: the limits and switches as Windows' service names them. MS-WSMV, rule Q-20.

use crate::soap::Vocabulary;
use crate::wsman::config::{self, Part, WinrmConfig};
use crate::wsman::fault::Fault;

use super::Server;
use super::exchange::{Exchange, ITEMS_MAX};

/// Answers with the configuration that is in force, or a part of it.
pub(super) fn get(server: &Server, exchange: &Exchange<'_>, part: Part) -> Result<String, Fault> {
    let settings = &server.settings;
    let contexts = server.contexts.limits();
    let config = WinrmConfig {
        max_envelope_size: settings.limits.max_envelope_size,
        timeout: settings.limits.timeout,
        max_batch_items: ITEMS_MAX,
        max_operations_per_user: contexts.per_user,
        enumeration_timeout: contexts.idle,
        max_connections: settings.connections,
        allow_unencrypted: settings.allow_unencrypted,
        basic: settings.basic,
        certificate: settings.client_certificates,
        negotiate: false,
        kerberos: false,
    };
    let mut reply = exchange.reply(Vocabulary::Transfer);
    config::write(reply.body(), &config, part);
    exchange.finish(reply)
}
