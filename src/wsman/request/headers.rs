//! The header blocks of a request, rule by rule (H-3, H-4, H-10 to H-32).

use std::borrow::Cow;
use std::time::Duration;

use crate::cim::DateTime;
use crate::soap::{Envelope, must_understand, ns};
use crate::text::Language;
use crate::text::catalog::wire;
use crate::wsman::fault::{Extra, Fault, table};
use crate::wsman::uri::{Family, LENGTH_MAX, WMI, strip_prefix};
use crate::xml::{Element, Writer, XML_NAMESPACE};

use super::{ClassOptions, Headers, RequestLimits};

/// Smallest MaxEnvelopeSize that a client may ask for (rule H-20).
pub(super) const ENVELOPE_MIN: usize = 8192;
/// Most bytes of all copies of reference parameters, which go back with every answer.
const PARAMETERS_MAX: usize = 32 * 1024;
/// Most options of a request.
const OPTIONS_MAX: usize = 256;

/// The header blocks that are looked at, by what they are.
#[derive(Debug, Default)]
pub(super) struct Blocks<'d> {
    pub(super) to: Option<Element<'d>>,
    action: Option<Element<'d>>,
    message_id: Option<Element<'d>>,
    reply_to: Option<Element<'d>>,
    fault_to: Option<Element<'d>>,
    pub(super) resource_uri: Option<Element<'d>>,
    pub(super) selector_set: Option<Element<'d>>,
    option_set: Option<Element<'d>>,
    max_envelope_size: Option<Element<'d>>,
    operation_timeout: Option<Element<'d>>,
    locale: Option<Element<'d>>,
    data_locale: Option<Element<'d>>,
    fragment_transfer: Option<Element<'d>>,
    count_estimate: Option<Element<'d>>,
    activity_id: Option<Element<'d>>,
    /// Understood, and of no effect.
    ignored: Option<Element<'d>>,
}

impl<'d> Blocks<'d> {
    /// Sorts the header blocks.
    ///
    /// # Errors
    /// A known block stands twice (rule H-4), or an unknown one must be understood (rule H-3).
    pub(super) fn sort(envelope: &Envelope<'d>) -> Result<Self, Fault> {
        let mut blocks = Self::default();
        for block in envelope.headers() {
            let Some((slot, once)) = blocks.slot(block) else {
                if must_understand(block) {
                    return Err(not_understood(block));
                }
                continue;
            };
            if once && slot.is_some() {
                let text = wire::HEADER_TWICE.with("header", block.local());
                return Err(table::INVALID_MESSAGE_INFORMATION_HEADER.fault(text));
            }
            *slot = Some(block);
        }
        Ok(blocks)
    }

    /// Where a block belongs, and whether it may stand only once.
    fn slot(&mut self, block: Element<'d>) -> Option<(&mut Option<Element<'d>>, bool)> {
        let slot = match (block.namespace(), block.local()) {
            (ns::ADDRESSING, local) => match local {
                "To" => &mut self.to,
                "Action" => &mut self.action,
                "MessageID" => &mut self.message_id,
                "ReplyTo" => &mut self.reply_to,
                "FaultTo" => &mut self.fault_to,
                "From" | "RelatesTo" => return Some((&mut self.ignored, false)),
                _ => return None,
            },
            (ns::WSMAN, local) => match local {
                "ResourceURI" => &mut self.resource_uri,
                "SelectorSet" => &mut self.selector_set,
                "OptionSet" => &mut self.option_set,
                "MaxEnvelopeSize" => &mut self.max_envelope_size,
                "OperationTimeout" => &mut self.operation_timeout,
                "Locale" => &mut self.locale,
                "FragmentTransfer" => &mut self.fragment_transfer,
                "RequestTotalItemsCountEstimate" => &mut self.count_estimate,
                "RequestEPR" => return Some((&mut self.ignored, false)),
                _ => return None,
            },
            (ns::MICROSOFT, local) => match local {
                "DataLocale" => &mut self.data_locale,
                "ActivityId" => &mut self.activity_id,
                "SessionId" | "OperationID" | "SequenceId" | "CompressionType" | "Profile"
                | "MachineID" | "Freshness" => return Some((&mut self.ignored, false)),
                _ => return None,
            },
            _ => return None,
        };
        Some((slot, true))
    }
}

