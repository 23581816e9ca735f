//! Reading and writing XML.

use super::*;

fn kind(text: &str) -> ErrorKind {
    parse(text).expect_err(text).kind
}

/// Namespaces in XML 1.0, section 3: it is bound by nature and may be declared, on any element.
#[test]
fn h_2_the_prefix_xml_may_be_declared_with_its_own_name() {
    let own = "xmlns:xml='http://www.w3.org/XML/1998/namespace'";
    let text =
        format!("<a {own}><b {own} xml:lang='en'><c xml:lang='de'/></b><c xml:lang='fr'/></a>");
    let document = parse(&text).unwrap();
    let language = |e: Element<'_>| e.attribute(XML_NAMESPACE, "lang").map(str::to_owned);
    let (b, c) = {
        let mut children = document.root().children();
        (children.next().unwrap(), children.next().unwrap())
    };
    assert_eq!(language(b).as_deref(), Some("en"));
    assert_eq!(
        language(b.children().next().unwrap()).as_deref(),
        Some("de")
    );
    assert_eq!(language(c).as_deref(), Some("fr"));
    assert_eq!(
        document.root().attributes().count(),
        0,
        "a declaration is no attribute"
    );
}

#[test]
fn names_attributes_text_and_children_are_found() {
    let text = r#"<?xml version="1.0"?><!-- hi --><s:a xmlns:s="urn:s" xmlns="urn:d" k="v&amp;w" s:k="2">
        <b>one<!-- x -->&lt;two<![CDATA[<3>]]>&#x34;</b><c xmlns=""/><s:d s:e="f"><b/></s:d></s:a>"#;
    let document = parse(text).unwrap();
    let root = document.root();
    assert!(root.is("urn:s", "a"));
    assert_eq!(root.prefix(), "s");
    assert_eq!(root.attribute("", "k"), Some("v&w"));
    assert_eq!(root.attribute("urn:s", "k"), Some("2"));
    assert_eq!(root.attribute("urn:d", "k"), None);
    let children: Vec<_> = root
        .children()
        .map(|c| (c.namespace(), c.local()))
        .collect();
    assert_eq!(children, [("urn:d", "b"), ("", "c"), ("urn:s", "d")]);
    assert_eq!(root.child("urn:d", "b").unwrap().text(), "one<two<3>4");
    let d = root.child("urn:s", "d").unwrap();
    assert_eq!(d.attribute("urn:s", "e"), Some("f"));
    assert_eq!(d.children().count(), 1);
    assert_eq!(d.resolve("s"), Some("urn:s"));
    assert_eq!(d.resolve("q"), None);
    assert_eq!(d.offset(), text.find("<s:d").unwrap());
}

#[test]
fn text_is_borrowed_and_trimmed_on_demand() {
    let document = parse("<a> x&#x20;</a>").unwrap();
    assert_eq!(document.root().text(), " x ");
    assert_eq!(document.root().trimmed(), "x");
    let document = parse("<a>plain</a>").unwrap();
    assert!(matches!(
        document.root().text(),
        std::borrow::Cow::Borrowed("plain")
    ));
}

#[test]
fn line_ends_are_normalised() {
    let document = parse("<a b='1\r\n2'>x\r\ny\rz&#13;</a>").unwrap();
    assert_eq!(document.root().text(), "x\ny\nz\r");
    assert_eq!(document.root().attribute("", "b"), Some("1 2"));
}

