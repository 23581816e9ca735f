//! The built-in schema against facts taken from the real one (`fixtures/schema/facts.tsv`), and against its own rules.

use std::collections::BTreeSet;

use groupshot::cim::schema::{Schema, VIRTUALIZATION_V2};
use groupshot::cim::{Class, Type, Value};

const FACTS: &str = include_str!("../../fixtures/schema/facts.tsv");

/// Without keys although concrete: handed out as embedded instances only.
const EMBEDDED_ONLY: [&str; 1] = ["Msvm_Error"];

fn classes(schema: &Schema) -> impl Iterator<Item = &Class> {
    schema.classes(VIRTUALIZATION_V2).map(|c| &**c)
}

#[test]
fn every_class_has_the_shape_of_the_real_one() {
    let schema = Schema::builtin();
    let mut told = BTreeSet::new();
    for line in FACTS.lines().skip(1) {
        let [name, superclass, kind, keys, properties, methods] =
            line.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("six columns in: {line}");
        };
        let class = schema.class(VIRTUALIZATION_V2, name).expect(name);
        told.insert(class.name.to_string());
        let or_dash = |texts: Vec<String>| match texts.is_empty() {
            true => "-".to_owned(),
            false => texts.join(" "),
        };
        let above = class.superclass.iter().map(|c| c.name.to_string());
        assert_eq!(or_dash(above.collect()), superclass, "superclass of {name}");
        let kinds = [
            ("abstract", class.is_abstract()),
            ("association", class.is_association()),
        ];
        let kinds = kinds.iter().filter(|(_, is)| *is);
        assert_eq!(
            or_dash(kinds.map(|(k, _)| (*k).to_owned()).collect()),
            kind,
            "kind of {name}"
        );
        let mut found: Vec<_> = class.keys().map(|p| p.name.to_string()).collect();
        found.sort();
        assert_eq!(or_dash(found), keys, "keys of {name}");
        assert_eq!(
            class.properties.len().to_string(),
            properties,
            "properties of {name}"
        );
        let mut found: Vec<_> = class
            .methods
            .iter()
            .map(|m| format!("{}/{}", m.name, m.parameters.len()))
            .collect();
        found.sort();
        assert_eq!(or_dash(found), methods, "methods/parameters of {name}");
    }
    let served: BTreeSet<_> = classes(&schema).map(|c| c.name.to_string()).collect();
    assert_eq!(
        served, told,
        "each class of the schema has its line of facts"
    );
}

#[test]
fn every_concrete_class_has_keys() {
    for class in classes(&Schema::builtin()).filter(|c| !c.is_abstract()) {
        let keyless = EMBEDDED_ONLY.contains(&class.name.as_str());
        assert_eq!(class.keys().count() == 0, keyless, "{}", class.name);
        for key in class.keys() {
            assert!(
                key.qualifiers.is("Key") && !key.array,
                "{}.{}",
                class.name,
                key.name
            );
        }
    }
}

#[test]
fn every_end_of_an_association_is_a_key_and_has_classes_with_instances() {
    let schema = Schema::builtin();
    for class in classes(&schema) {
        let ends: Vec<_> = class
            .properties
            .iter()
            .filter_map(|p| match &p.ty {
                Type::Reference(end) => Some((p, end)),
                _ => None,
            })
            .collect();
        assert_eq!(class.is_association(), ends.len() == 2, "{}", class.name);
        for (property, end) in ends {
            let what = format!("{}.{}", class.name, property.name);
            assert!(property.key, "{what}");
            let subtree = schema.subtree(VIRTUALIZATION_V2, end.as_str());
            assert!(
                subtree.iter().any(|c| !c.is_abstract()),
                "{what} can refer to nothing"
            );
        }
    }
}

#[test]
fn every_method_tells_its_return_values_and_its_parameters() {
    let schema = Schema::builtin();
    // Their return values are published nowhere.
    let silent = [
        "SetPowerState",
        "InjectNonMaskableInterrupt",
        "InjectNonMaskableInterruptEx",
        "RequestReplicationStateChangeEx",
        "RequestCustomRestore",
    ];
    for class in classes(&schema) {
        for method in &class.methods {
            let what = format!("{}.{}", class.name, method.name);
            assert_eq!(method.returns, Type::Uint32, "{what}");
            let values = |name: &str| method.qualifiers.get(name).map(|q| &q.value);
            match values("ValueMap") {
                Some(map) => {
                    assert_eq!(map.as_array().unwrap()[0], Value::from("0"), "{what}");
                    assert!(values("Values").is_some(), "{what}");
                }
                None => assert!(silent.contains(&method.name.as_str()), "{what}"),
            }
            for parameter in &method.parameters {
                let what = format!("{what}.{}", parameter.name);
                assert!(parameter.qualifiers.get("Description").is_some(), "{what}");
                assert!(parameter.input || parameter.output, "{what}");
                if parameter.name == "Job" {
                    assert!(parameter.output && !parameter.input, "{what}");
                }
            }
        }
    }
}

#[test]
fn create_snapshot_is_declared_as_clients_know_it() {
    let schema = Schema::builtin();
    let service = schema.class(VIRTUALIZATION_V2, "Msvm_CollectionSnapshotService");
    let method = service.unwrap().method("CreateSnapshot").unwrap();
    let parameters: Vec<_> = method
        .parameters
        .iter()
        .map(|p| (p.name.as_str(), p.ty.to_string(), p.input, p.output))
        .collect();
    let expected = [
        ("Collection", "CIM_CollectionOfMSEs ref", true, false),
        ("SnapshotSettings", "string", true, false),
        ("SnapshotType", "uint16", true, false),
        (
            "ResultingSnapshotCollection",
            "CIM_Collection ref",
            true,
            true,
        ),
        ("Job", "CIM_ConcreteJob ref", false, true),
    ];
    assert_eq!(
        parameters,
        expected.map(|(n, t, i, o)| (n, t.to_owned(), i, o))
    );
    let settings = method.parameter("SnapshotSettings").unwrap();
    let marker = settings.qualifiers.get("HyperVEmbeddedInstance").unwrap();
    assert_eq!(
        marker.value.as_str(),
        Some("Msvm_VirtualSystemSnapshotSettingData")
    );
    assert!(settings.qualifiers.get("EmbeddedInstance").is_none());
}

#[test]
fn every_class_is_described_in_plain_text() {
    let schema = Schema::builtin();
    for class in classes(&schema) {
        let own = class
            .qualifiers
            .get("Description")
            .filter(|q| !q.propagated);
        let text = own.and_then(|q| q.value.as_str()).unwrap_or_default();
        assert!(
            text.ends_with('.') && text.is_ascii(),
            "{}: {text:?}",
            class.name
        );
    }
}

#[test]
fn every_class_property_and_method_is_described() {
    let schema = Schema::builtin();
    let mut silent = Vec::new();
    for class in classes(&schema) {
        let own = |propagated: bool| !propagated;
        if class.qualifiers.get("Description").is_none() {
            silent.push(class.name.to_string());
        }
        for property in class.properties.iter().filter(|p| own(p.propagated)) {
            if property.qualifiers.get("Description").is_none() {
                silent.push(format!("{}.{}", class.name, property.name));
            }
        }
        for method in class.methods.iter().filter(|m| own(m.propagated)) {
            if method.qualifiers.get("Description").is_none() {
                silent.push(format!("{}.{}()", class.name, method.name));
            }
        }
    }
    assert!(silent.is_empty(), "no Description:\n{}", silent.join("\n"));
}