fn not_understood(block: Element<'_>) -> Fault {
    let text = wire::HEADER_NOT_UNDERSTOOD.with("header", block.local());
    table::SOAP_FAULT_MUST_UNDERSTAND
        .fault(text)
        .with(Extra::NotUnderstood {
            namespace: block.namespace().to_owned(),
            local: block.local().to_owned(),
        })
}

/// Is it longer than a URI or an id may be?
pub(super) fn is_too_long(text: &str) -> bool {
    text.len() > LENGTH_MAX && text.chars().count() > LENGTH_MAX
}

/// `a:MessageID` of a request that is refused, as far as it can be read (rule F-5).
pub(super) fn message_id(envelope: &Envelope<'_>) -> Option<String> {
    let block = addressing(envelope, "MessageID")?;
    let id = block.trimmed();
    (!id.is_empty() && id.len() <= LENGTH_MAX).then(|| id.into_owned())
}

/// The header blocks that a request that is refused wants returned, as markup; empty where they are too long.
pub(super) fn reply_parameters(envelope: &Envelope<'_>) -> String {
    let parameters = addressing(envelope, "ReplyTo").map(parameters);
    parameters.and_then(Result::ok).unwrap_or_default()
}

/// The time of an operation: what a request wants, no longer than the limit, which also counts where it wants nothing
/// that can be read (rule H-19).
pub(super) fn time(envelope: &Envelope<'_>, limits: &RequestLimits) -> Duration {
    let mut blocks = envelope.headers();
    let block = blocks.find(|b| b.is(ns::WSMAN, "OperationTimeout"));
    block
        .and_then(duration)
        .map_or(limits.timeout, |time| time.min(limits.timeout))
}

/// How large the fault for a request that is refused may be, if it says so (rule H-20): the least that one may allow where
/// that makes no sense.
pub(super) fn fault_size(envelope: &Envelope<'_>, limits: &RequestLimits) -> Option<usize> {
    let mut blocks = envelope.headers();
    let block = blocks.find(|b| b.is(ns::WSMAN, "MaxEnvelopeSize"))?;
    let size = octets(&block.trimmed()).unwrap_or(ENVELOPE_MIN);
    Some(size.min(limits.max_envelope_size).max(ENVELOPE_MIN))
}

/// Digits that do not fit are a large number.
fn octets(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}

fn duration(block: Element<'_>) -> Option<Duration> {
    let time = DateTime::parse_duration(&block.trimmed())?.to_duration()?;
    (!time.is_zero()).then_some(time)
}

/// What a request that is refused is answered in (rule H-21).
pub(super) fn language(envelope: &Envelope<'_>) -> Language {
    let block = envelope.headers().find(|b| b.is(ns::WSMAN, "Locale"));
    Language::best(block.and_then(lang))
}

/// The text of `a:To`; empty if there is none.
pub(super) fn to<'d>(envelope: &Envelope<'d>) -> Cow<'d, str> {
    addressing(envelope, "To").map_or(Cow::Borrowed(""), |to| to.trimmed())
}

fn addressing<'d>(envelope: &Envelope<'d>, local: &str) -> Option<Element<'d>> {
    envelope.headers().find(|b| b.is(ns::ADDRESSING, local))
}

/// Copies of the reference parameters of an address (rule H-13).
fn parameters(address: Element<'_>) -> Result<String, Fault> {
    let of = |local| address.child(ns::ADDRESSING, local).into_iter();
    let mut all = of("ReferenceProperties")
        .chain(of("ReferenceParameters"))
        .flat_map(|set| set.children());
    let mut w = Writer::new();
    if all.all(|parameter| w.copy(parameter, PARAMETERS_MAX)) {
        return Ok(w.into_string());
    }
    let text = wire::PARAMETERS_TOO_LONG.with("max", PARAMETERS_MAX);
    Err(table::ENCODING_LIMIT.fault(text))
}

