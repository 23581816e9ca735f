//! The registry over three small classes.

use async_trait::async_trait;

use super::*;
use crate::cim::mof::{Place, Source, compile};
use crate::cim::query::Equality;
use crate::handler::{Identity, Role};
use crate::provider::Pace;
use crate::text::Language;

const MOF: &str = r#"
    Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride, ToSubclass);
    Qualifier Association : boolean = false, Scope(association), Flavor(DisableOverride, ToSubclass);
    Qualifier Abstract : boolean = false, Scope(class, association, indication), Flavor(Restricted);
    [Abstract] class CIM_Base { string ElementName; };
    class T_One : CIM_Base { [Key] string InstanceID; uint32 Ping(); };
    class T_Two : CIM_Base { [Key] string Name; };
    class T_Embedded : CIM_Base { string Text; };
    class T_System : CIM_Base { [Key] string CreationClassName; [Key] string Name; };
    class T_Service : T_System { };
    class T_Other : T_System { };
    [Association] class T_Link { [Key] T_System ref Above; [Key] T_System ref Below; };
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
        vec![
            Arc::new(ONE),
            Arc::new(TWO),
            Arc::new(Systems),
            Arc::new(Services),
            Arc::new(Links),
        ],
        &["T_Embedded", "T_Other"],
    )
    .unwrap()
}

/// As many systems as nobody may walk over: a list of them breaks off with a panic behind the second.
struct Systems;

/// The one service.
struct Services;

/// Links from the first system to the second, and to itself.
struct Links;

fn named(class: &Arc<Class>, name: &str) -> Result<Instance, Error> {
    let class_name = class.name.as_str();
    let made = Instance::new(class).with("CreationClassName", class_name)?;
    Ok(made.with("Name", name)?)
}

#[async_trait]
impl Provider for Systems {
    fn classes(&self) -> &'static [&'static str] {
        &["T_System"]
    }

    fn enumerate(&self, _ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        let class = class.clone();
        Ok(Box::new((0_u32..).map(move |n| {
            assert!(n < 2, "somebody walks over all systems");
            named(&class, &format!("s{n}"))
        })))
    }

    fn select(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        wanted: &[Equality],
    ) -> Result<Option<Instances>, Error> {
        let name = wanted.iter().find_map(|wanted| match wanted {
            Equality::Property(property, Value::String(name)) if *property == *"Name" => Some(name),
            _ => None,
        });
        let Some(name) = name else {
            return Ok(None);
        };
        // Such a list may hold more than what is wanted.
        let names = [name.to_ascii_lowercase(), "s1".to_owned()];
        let systems: Vec<_> = names.iter().map(|name| named(class, name)).collect();
        Ok(Some(Box::new(systems.into_iter().take(match &**name {
            "gone" => 0,
            "s1" | "S1" => 1,
            _ => 2,
        }))))
    }

    fn get(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let name = path.text("Name").filter(|name| name.starts_with('s'));
        name.map(|name| named(class, name)).transpose()
    }
}

#[async_trait]
impl Provider for Services {
    fn classes(&self) -> &'static [&'static str] {
        &["T_Service"]
    }

    fn is_singleton(&self, _class: &Class) -> bool {
        true
    }

    fn enumerate(&self, _ctx: &Context, class: &Arc<Class>) -> Result<Instances, Error> {
        Ok(Box::new(std::iter::once(named(class, "svc"))))
    }

    fn get(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        path: &Path,
    ) -> Result<Option<Instance>, Error> {
        let is_it = path.text("Name") == Some("svc");
        is_it.then(|| named(class, "svc")).transpose()
    }
}

fn system(name: &str) -> Path {
    path("T_System")
        .key("CreationClassName", "T_System")
        .key("Name", name)
}

#[async_trait]
impl Provider for Links {
    fn classes(&self) -> &'static [&'static str] {
        &["T_Link"]
    }

    fn enumerate(&self, _ctx: &Context, _class: &Arc<Class>) -> Result<Instances, Error> {
        panic!("somebody walks over all links");
    }

    fn references(
        &self,
        _ctx: &Context,
        class: &Arc<Class>,
        role: &str,
        to: &Path,
    ) -> Result<Instances, Error> {
        assert_eq!(to, &system(to.text("Name").unwrap()), "a whole path");
        let links: Vec<_> = [("s0", "s1"), ("s0", "s0")]
            .into_iter()
            .filter(|(above, below)| {
                let end = if role.eq_ignore_ascii_case("Above") {
                    above
                } else {
                    below
                };
                to.text("Name") == Some(end)
            })
            .map(|(above, below)| {
                let link = Instance::new(class).with("Above", system(above))?;
                Ok(link.with("Below", system(below))?)
            })
            .collect();
        Ok(Box::new(links.into_iter()))
    }

    fn get(
        &self,
        _ctx: &Context,
        _class: &Arc<Class>,
        _path: &Path,
    ) -> Result<Option<Instance>, Error> {
        Ok(None)
    }

    async fn invoke(
        &self,
        _ctx: &Context,
        _path: &Path,
        _method: &Method,
        _arguments: Arguments,
    ) -> Result<Outcome, Error> {
        unreachable!()
    }
}

fn partial(path: Path) -> Path {
    Path {
        partial: true,
        ..path
    }
}