#[test]
fn n_4_hostile_and_broken_texts_are_refused_with_their_reason() {
    let deep = "<a>".repeat(10_000);
    let long = |text: &str| text.replace('N', &"n".repeat(2049));
    let wide = format!(
        "<a {}/>",
        (0..65).map(|n| format!("k{n}='' ")).collect::<String>()
    );
    let many = format!(
        "<a {}><a {}><a {}/></a></a>",
        (0..60)
            .map(|n| format!("xmlns:a{n}='u' "))
            .collect::<String>(),
        (0..60)
            .map(|n| format!("xmlns:b{n}='u' "))
            .collect::<String>(),
        (0..60)
            .map(|n| format!("xmlns:c{n}='u' "))
            .collect::<String>(),
    );
    let table: &[(&str, ErrorKind)] = &[
        ("<!DOCTYPE a><a/>", ErrorKind::Doctype),
        (
            "<!DOCTYPE a [<!ENTITY x 'y'><!ENTITY z '&x;&x;'>]><a>&z;</a>",
            ErrorKind::Doctype,
        ),
        ("<?pi x?><a/>", ErrorKind::ProcessingInstruction),
        ("<a><?pi x?></a>", ErrorKind::ProcessingInstruction),
        (
            " <?xml version='1.0'?><a/>",
            ErrorKind::ProcessingInstruction,
        ),
        ("<a>&nbsp;</a>", ErrorKind::UnknownEntity("nbsp".into())),
        ("<p:a/>", ErrorKind::UnknownPrefix("p".into())),
        ("<a p:k='1'/>", ErrorKind::UnknownPrefix("p".into())),
        (
            "<b><p:a xmlns:p='u'/><p:c/></b>",
            ErrorKind::UnknownPrefix("p".into()),
        ),
        ("<a xmlns:p=''/>", ErrorKind::BadDeclaration("p".into())),
        (
            "<a xmlns:xml='u'/>",
            ErrorKind::BadDeclaration("xml".into()),
        ),
        ("<a xmlns:xml=''/>", ErrorKind::BadDeclaration("xml".into())),
        (
            "<a xmlns:xmlns='u'/>",
            ErrorKind::BadDeclaration("xmlns".into()),
        ),
        (
            "<a xmlns:xmlns='http://www.w3.org/2000/xmlns/'/>",
            ErrorKind::BadDeclaration("xmlns".into()),
        ),
        (
            "<a xmlns:p='http://www.w3.org/2000/xmlns/'/>",
            ErrorKind::BadDeclaration("p".into()),
        ),
        (
            "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
            ErrorKind::BadDeclaration("p".into()),
        ),
        (
            "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
            ErrorKind::BadDeclaration(String::new()),
        ),
        (
            "<a xmlns:xml='http://www.w3.org/XML/1998/namespace/'/>",
            ErrorKind::BadDeclaration("xml".into()),
        ),
        (
            "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
            ErrorKind::DuplicateAttribute("xmlns:xml".into()),
        ),
        ("<a>\u{1}</a>", ErrorKind::Character),
        ("<a>&#1;</a>", ErrorKind::Character),
        ("<a k='&#x1F;'/>", ErrorKind::Character),
        ("<a>&#xFFFE;</a>", ErrorKind::Character),
        ("<1a/>", ErrorKind::Name("1a".into())),
        ("<a:b:c xmlns:a='u'/>", ErrorKind::Name("a:b:c".into())),
        ("<:a/>", ErrorKind::Name(":a".into())),
        (
            "<a xmlns:p='u' xmlns:q='u' p:k='1' q:k='2'/>",
            ErrorKind::DuplicateAttribute("k".into()),
        ),
        (
            "<a k='1' k='2'/>",
            ErrorKind::DuplicateAttribute("k".into()),
        ),
        (
            "<a xmlns:p='u' xmlns:p='v'/>",
            ErrorKind::DuplicateAttribute("xmlns:p".into()),
        ),
        ("<a k='<'/>", ErrorKind::Character),
        (&deep, ErrorKind::Depth),
        (&wide, ErrorKind::Attributes),
        (&many, ErrorKind::Namespaces),
        (&long("<a xmlns='N'/>"), ErrorKind::NameLength),
        (&long("<a xmlns:p='N'><p:b/></a>"), ErrorKind::NameLength),
        (&long("<N/>"), ErrorKind::NameLength),
        (&long("<a N='1'/>"), ErrorKind::NameLength),
        ("<a/>x", ErrorKind::OutsideRoot),
        ("x<a/>", ErrorKind::OutsideRoot),
        ("<a/><b/>", ErrorKind::OutsideRoot),
        ("<a/>&lt;", ErrorKind::OutsideRoot),
        ("<a/><![CDATA[x]]>", ErrorKind::OutsideRoot),
        ("", ErrorKind::Incomplete),
        ("<a><b/>", ErrorKind::Incomplete),
    ];
    for (text, expected) in table {
        assert_eq!(kind(text), *expected, "{:.60}", text);
    }
}

#[test]
fn not_well_formed_is_malformed_and_says_where() {
    for text in [
        "<a>&</a>",
        "<a>&lt</a>",
        "<a></b>",
        "<a",
        "<a k=1/>",
        "<a k/>",
        "<a/></a>",
        "<a>&#xZZ;</a>",
        "<a k='&x;'/>",
        "<![CDATA[",
        "<a><!-- </a>",
        "<a>&#0;</a>",
        "<a>&#x110000;</a>",
    ] {
        assert!(matches!(kind(text), ErrorKind::Malformed(_)), "{text}");
    }
    let error = parse("<a><b></c></a>").unwrap_err();
    assert_eq!(error.at, 6);
    assert!(error.to_string().ends_with("at byte 6"), "{error}");
    let error = parse("<a xmlns='http://www.w3.org/XML/1998/namespace'/>").unwrap_err();
    let named = "the default namespace (xmlns) must not be declared like this";
    assert!(error.to_string().contains(named), "{error}");
}