/// The family of a resource URI; of one that is of none, the DMTF family.
pub(super) fn family(resource_uri: &str) -> Family {
    match strip_prefix(resource_uri, WMI) {
        Some(_) => Family::Wmi,
        None => Family::Dmtf,
    }
}

impl Blocks<'_> {
    pub(super) fn headers(&self, limits: &RequestLimits) -> Result<Headers, Fault> {
        let message_id = required(self.message_id, "a:MessageID")?.trimmed();
        if message_id.is_empty() || is_too_long(&message_id) {
            let text = wire::MESSAGE_ID.with("max", LENGTH_MAX);
            return Err(table::INVALID_MESSAGE_INFORMATION_HEADER.fault(text));
        }
        required(self.to, "a:To")?;
        let action = required(self.action, "a:Action")?.trimmed();
        if is_too_long(&action) {
            let text = wire::ACTION_TOO_LONG.with("max", LENGTH_MAX);
            return Err(table::INVALID_MESSAGE_INFORMATION_HEADER.fault(text));
        }
        let options = self.options()?;
        self.refuse_what_is_not_offered()?;
        let resource_uri = self
            .resource_uri
            .map_or_else(String::new, |b| b.trimmed().into_owned());
        Ok(Headers {
            message_id: Some(message_id.into_owned()),
            action: action.into_owned(),
            family: family(&resource_uri),
            resource_uri,
            max_envelope_size: self.max_envelope_size(limits)?,
            timeout: self.timeout(limits)?,
            language: Language::best(self.locale.and_then(lang)),
            precise_arrays: options.precise_arrays,
            show_types: options.show_types,
            class_options: options.classes,
            wants_count: self.count_estimate.is_some(),
            reply_parameters: self.reply_to.map_or(Ok(String::new()), parameters)?,
        })
    }

    /// ReplyTo and FaultTo must say that the answer goes back on the connection (rules H-13, H-14).
    pub(super) fn answerable(&self) -> Result<(), Fault> {
        anonymous(required(self.reply_to, "a:ReplyTo")?, "a:ReplyTo")?;
        match self.fault_to {
            Some(fault_to) => anonymous(fault_to, "a:FaultTo"),
            None => Ok(()),
        }
    }

    fn max_envelope_size(&self, limits: &RequestLimits) -> Result<usize, Fault> {
        let Some(block) = self.max_envelope_size else {
            return Ok(limits.max_envelope_size);
        };
        let text = block.trimmed();
        let Some(size) = octets(&text) else {
            let text = wire::MAX_ENVELOPE_SIZE.with("value", text);
            return Err(table::MAX_ENVELOPE_SIZE.fault(text));
        };
        if size < ENVELOPE_MIN {
            let text = wire::MIN_ENVELOPE_SIZE
                .with("value", size)
                .with("min", ENVELOPE_MIN);
            return Err(table::MIN_ENVELOPE_SIZE.fault(text));
        }
        Ok(size.min(limits.max_envelope_size))
    }

    fn timeout(&self, limits: &RequestLimits) -> Result<Duration, Fault> {
        let Some(block) = self.operation_timeout else {
            return Ok(limits.timeout);
        };
        let time = duration(block).map(|time| time.min(limits.timeout));
        time.ok_or_else(|| {
            let text = wire::OPERATION_TIMEOUT.with("value", block.trimmed());
            table::INVALID_TIMEOUT_HEADER.fault(text)
        })
    }

    /// Features that a request demands and that are not there (rules H-21, H-22, H-28, H-31).
    fn refuse_what_is_not_offered(&self) -> Result<(), Fault> {
        let demanded = |block: Option<Element<'_>>| {
            block
                .filter(|b| must_understand(*b))
                .map(|b| lang(b).unwrap_or_default().to_owned())
                .filter(|language| !Language::has(language))
        };
        if let Some(language) = demanded(self.locale) {
            let text = wire::LOCALE.with("language", language);
            return Err(table::MUSTUNDERSTAND_ON_LOCALE_UNSUPPORTED.fault(text));
        }
        if let Some(language) = demanded(self.data_locale) {
            let text = wire::LOCALE.with("language", language);
            return Err(table::DATA_LOCALE_UNSUPPORTED.fault(text));
        }
        if let Some(block) = self.fragment_transfer {
            return Err(if must_understand(block) {
                table::FRAGMENT_TRANSFER_NOT_SUPPORTED.fault(wire::FRAGMENT_TRANSFER.text())
            } else {
                table::INVALID_MESSAGE_INFORMATION_HEADER.fault(wire::FRAGMENT_OPTIONAL.text())
            });
        }
        let too_long = |b: Element<'_>| is_too_long(&b.trimmed());
        if self.activity_id.is_some_and(too_long) {
            let text = wire::ACTIVITY_ID.with("max", LENGTH_MAX);
            return Err(table::INVALID_MESSAGE_INFORMATION_HEADER.fault(text));
        }
        Ok(())
    }

    fn options(&self) -> Result<Options, Fault> {
        let mut options = Options::default();
        let Some(set) = self.option_set else {
            return Ok(options);
        };
        let all = set.children().filter(|e| e.is(ns::WSMAN, "Option"));
        for (n, option) in all.enumerate() {
            if n == OPTIONS_MAX {
                let text = wire::TOO_MANY_OPTIONS.with("max", OPTIONS_MAX);
                return Err(table::OPTION_LIMIT.fault(text));
            }
            let Some(name) = option.attribute("", "Name") else {
                return Err(table::OPTIONS_INVALID_NAME.fault(wire::OPTION_NO_NAME.text()));
            };
            let on = || {
                let text = option.trimmed();
                text.eq_ignore_ascii_case("true") || text == "1"
            };
            match name {
                "msftwinrm:UsePreciseArrays" => options.precise_arrays = on(),
                "ShowExtensions" => options.show_types = on(),
                name if options.classes.set(name, &on) => {}
                // Windows carries out CIM requests whatever other options say (rule H-23).
                _ => {}
            }
        }
        Ok(options)
    }
}

