//! Rules that every answer keeps, whatever its golden file says.

use groupshot::xml;

use super::ask::ANONYMOUS;
use super::world::Reply;

/// What an answer does wrong.
pub(super) fn broken(reply: &Reply) -> Vec<String> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, what: &str| {
        if !holds {
            broken.push(what.to_owned());
        }
    };
    let text = reply.text.as_str();
    if text.is_empty() {
        rule(reply.status == 200, "H-42: an empty answer is a 200");
        rule(
            reply.content_type.is_empty(),
            "H-42: an empty answer has no media type",
        );
        return broken;
    }
    rule(xml::parse(text).is_ok(), "the answer is no XML");
    rule(
        text.starts_with("<s:Envelope xml:lang=\"en-US\" "),
        "N-1, N-3, N-5: the root element",
    );
    rule(!between_tags(text), "I-20: white space between elements");
    let charset = if reply.utf16 { "UTF-16" } else { "UTF-8" };
    let media = format!("application/soap+xml;charset={charset}");
    rule(reply.content_type == media, "T-7: Content-Type");
    let fault = text.contains("<s:Fault>");
    rule(reply.status == if fault { 500 } else { 200 }, "T-8: status");
    rule(!reply.leaks(), "F-24: a path of the server");
    if text.contains("<wsmid:IdentifyResponse") {
        rule(
            text.contains("<s:Header/>"),
            "O-1: Identify has an empty header",
        );
        return broken;
    }
    rule(headers_in_order(reply), "H-5: headers and their order");
    if fault {
        rule(
            fault_in_order(text),
            "F-3, F-4, F-12: parts of the fault and their order",
        );
        rule(known_action(text), "F-1: the fault's action");
    } else {
        let action = element(text, "a:Action").unwrap_or_default();
        rule(
            action == format!("{}Response", reply.asked_action),
            "I-10, H-5: the action",
        );
    }
    broken
}

/// The MessageID of an answer.
pub(super) fn message_id(text: &str) -> Option<&str> {
    element(text, "a:MessageID")
}

/// Text of the first element of that name.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let length = text[start..].find('<')?;
    Some(&text[start..start + length])
}

fn between_tags(text: &str) -> bool {
    text.split('>').skip(1).any(|part| {
        let gap = part.split('<').next().unwrap_or_default();
        // Text that is white space only would look the same; no answer here holds such a value.
        !gap.is_empty() && gap.trim().is_empty()
    })
}

fn headers_in_order(reply: &Reply) -> bool {
    let text = reply.text.as_str();
    let Some(header) = text
        .split_once("<s:Header>")
        .and_then(|(_, h)| h.split_once("</s:Header>"))
    else {
        return false;
    };
    let names = [
        "<a:Action>",
        "<a:MessageID>uuid:",
        "<a:To>",
        "<a:RelatesTo>",
    ];
    let places: Vec<_> = names.iter().map(|n| header.0.find(n)).collect();
    let to = element(text, "a:To") == Some(ANONYMOUS);
    let relates = element(text, "a:RelatesTo") == reply.asked_message_id.as_deref();
    let upper = message_id(text).is_some_and(|id| {
        let guid = &id["uuid:".len()..];
        guid.len() == 36 && guid.to_uppercase() == guid
    });
    let wanted = if reply.asked_message_id.is_some() {
        4
    } else {
        3
    };
    let found: Vec<_> = places.into_iter().flatten().collect();
    to && relates && upper && found.len() == wanted && found.is_sorted()
}

fn fault_in_order(text: &str) -> bool {
    let parts = [
        "<s:Fault><s:Code><s:Value>s:",
        "</s:Code><s:Reason><s:Text xml:lang=\"en-US\">",
        "</s:Text></s:Reason><s:Detail>",
        "<f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"",
        "\" Machine=\"HV01\"><f:Message>",
        "</f:Message></f:WSManFault></s:Detail></s:Fault></s:Body></s:Envelope>",
    ];
    let places: Vec<_> = parts.iter().filter_map(|p| text.find(p)).collect();
    let detail =
        text.find("<w:FaultDetail>http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/");
    let detail_first = match (detail, text.find("<w:FaultDetail>")) {
        (Some(at), _) => {
            places.last().is_some_and(|end| at < *end) && places[2] < at && at < places[3]
        }
        (None, other) => other.is_none(),
    };
    let says = element(text, "f:Message").is_some_and(|m| !m.is_empty());
    places.len() == parts.len() && places.is_sorted() && detail_first && says
}

fn known_action(text: &str) -> bool {
    let Some(action) = element(text, "a:Action") else {
        return false;
    };
    let subcode = text
        .split_once("<s:Subcode><s:Value>")
        .and_then(|(_, rest)| rest.split(':').next());
    let omi = text.contains("OMI_Error");
    match (action, subcode) {
        ("http://schemas.xmlsoap.org/ws/2004/08/addressing/fault", None | Some("a")) => true,
        ("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", Some("w" | "b")) => true,
        // InvalidTimeout is WS-Management's own detail of WS-Addressing's subcode (table of 3.2).
        ("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", Some("a")) => {
            text.contains("faultDetail/InvalidTimeout")
        }
        ("http://schemas.xmlsoap.org/ws/2004/09/enumeration/fault", Some("n")) => !omi,
        // Rule F-2: OMI's client knows no other.
        ("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", Some("n")) => true,
        ("http://schemas.xmlsoap.org/ws/2004/09/transfer/fault", Some("x")) => true,
        _ => false,
    }
}