fn ctx(registry: &Registry) -> Context {
    Context {
        language: Language::EnUs,
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
    let but_one: Vec<Arc<dyn Provider>> = vec![
        Arc::new(ONE),
        Arc::new(Systems),
        Arc::new(Services),
        Arc::new(Links),
    ];
    let unserved = Registry::new(schema(), but_one, &["T_Embedded", "T_Other"]);
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
    // Further ones come behind.
    assert_eq!(deep.take(3).count(), 3);
    let exact = registry.enumerate(&ctx, base, Depth::Exact).unwrap();
    assert_eq!(exact.count(), 0);
    assert_eq!(registry.count(&ctx, base, Depth::Deep), None);
}

#[test]
fn x_1_the_keys_choose_the_leaf() {
    let registry = registry();
    let ctx = ctx(&registry);
    let get = |path: Path| registry.find(&ctx, &path);
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

/// Not of the instance that a class happens to have alone.
#[test]
fn x_2_no_keys_mean_the_instance_of_a_class_that_has_one_by_nature() {
    let registry = registry();
    let ctx = ctx(&registry);
    registry.find(&ctx, &path("T_Service")).unwrap();
    for class in ["T_One", "T_Two", "T_System", "CIM_Base", "T_Link"] {
        let which = registry.find(&ctx, &path(class)).unwrap_err();
        assert_eq!(which.status, Status::InvalidParameter, "{class}");
    }
    let none = registry.find(&ctx, &path("T_Embedded")).unwrap_err();
    assert_eq!(none.status, Status::NotFound);
}

#[test]
fn x_3_keys_that_fit_one_instance_name_it_and_no_other_is_made() {
    let registry = registry();
    let ctx = ctx(&registry);
    let get = |path: Path| {
        let found = registry.find(&ctx, &partial(path));
        found.map(|found| found.path().unwrap())
    };
    for class in ["T_System", "t_system"] {
        let found = get(path(class).key("Name", "S0"));
        assert_eq!(found.unwrap(), system("s0"));
    }
    let service = get(path("T_Service").key("Name", "SVC")).unwrap();
    assert_eq!(service.class, "T_Service");
    let key = "CreationClassName";
    for class in ["T_System", "T_Service"] {
        let by_class = get(path(class).key(key, "t_SERVICE")).unwrap();
        assert_eq!(by_class, service, "{class}");
    }
    let link = |key: &str, to: Path| path("T_Link").key(key, to);
    for to in [system("s1"), partial(path("T_System").key("Name", "s1"))] {
        let found = get(link("Below", to)).unwrap();
        assert_eq!(found.get("Above"), Some(&system("s0").into()));
    }
    for (wrong, status) in [
        (path("T_System").key("Name", "gone"), Status::NotFound),
        (
            path("T_System").key(key, "T_System"),
            Status::InvalidParameter,
        ),
        (path("T_System").key(key, "T_Nix"), Status::NotFound),
        (path("T_Service").key("Name", "s0"), Status::NotFound),
        (link("Below", system("gone")), Status::NotFound),
        (link("Above", system("s0")), Status::InvalidParameter),
        (link("Below", system("s1").on("other")), Status::NotFound),
    ] {
        let error = get(wrong.clone()).unwrap_err();
        assert_eq!(error.status, status, "{wrong}");
    }
    let several = get(path("T_System").key(key, "T_System")).unwrap_err();
    let words = several.text.english();
    assert!(
        words.contains("T_System") && words.ends_with("Name"),
        "{words}"
    );
    // Only selectors may leave keys out.
    let text = registry.find(&ctx, &path("T_System").key("Name", "s0"));
    assert_eq!(text.unwrap_err().status, Status::InvalidParameter);
}

#[test]
fn x_3_arguments_are_made_whole_where_they_name_one_instance() {
    let registry = registry();
    let ctx = ctx(&registry);
    let whole = |value: Value| registry.whole(&ctx, value);
    let by_name = |name: &str| partial(path("T_System").key("Name", name));
    assert_eq!(whole(by_name("s0").into()), system("s0").into());
    let both = Value::Array(vec![by_name("s0").into(), Value::Null]);
    let made = Value::Array(vec![system("s0").into(), Value::Null]);
    assert_eq!(whole(both), made);
    for left in [
        by_name("gone"),
        by_name("s0").on("other"),
        partial(path("T_System").key("CreationClassName", "T_System")),
        path("T_System").key("Name", "s0"),
    ] {
        assert_eq!(whole(left.clone().into()), left.into());
    }
}

#[tokio::test]
async fn a_method_reaches_the_provider_of_the_leaf() {
    let registry = registry();
    let ctx = ctx(&registry);
    let class = registry.schema().class(VIRTUALIZATION_V2, "T_One").unwrap();
    let ping = class.method("Ping").unwrap();
    let call = async |path: Path| {
        let found = registry.find(&ctx, &path)?;
        let arguments = Arguments::new(ping.clone(), Vec::new());
        registry.call(&ctx, &found, ping, arguments).await
    };
    let outcome = call(path("CIM_Base").key("InstanceID", "a")).await;
    assert_eq!(outcome.unwrap().return_value, 7_u32.into());
    let nobody = call(path("T_One").key("InstanceID", "z")).await;
    assert_eq!(nobody.unwrap_err().status, Status::NotFound);
    // Its provider has no methods.
    let without = call(system("s0")).await;
    assert_eq!(without.unwrap_err().status, Status::MethodNotAvailable);
}