#[test]
fn nesting_up_to_the_limit_is_read() {
    let text = format!("{}{}", "<a>".repeat(DEPTH_MAX), "</a>".repeat(DEPTH_MAX));
    assert!(parse(&text).is_ok());
    let text = format!("<a>{text}</a>");
    assert_eq!(kind(&text), ErrorKind::Depth);
}

#[test]
fn i_20_markup_is_written_compactly_and_escaped() {
    let mut w = Writer::new();
    w.open("s", "a", &[("xmlns:s", "urn:<s>\"\n")]);
    w.element("", "b", &[], "1 < 2 & \"3\"\r\n\u{0}\u{1F}\u{FFFF}é");
    w.empty("s", "c", &[]);
    w.open("", "n", &[]);
    w.number(18_446_744_073_709_551_615_u64);
    w.number(0_u8);
    w.close("", "n");
    w.close("s", "a");
    let text = w.into_string();
    assert_eq!(
        text,
        "<s:a xmlns:s=\"urn:&lt;s&gt;&quot;&#10;\"><b>1 &lt; 2 &amp; \"3\"&#13;\n???é</b><s:c/><n>184467440737095516150</n></s:a>"
    );
    let document = parse(&text).unwrap();
    assert_eq!(
        document.root().child("", "b").unwrap().text(),
        "1 < 2 & \"3\"\r\n???é"
    );
}

#[test]
fn a_copy_stands_for_itself() {
    let text = "<a xmlns:p='urn:p' xmlns='urn:d'><p:b p:k='1' j='2' xml:lang='en'><c>x&amp;y</c><d xmlns=''/></p:b></a>";
    let document = parse(text).unwrap();
    let mut w = Writer::new();
    assert!(w.copy(document.root().children().next().unwrap(), 1000));
    let copy = w.into_string();
    let document = parse(&copy).unwrap();
    let b = document.root();
    assert!(b.is("urn:p", "b"));
    assert_eq!(b.attribute("urn:p", "k"), Some("1"));
    assert_eq!(b.attribute("", "j"), Some("2"));
    assert_eq!(b.attribute(XML_NAMESPACE, "lang"), Some("en"));
    assert_eq!(b.child("urn:d", "c").unwrap().text(), "x&y");
    assert!(b.child("", "d").is_some());
}

#[test]
fn a_copy_ends_soon_after_what_it_may_hold() {
    let namespace = "u".repeat(2048);
    let beside = "<x:b/>".repeat(40_000);
    let within = format!("{}{}", "<x:b>".repeat(60), "</x:b>".repeat(60));
    for children in [beside, within] {
        let text = format!("<x:a xmlns:x='{namespace}'>{children}</x:a>");
        let document = parse(&text).unwrap();
        let mut w = Writer::new();
        assert!(!w.copy(document.root(), 32 * 1024));
        assert!(w.len() < 40 * 1024, "{}", w.len());
    }
}

#[test]
fn a_first_child_is_read_without_what_comes_behind_it() {
    for (text, local, inner) in [
        ("<a><b><c/><c/></b><d>&nosuch;", "b", 2),
        ("<a> <b/><?pi?>", "b", 0),
        ("<a><b>x</b></a><broken", "b", 0),
        // Cut off within the first child: what is whole in it.
        ("<a><b>", "b", 0),
        ("<a><b><c>1</c><d><e/>2", "b", 1),
        ("<a><b><c>1</c><d>2</", "b", 1),
        ("<a><b><c>1</c><d x='", "b", 1),
    ] {
        assert!(parse(text).is_err(), "{text}");
        let document = parse_first(text).unwrap();
        let children: Vec<_> = document.root().children().collect();
        assert_eq!(children.len(), 1, "{text}");
        assert_eq!(children[0].local(), local);
        assert_eq!(children[0].children().count(), inner);
    }
    assert!(
        parse_first("<a/>")
            .unwrap()
            .root()
            .children()
            .next()
            .is_none()
    );
    for text in ["<a>", "", "<a", "<a></b>"] {
        assert!(parse_first(text).is_err(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_back(text in "\\PC*", value in "\\PC*") {
        let mut w = Writer::new();
        w.element("", "a", &[("k", &value)], &text);
        let written = w.into_string();
        let document = parse(&written).unwrap();
        let tame = |s: &str| s.replace(['\u{FFFE}', '\u{FFFF}'], "?");
        proptest::prop_assert_eq!(document.root().text(), tame(&text));
        proptest::prop_assert_eq!(document.root().attribute("", "k"), Some(&*tame(&value)));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[<>/a:&;#x!'\"= ?\\[\\]-]{0,60}") {
        let _ = parse(&text);
        let _ = parse_first(&text);
    }
}
