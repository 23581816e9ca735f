//! Pages: what they hold, how they end, and that they never exceed what the client takes.

use std::convert::Infallible;

use super::*;
use crate::soap::ns;
use crate::wsman::fixture::{DMTF, V2, schema};
use crate::wsman::uri::Family;
use crate::xml::parse;

const HEADERS: ReplyHeaders<'static> = ReplyHeaders {
    action: "http://schemas.xmlsoap.org/ws/2004/09/enumeration/PullResponse",
    message_id: "uuid:2",
    relates_to: Some("uuid:1"),
    reply_parameters: "",
};

fn budget(items: usize, octets: usize) -> Budget {
    Budget {
        items,
        octets,
        characters: None,
        charset: Charset::Utf8,
    }
}

fn push(page: &mut Page, markup: &str) -> bool {
    page.push(|w| {
        w.raw(markup);
        Ok::<(), Infallible>(())
    })
    .unwrap()
}

/// The body of an envelope, without the frame.
fn body(envelope: &str) -> &str {
    let from = envelope.find("<s:Body>").unwrap() + "<s:Body>".len();
    &envelope[from..envelope.find("</s:Body>").unwrap()]
}

#[test]
fn e_5_a_plain_enumerate_answers_the_context_only() {
    let page = Page::enumerate(
        &HEADERS,
        false,
        "uuid:C",
        None,
        Count::Unasked,
        budget(9, 9999),
    );
    assert!(page.is_full(), "nothing may be put on it");
    assert_eq!(
        body(&page.finish(true)),
        "<n:EnumerateResponse><n:EnumerationContext>uuid:C</n:EnumerationContext></n:EnumerateResponse>"
    );
}

#[test]
fn e_4_an_optimized_enumerate_holds_items_and_ends_with_an_empty_context() {
    let page = || {
        Page::enumerate(
            &HEADERS,
            true,
            "uuid:C",
            Some("PT60S"),
            Count::Unasked,
            budget(2, 9999),
        )
    };
    let mut last = page();
    assert!(push(&mut last, "<x/>") && push(&mut last, "<y/>"));
    assert!(last.is_full());
    assert_eq!(
        body(&last.finish(false)),
        "<n:EnumerateResponse><n:Expires>PT60S</n:Expires><n:EnumerationContext/><w:Items><x/><y/></w:Items><w:EndOfSequence/></n:EnumerateResponse>"
    );
    let mut first = page();
    push(&mut first, "<x/>");
    assert_eq!(
        body(&first.finish(true)),
        "<n:EnumerateResponse><n:Expires>PT60S</n:Expires><n:EnumerationContext>uuid:C</n:EnumerationContext><w:Items><x/></w:Items></n:EnumerateResponse>"
    );
}

#[test]
fn e_12_a_pull_has_items_always_and_a_context_only_if_it_goes_on() {
    let page = || Page::pull(&HEADERS, "uuid:C", Count::Unasked, budget(1, 9999));
    assert_eq!(
        body(&page().finish(false)),
        "<n:PullResponse><n:Items></n:Items><n:EndOfSequence/></n:PullResponse>"
    );
    let mut more = page();
    push(&mut more, "<x/>");
    assert_eq!(
        body(&more.finish(true)),
        "<n:PullResponse><n:EnumerationContext>uuid:C</n:EnumerationContext><n:Items><x/></n:Items></n:PullResponse>"
    );
}

#[test]
fn h_20_e_8_a_page_never_exceeds_the_envelope_size_in_any_encoding() {
    let item = format!("<x>{}</x>", "é𝄞".repeat(50));
    for charset in [Charset::Utf8, Charset::Utf16Le, Charset::Utf16Be] {
        for octets in (1800..4000).step_by(37) {
            for optimized in [true, false] {
                let budget = Budget {
                    charset,
                    ..budget(1000, octets)
                };
                let mut page = if optimized {
                    Page::enumerate(&HEADERS, true, "uuid:C", None, Count::Known(1), budget)
                } else {
                    Page::pull(&HEADERS, "uuid:C", Count::Unknown, budget)
                };
                if page.frame_exceeds() {
                    continue;
                }
                let mut count = 0;
                while push(&mut page, &item) {
                    count += 1;
                }
                assert_eq!(page.is_empty(), count == 0);
                for more in [true, false] {
                    let mut again = page_like(optimized, budget);
                    (0..count).for_each(|_| assert!(push(&mut again, &item)));
                    let bytes = charset.encode(again.finish(more));
                    assert!(
                        bytes.len() <= octets,
                        "{charset:?} {} > {octets}",
                        bytes.len()
                    );
                }
            }
        }
    }
}

fn page_like(optimized: bool, budget: Budget) -> Page {
    if optimized {
        Page::enumerate(&HEADERS, true, "uuid:C", None, Count::Known(1), budget)
    } else {
        Page::pull(&HEADERS, "uuid:C", Count::Unknown, budget)
    }
}

