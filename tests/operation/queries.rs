//! Queries over the wire: what is looked up, what comes page by page.

use std::sync::atomic::Ordering;

use super::rig::{Ask, Reply, Rig};

const ALL: &str = "<w:OptimizeEnumeration/><w:MaxElements>1000</w:MaxElements>";
const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";

async fn query(rig: &Rig, wish: &str, text: &str) -> Reply {
    let filter = format!("{wish}<w:Filter Dialect=\"{WQL}\">{text}</w:Filter>");
    rig.send(&Ask::enumerate("Test_Thing", &filter).text())
        .await
        .ok()
}

#[tokio::test]
async fn e_40_an_instance_that_is_named_by_its_key_is_looked_up() {
    let rig = Rig::new(1000);
    for condition in [
        "Name = 'thing-00037'",
        "Number = 37 AND 'THING-00037' = Name",
        "__RELPATH = 'Test_Thing.Name=\"thing-00037\"'",
    ] {
        rig.things.made.store(0, Ordering::SeqCst);
        let text = format!("SELECT * FROM Test_Thing WHERE {condition}");
        let reply = query(&rig, ALL, &text).await;
        assert_eq!(reply.all("Name"), ["thing-00037"], "{condition}");
        let made = rig.things.made.load(Ordering::SeqCst);
        assert!(made <= 2, "{condition}: {made} instances were made");
    }
}

#[tokio::test]
async fn e_40_an_xpath_filter_that_names_the_key_is_a_look_up() {
    let rig = Rig::new(1000);
    for text in [
        "Name = 'thing-00037'",
        "/p:Test_Thing[p:Name = 'thing-00037']",
        "Test_Thing/Name[. = 'thing-00037'] and Number = 37",
    ] {
        rig.things.made.store(0, Ordering::SeqCst);
        let wish = format!("{ALL}<w:Filter>{text}</w:Filter>");
        let reply = rig
            .send(&Ask::enumerate("Test_Thing", &wish).text())
            .await
            .ok();
        assert_eq!(reply.all("Name"), ["thing-00037"], "{text}");
        let made = rig.things.made.load(Ordering::SeqCst);
        assert!(made <= 2, "{text}: {made} instances were made");
    }
}

#[tokio::test]
async fn e_31_e_40_an_xpath_filter_goes_with_every_polymorphism_mode() {
    let rig = Rig::new(21);
    let ask = async |mode: &str, text: &str| {
        let wish = format!(
            "{ALL}<b:PolymorphismMode>{mode}</b:PolymorphismMode><w:Filter>{text}</w:Filter>"
        );
        rig.send(&Ask::enumerate("Test_Thing", &wish).text())
            .await
            .ok()
    };
    let text = "Test_Thing/Number &gt;= 19";
    for (mode, things, special) in [
        ("IncludeSubClassProperties", 1, 1),
        ("ExcludeSubClassProperties", 2, 0),
        ("None", 1, 0),
    ] {
        let reply = ask(mode, text).await;
        assert_eq!(reply.all("Test_Thing").len(), things, "{mode}");
        assert_eq!(reply.all("Test_Special").len(), special, "{mode}");
    }
    let reply = ask(
        "IncludeSubClassProperties",
        "Test_Special and Number &gt;= 19",
    )
    .await;
    assert_eq!(reply.all("Name").len(), 1);
}

#[tokio::test]
async fn e_40_a_superclass_brings_subclasses_under_their_own_names() {
    let rig = Rig::new(21);
    let reply = query(&rig, ALL, "SELECT * FROM Test_Thing WHERE Number &gt;= 19").await;
    let mut names = reply.all("Name");
    names.sort();
    assert_eq!(names, ["thing-00019", "thing-00020"]);
    assert_eq!(reply.all("Test_Special").len(), 1);
    assert_eq!(reply.all("Test_Thing").len(), 1);
}

#[tokio::test]
async fn e_12_what_a_query_lets_through_comes_page_by_page() {
    let rig = Rig::new(50);
    let text = "SELECT Number, Name FROM Test_Thing WHERE Number &lt; 7 OR Number &gt; 47";
    let reply = query(&rig, "", text).await;
    let mut context = reply.one("EnumerationContext");
    let (mut names, mut pages) = (Vec::new(), Vec::new());
    while let Some(now) = context {
        let wish = "<n:MaxElements>4</n:MaxElements>";
        let reply = rig.send(&Ask::pull(&now, wish).text()).await.ok();
        pages.push(reply.all("XmlFragment").len());
        names.extend(reply.all("Name"));
        context = reply.one("EnumerationContext");
    }
    names.sort();
    names.dedup();
    assert_eq!((names.len(), pages), (9, vec![4, 4, 1]));
    assert_eq!(rig.server.open_enumerations(), 0);
}
