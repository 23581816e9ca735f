//! Reading answers and writing requests, without a server.

use super::*;
use crate::xml::parse;

const REPLY: &str = r#"<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"
 xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd">
 <s:Header/><s:Body>BODY</s:Body></s:Envelope>"#;

fn body<T>(content: &str, read: impl FnOnce(crate::xml::Element<'_>) -> Option<T>) -> Option<T> {
    let text = REPLY.replace("BODY", content);
    let document = parse(&text).unwrap();
    read(document.root().child(ns::SOAP, "Body").unwrap())
}

#[test]
fn an_output_with_nil_text_time_and_reference_is_read() {
    let output = body(
        r#"<p:M_OUTPUT xmlns:p="urn:x" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:cim="urn:c">
           <p:Job><a:Address>x</a:Address><a:ReferenceParameters><w:ResourceURI>http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_ConcreteJob</w:ResourceURI><w:SelectorSet><w:Selector Name="InstanceID">42</w:Selector></w:SelectorSet></a:ReferenceParameters></p:Job>
           <p:When><cim:Datetime>2024-05-01T12:30:15Z</cim:Datetime></p:When>
           <p:Nothing xsi:nil="true"/><p:Empty/><p:L>1</p:L><p:L>2</p:L><p:ReturnValue>4096</p:ReturnValue></p:M_OUTPUT>"#,
        answer::instance,
    )
    .unwrap();
    let job = Path::new("root/virtualization/v2", "Msvm_ConcreteJob").key("InstanceID", "42");
    assert_eq!(output.get("Job"), &Value::from(job));
    assert_eq!(output.text("When"), "2024-05-01T12:30:15Z");
    assert_eq!(output.get("Nothing"), &Value::Null);
    assert_eq!(output.get("Missing"), &Value::Null);
    assert_eq!(output.get("Empty"), &Value::from(""));
    assert_eq!(output.all("L").count(), 2);
    assert_eq!(output.number("returnvalue"), Some(4096));
}

#[test]
fn a_reference_of_the_dmtf_family_takes_its_namespace_from_the_selector() {
    let output = body(
        r#"<p:X xmlns:p="urn:x"><p:R><a:EndpointReference><a:Address>x</a:Address><a:ReferenceParameters><w:ResourceURI>http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_A</w:ResourceURI><w:SelectorSet><w:Selector Name="__cimnamespace">root/interop</w:Selector><w:Selector Name="K">v</w:Selector></w:SelectorSet></a:ReferenceParameters></a:EndpointReference></p:R></p:X>"#,
        answer::instance,
    )
    .unwrap();
    let expected = Path::new("root/interop", "CIM_A").key("K", "v");
    assert_eq!(output.get("R").as_reference(), Some(&expected));
}

#[test]
fn pages_of_every_server_are_told_apart() {
    const N: &str = r#"xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration""#;
    for (text, context, items) in [
        (
            "<n:EnumerateResponse N><n:EnumerationContext>c</n:EnumerationContext></n:EnumerateResponse>",
            Some("c"),
            0,
        ),
        (
            "<n:EnumerateResponse N><n:EnumerationContext/><w:Items><x/><y/></w:Items><w:EndOfSequence/></n:EnumerateResponse>",
            None,
            2,
        ),
        (
            "<n:PullResponse N><n:EnumerationContext>c</n:EnumerationContext><n:Items><x/></n:Items></n:PullResponse>",
            Some("c"),
            1,
        ),
        (
            "<n:PullResponse N><n:EnumerationContext>c</n:EnumerationContext><n:Items/><n:EndOfSequence/></n:PullResponse>",
            None,
            0,
        ),
    ] {
        let page = body(
            &text.replace('N', N).replace(&format!("{N}:"), "N:"),
            answer::page,
        );
        let page = page.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(
            (page.context.as_deref(), page.items.len()),
            (context, items),
            "{text}"
        );
    }
}

#[test]
fn a_fault_gives_reason_subcode_detail_and_code() {
    let fault = body(
        r#"<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>w:EncodingLimit</s:Value></s:Subcode></s:Code>
           <s:Reason><s:Text xml:lang="en-US">too large</s:Text></s:Reason><s:Detail>
           <w:FaultDetail>http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/MaxEnvelopeSize</w:FaultDetail>
           <f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="2150858823" Machine="h"><f:Message>more</f:Message></f:WSManFault></s:Detail></s:Fault>"#,
        answer::fault,
    )
    .unwrap();
    assert_eq!(fault.subcode, "EncodingLimit");
    assert_eq!(fault.detail.as_deref(), Some("MaxEnvelopeSize"));
    assert_eq!(fault.code, Some(2_150_858_823));
    assert_eq!(
        fault.to_string(),
        "too large: more (EncodingLimit/MaxEnvelopeSize)"
    );
}

#[test]
fn requests_are_well_formed_and_keep_what_they_were_given() {
    let target = Path::new("root/virtualization/v2", "Msvm_X").key("Name", "a<&\"b");
    let arguments = [
        ("Text", Value::from(" <x> ")),
        ("Ref", target.clone().into()),
        ("None", Value::Null),
    ];
    let envelope = envelope::invoke(&target, "Do", &arguments, Duration::from_millis(1500));
    let document = parse(&envelope).unwrap();
    let root = document.root();
    let header = |name| {
        root.child(ns::SOAP, "Header")
            .unwrap()
            .child(ns::WSMAN, name)
            .unwrap()
    };
    assert_eq!(header("OperationTimeout").text(), "PT1.500S");
    assert_eq!(
        header("SelectorSet").children().next().unwrap().text(),
        "a<&\"b"
    );
    let input = root
        .child(ns::SOAP, "Body")
        .unwrap()
        .children()
        .next()
        .unwrap();
    assert_eq!(input.local(), "Do_INPUT");
    assert_eq!(input.namespace(), header("ResourceURI").text());
    let sent = answer::instance(root.child(ns::SOAP, "Body").unwrap()).unwrap();
    assert_eq!(sent.get("Text"), &Value::from(" <x> "));
    assert_eq!(sent.get("Ref"), &Value::from(target));
    assert_eq!(sent.get("None"), &Value::Null);
}

#[test]
fn a_url_that_cannot_be_used_is_named() {
    let credentials = Credentials {
        user: "u".to_owned(),
        password: "p".to_owned(),
    };
    for url in ["h:5985", "http://", "ftp://h", "http:///wsman"] {
        let error = Client::new(url, &credentials).err().expect(url);
        assert!(error.to_string().contains(url), "{error}");
    }
    for url in [
        "http://h",
        "https://h",
        "https://[::1]/",
        "http://[::1]:5985/wsman",
        "http://h:80/other",
    ] {
        assert!(Client::new(url, &credentials).is_ok(), "{url}");
    }
}