#[test]
fn h_20_the_budget_is_used_up_to_the_last_octet() {
    let whole = {
        let mut page = Page::pull(&HEADERS, "uuid:C", Count::Unasked, budget(9, 99_999));
        push(&mut page, "<x/>");
        page.finish(true).len()
    };
    let mut exact = Page::pull(&HEADERS, "uuid:C", Count::Unasked, budget(9, whole));
    assert!(push(&mut exact, "<x/>"));
    let mut short = Page::pull(&HEADERS, "uuid:C", Count::Unasked, budget(9, whole - 1));
    assert!(!push(&mut short, "<x/>"));
    assert!(short.is_empty());
    assert!(!short.finish(true).contains("<x/>"));
    let tiny = Page::pull(&HEADERS, "uuid:C", Count::Unasked, budget(9, 10));
    assert!(tiny.frame_exceeds());
}

#[test]
fn e_14_max_characters_bounds_the_items() {
    let limited = Budget {
        characters: Some(10),
        ..budget(9, 9999)
    };
    let mut page = Page::pull(&HEADERS, "uuid:C", Count::Unasked, limited);
    assert!(push(&mut page, "<é/>"));
    assert!(push(&mut page, "<éé/>"));
    assert!(!push(&mut page, "<a/>"), "9 of 10 characters are used");
}

#[test]
fn an_item_that_fails_leaves_the_page_as_it_was() {
    let mut page = Page::pull(&HEADERS, "uuid:C", Count::Unasked, budget(9, 9999));
    push(&mut page, "<x/>");
    let failed = page.push(|w| {
        w.raw("<half>");
        Err("no")
    });
    assert_eq!(failed, Err("no"));
    assert!(page.finish(false).contains("<n:Items><x/></n:Items>"));
}

#[test]
fn h_27_the_count_is_told_where_it_is_asked_for() {
    let header = |count| {
        let envelope = Page::pull(&HEADERS, "uuid:C", count, budget(9, 9999)).finish(false);
        let document = parse(&envelope).unwrap();
        let header = document.root().child(ns::SOAP, "Header").unwrap();
        header
            .child(ns::WSMAN, "TotalItemsCountEstimate")
            .map(|e| (e.text().into_owned(), e.attribute(ns::XSI, "nil").is_some()))
    };
    assert_eq!(header(Count::Unasked), None);
    assert_eq!(header(Count::Known(7)), Some(("7".into(), false)));
    assert_eq!(header(Count::Unknown), Some((String::new(), true)));
}

#[test]
fn e_7_items_come_in_three_forms() {
    let class = schema().class(V2, "T_Job").unwrap();
    let job = Instance::new(class).with("InstanceID", "j").unwrap();
    let style = Style {
        family: Family::Dmtf,
        precise_arrays: false,
        show_types: false,
    };
    let form = |mode| Form {
        cast: None,
        columns: None,
        properties: &[],
        mode,
        style,
    };
    let written = |mode| {
        let mut w = Writer::new();
        item(&mut w, &job, form(mode)).unwrap();
        w.into_string()
    };
    let object = format!(
        r#"<p:T_Job xmlns:p="{DMTF}T_Job" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common" xsi:type="p:T_Job_Type"><p:InstanceID>j</p:InstanceID></p:T_Job>"#
    );
    let epr = format!(
        r#"<a:EndpointReference><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address><a:ReferenceParameters><w:ResourceURI>{DMTF}T_Job</w:ResourceURI><w:SelectorSet><w:Selector Name="InstanceID">j</w:Selector><w:Selector Name="__cimnamespace">{V2}</w:Selector></w:SelectorSet></a:ReferenceParameters></a:EndpointReference>"#
    );
    assert_eq!(written(Mode::Object), object);
    assert_eq!(written(Mode::Epr), epr);
    assert_eq!(
        written(Mode::ObjectAndEpr),
        format!("<w:Item>{object}{epr}</w:Item>")
    );
    let nameless = Instance::new(class);
    let mut w = Writer::new();
    assert!(item(&mut w, &nameless, form(Mode::Epr)).is_err());
    // Columns and chosen properties too; without a reference where a row has no key.
    let names = ["InstanceID".to_owned()];
    let fragment = |job: &Instance, mode| {
        let mut w = Writer::new();
        let properties = &names[..];
        let form = Form {
            properties,
            ..form(mode)
        };
        item(&mut w, job, form).map(|()| w.into_string())
    };
    let bare = fragment(&job, Mode::Object).unwrap();
    assert!(
        bare.starts_with("<w:XmlFragment ") && bare.ends_with("</w:XmlFragment>"),
        "{bare}"
    );
    assert_eq!(
        fragment(&job, Mode::ObjectAndEpr),
        Ok(format!("<w:Item>{bare}{epr}</w:Item>"))
    );
    assert_eq!(fragment(&job, Mode::Epr), Ok(epr));
    let bare = fragment(&nameless, Mode::Object).unwrap();
    assert_eq!(
        fragment(&nameless, Mode::ObjectAndEpr),
        Ok(format!("<w:Item>{bare}</w:Item>"))
    );
    assert!(fragment(&nameless, Mode::Epr).is_err());
}