impl Blocks<'_> {
    /// For a resource that has no options: refuses one that the sender insists on (rule H-23).
    pub(super) fn insist_on_no_option(&self) -> Result<(), Fault> {
        let options = self.option_set.into_iter().flat_map(|set| set.children());
        let insists = |e: &Element<'_>| {
            let must = e.attribute("", "MustComply");
            e.is(ns::WSMAN, "Option") && matches!(must.map(str::trim), Some("true" | "1"))
        };
        let Some(option) = options.into_iter().find(insists) else {
            return Ok(());
        };
        let name = option.attribute("", "Name").unwrap_or_default();
        Err(table::OPTIONS_NOT_SUPPORTED.fault(wire::OPTION_MUST_COMPLY.with("option", name)))
    }
}

/// The options that have an effect (rules H-24, H-25, C-4).
#[derive(Debug, Default)]
struct Options {
    precise_arrays: bool,
    show_types: bool,
    classes: ClassOptions,
}

/// A header of WS-Addressing that must be there.
fn required<'d>(block: Option<Element<'d>>, header: &str) -> Result<Element<'d>, Fault> {
    block.ok_or_else(|| {
        let text = wire::HEADER_MISSING.with("header", header);
        table::MESSAGE_INFORMATION_HEADER_REQUIRED.fault(text)
    })
}

fn anonymous(block: Element<'_>, header: &str) -> Result<(), Fault> {
    let Some(address) = block.child(ns::ADDRESSING, "Address") else {
        let text = wire::NO_ADDRESS.with("header", header);
        return Err(table::INVALID_MESSAGE_INFORMATION_HEADER.fault(text));
    };
    let address = address.trimmed();
    if ns::is_anonymous(&address) {
        return Ok(());
    }
    let text = wire::NOT_ANONYMOUS
        .with("header", header)
        .with("address", address);
    Err(table::UNSUPPORTED_ADDRESSING_MODE.fault(text))
}

fn lang<'d>(block: Element<'d>) -> Option<&'d str> {
    block.attribute(XML_NAMESPACE, "lang")
}
