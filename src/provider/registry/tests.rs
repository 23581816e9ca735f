//! The registry over three small classes.

use async_trait::async_trait;

use super::*;
use crate::cim::mof::{Place, Source, compile};
use crate::handler::{Identity, Role};
use crate::provider::Pace;

const MOF: &str = r#"
    Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride, ToSubclass);
    Qualifier Abstract : boolean = false, Scope(class, association, indication), Flavor(Restricted);
    [Abstract] class CIM_Base { string ElementName; };
    class T_One : CIM_Base { [Key] string InstanceID; uint32 Ping(); };
    class T_Two : CIM_Base { [Key] string Name; };
    class T_Embedded : CIM_Base { string Text; };
"#;

/// Serves one class with the instances of these keys.
struct Fixed {
    class: &'static [&'static str],
    key: &'static str,
    values: &'static [&'static str],
}

const ONE: Fixed = Fixed {
    class: &["T_One"],
    key: "InstanceID",
    values: &["a", "b"],
};
const TWO: Fixed = Fixed {
    class: &["T_Two"],
    key: "Name",
    values: &["x"],
};

#[async_trait]
impl Provider for Fixed {
    fn classes(&self) -> &'static [&'static str] {
        self.class
    }

    fn enumerate(&self, _ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let (class, key) = (class.clone(), self.key);
        let instances = self.values.iter();
        Ok(Box::new(instances.map(move |value| {
            Ok(Instance::new(&class).with(key, *value)?)
        })))
    }

    fn get(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let wanted = path.text(self.key).unwrap_or_default();
        let found = self.values.iter().find(|v| **v == wanted);
        let made = found.map(|value| Instance::new(class).with(self.key, *value));
        Ok(made.transpose()?)
    }

    async fn invoke(
        &self,
        _ctx: &Context,
        path: &Path,
        _method: &Method,
        _arguments: Arguments,
    ) -> Result<Outcome, Error> {
        assert_eq!(path.class, "T_One");
        Ok(Outcome {
            return_value: 7_u32.into(),
            outputs: Vec::new(),
            changed: false,
        })
    }
}

fn schema() -> Arc<Schema> {
    let compiled = compile(&[Source {
        name: "test.mof",
        text: MOF,
        place: Place::Namespace(VIRTUALIZATION_V2),
    }]);
    assert!(!compiled.has_errors(), "{:?}", compiled.diagnostics);
    Arc::new(Schema::new(compiled.classes))
}

fn registry() -> Registry {
    Registry::new(
        schema(),
        vec![Arc::new(ONE), Arc::new(TWO)],
        &["T_Embedded"],
    )
    .unwrap()
}

fn ctx(registry: &Registry) -> Context {
    Context {
        identity: Identity {
            user: Arc::from("tester"),
            role: Role::Reader,
        },
        schema: registry.schema().clone(),
        timeout: std::time::Duration::from_secs(60),
        pace: Pace::default(),
    }
}

fn path(class: &str) -> Path {
    Path::new(VIRTUALIZATION_V2, class)
}

#[test]
fn a_class_without_provider_stops_the_start_and_is_named() {
    let unserved = Registry::new(schema(), vec![Arc::new(ONE)], &["T_Embedded"]);
    let error = unserved.err().unwrap();
    assert!(error.to_string().contains("T_Two"), "{error}");
}

#[test]
fn a_provider_for_no_class_or_for_a_class_that_has_one_stops_the_start() {
    let surplus: Arc<dyn Provider> = Arc::new(Fixed {
        class: &["T_Gone"],
        ..ONE
    });
    let gone = Registry::new(schema(), vec![surplus], &[]).err();
    assert!(matches!(gone, Some(RegistryError::NoSuchClass { .. })));
    let twice = Registry::new(schema(), vec![Arc::new(ONE), Arc::new(ONE)], &[]).err();
    assert!(matches!(twice, Some(RegistryError::Twice { .. })));
    let listed = Registry::new(schema(), Vec::new(), &["CIM_Base"]).err();
    assert!(matches!(listed, Some(RegistryError::NoSuchClass { .. })));
}

#[test]
fn e_30_a_deep_enumeration_chains_the_leaves() {
    let registry = registry();
    let ctx = ctx(&registry);
    let base = registry.schema().class(VIRTUALIZATION_V2, "CIM_Base");
    let base = base.unwrap();
    let deep = registry.enumerate(&ctx, base, Depth::Deep).unwrap();
    assert_eq!(deep.count(), 3);
    let exact = registry.enumerate(&ctx, base, Depth::Exact).unwrap();
    assert_eq!(exact.count(), 0);
    assert_eq!(registry.count(&ctx, base, Depth::Deep), None);
}

#[test]
fn x_1_the_keys_choose_the_leaf() {
    let registry = registry();
    let ctx = ctx(&registry);
    let get = |path: Path| registry.get(&ctx, &path);
    for class in ["CIM_Base", "T_Two", "t_two"] {
        let found = get(path(class).key("Name", "x")).unwrap();
        assert_eq!(found.class().name, "T_Two");
    }
    for (wrong, status) in [
        (path("T_Two").key("Name", "y"), Status::NotFound),
        (path("T_Gone").key("Name", "x"), Status::NotFound),
        (path("T_Embedded").key("Name", "x"), Status::NotFound),
        (path("T_Two").key("Nam", "x"), Status::InvalidParameter),
        (
            path("T_Two").key("Name", "x").key("More", "x"),
            Status::InvalidParameter,
        ),
    ] {
        let error = get(wrong.clone()).unwrap_err();
        assert_eq!(error.status, status, "{wrong}");
    }
}

#[test]
fn x_2_no_keys_mean_the_only_instance() {
    let registry = registry();
    let ctx = ctx(&registry);
    registry.get(&ctx, &path("T_Two")).unwrap();
    let several = registry.get(&ctx, &path("T_One")).unwrap_err();
    assert_eq!(several.status, Status::InvalidParameter);
    let none = registry.get(&ctx, &path("T_Embedded")).unwrap_err();
    assert_eq!(none.status, Status::NotFound);
}

#[tokio::test]
async fn a_method_reaches_the_provider_of_the_leaf() {
    let registry = registry();
    let ctx = ctx(&registry);
    let class = registry.schema().class(VIRTUALIZATION_V2, "T_One").unwrap();
    let ping = class.method("Ping").unwrap();
    let arguments = || Arguments::new(ping.clone(), Vec::new());
    let above = path("CIM_Base").key("InstanceID", "a");
    let outcome = registry.invoke(&ctx, &above, ping, arguments()).await;
    assert_eq!(outcome.unwrap().return_value, 7_u32.into());
    let nobody = path("T_One").key("InstanceID", "z");
    let outcome = registry.invoke(&ctx, &nobody, ping, arguments()).await;
    assert_eq!(outcome.unwrap_err().status, Status::NotFound);
    let without = path("T_Two").key("Name", "x");
    let outcome = registry.invoke(&ctx, &without, ping, arguments()).await;
    assert_eq!(outcome.unwrap_err().status, Status::MethodNotAvailable);
}
