//! What a client asks beside instances of a class: associators of one machine and an XPath filter, at a thousand and at
//! many machines; and the declaration of a class over a Get of an instance.

use std::time::Instant;

use crate::process::Process;
use crate::{load, median, spread, subject, verdict};

/// A look-up among a hundred times the instances may take so many times as long.
const LOOK_UP_TIMES: f64 = 1.5;
/// The declaration of `Msvm_ComputerSystem` may take so many times as long as a Get of an instance.
const CLASS_TIMES: f64 = 3.0;

const XPATH: &str = "http://www.w3.org/TR/1999/REC-xpath-19991116";
const ASSOCIATIONS: &str = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
const CLASSES: &str = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*";

pub(crate) fn run(short: bool) {
    let (many, rounds) = if short { (10_000, 20) } else { (100_000, 200) };
    let (large, small) = (Process::start(many), Process::start(1000));
    let rows = [
        (
            "associators",
            filtered(ASSOCIATIONS, &walk("AssociatedInstances")),
        ),
        (
            "associations",
            filtered(ASSOCIATIONS, &walk("AssociationInstances")),
        ),
        (
            "XPath by ElementName",
            filtered(XPATH, "Msvm_ComputerSystem[ElementName = 'sim-000500']"),
        ),
    ];
    for (name, body) in rows {
        let (mut at_large, mut at_small) = (Vec::new(), Vec::new());
        // The first of each is not counted: it logs on, and makes the index.
        for round in 0..=rounds {
            for (server, times) in [(&large, &mut at_large), (&small, &mut at_small)] {
                let request = subject::post(server.address, &body);
                let took = ask(server, &request, Some(1));
                if round > 0 {
                    times.push(took);
                }
            }
        }
        let (low, high) = spread(at_large.clone());
        let (large, small) = (median(at_large), median(at_small));
        let growth = large / small;
        println!(
            "{name}: {large:.0} us ({low:.0}..{high:.0}) among {many}, {small:.0} us among 1000, \
             growth {growth:.2}, target <= {LOOK_UP_TIMES}: {}",
            verdict(growth <= LOOK_UP_TIMES)
        );
    }
    declaration(&small, rounds);
}

/// The declaration of a class beside an instance, by turns.
fn declaration(server: &Process, rounds: usize) {
    let (class, instance) = (
        subject::post(server.address, &class()),
        subject::get(server.address),
    );
    let (mut classes, mut instances) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        for (request, times) in [(&class, &mut classes), (&instance, &mut instances)] {
            let took = ask(server, request, None);
            if round > 0 {
                times.push(took);
            }
        }
    }
    let (low, high) = spread(classes.clone());
    let (class, instance) = (median(classes), median(instances));
    let times = class / instance;
    println!(
        "declaration of Msvm_ComputerSystem: {class:.0} us ({low:.0}..{high:.0}), Get of an instance {instance:.0} us, \
         ratio {times:.2}, target <= {CLASS_TIMES}: {}",
        verdict(times <= CLASS_TIMES)
    );
}

/// An Enumerate of every class with a filter, whose items come in one answer.
fn filtered(dialect: &str, filter: &str) -> String {
    let body = subject::recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/enumerate_wql.request.txt"
    ));
    let (start, rest) = body
        .split_once("<wsman:Filter Dialect=\"http://schemas.microsoft.com/wbem/wsman/1/WQL\">")
        .unwrap();
    let (_, end) = rest.split_once("</wsman:Filter>").unwrap();
    subject::roomy(&format!(
        "{start}<wsman:Filter Dialect=\"{dialect}\">{filter}</wsman:Filter>{end}"
    ))
}

/// From one machine to its settings, or to the link that leads there.
fn walk(kind: &str) -> String {
    let uri = format!("{}Msvm_ComputerSystem", subject::WMI);
    let limit = match kind {
        "AssociatedInstances" => {
            "<b:AssociationClassName>Msvm_SettingsDefineState</b:AssociationClassName>"
        }
        _ => "<b:ResultClassName>Msvm_SettingsDefineState</b:ResultClassName>",
    };
    format!(
        "<b:{kind} xmlns:b=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd\"><b:Object><wsa:Address/>\
         <wsa:ReferenceParameters><wsman:ResourceURI>{uri}</wsman:ResourceURI><wsman:SelectorSet>\
         <wsman:Selector Name=\"CreationClassName\">Msvm_ComputerSystem</wsman:Selector>\
         <wsman:Selector Name=\"Name\">5EED51B0-0000-4000-8000-0000000001F4</wsman:Selector>\
         </wsman:SelectorSet></wsa:ReferenceParameters></b:Object>{limit}</b:{kind}>"
    )
}

/// Get of the declaration of `Msvm_ComputerSystem`.
fn class() -> String {
    let body = subject::recorded(include_str!(
        "../fixtures/wire/pypsrp-basic/enumerate.request.txt"
    ));
    let selectors = "<wsman:SelectorSet><wsman:Selector Name=\"__cimnamespace\">root/virtualization/v2</wsman:Selector>\
                     <wsman:Selector Name=\"ClassName\">Msvm_ComputerSystem</wsman:Selector></wsman:SelectorSet></s:Header>";
    let (header, _) = body.split_once("<s:Body>").unwrap();
    let header = header
        .replace("2004/09/enumeration/Enumerate", "2004/09/transfer/Get")
        .replace(&format!("{}Msvm_ComputerSystem", subject::WMI), CLASSES)
        .replace("</s:Header>", selectors);
    subject::roomy(&format!("{header}<s:Body/></s:Envelope>"))
}

/// Microseconds of one request whose answer has so many items.
fn ask(server: &Process, request: &[u8], items: Option<usize>) -> f64 {
    let mut connection = load::Connection::open(server.address);
    let began = Instant::now();
    let (status, answer) = connection.exchange(request);
    let took = began.elapsed().as_secs_f64() * 1e6;
    assert_eq!(status, 200, "{answer}");
    if let Some(items) = items {
        assert_eq!(answer.matches("xsi:type=\"p:").count(), items, "{answer}");
    }
    took
}
