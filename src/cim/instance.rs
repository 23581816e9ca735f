//! Instances: a class and one value slot for each of its properties.

use std::sync::Arc;

use super::class::Class;
use super::path::Path;
use super::value::Value;
use crate::text::catalog::cim as texts;
use crate::text::{Message, Text, told_by_text};

/// A value that does not belong into the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceError {
    /// The class has no such property.
    UnknownProperty {
        /// The class.
        class: String,
        /// The property that was named.
        property: String,
    },
    /// The value is of another type.
    WrongType {
        /// The class.
        class: String,
        /// The property.
        property: String,
        /// Its type, with `[]` for an array.
        expected: String,
    },
    /// A key has no value, so the instance has no path.
    NullKey {
        /// The class.
        class: String,
        /// The key.
        property: String,
    },
}

impl InstanceError {
    /// In words.
    #[must_use]
    pub fn text(&self) -> Text {
        let of = |message: Message, class: &str, property: &str| {
            message.with("class", class).with("property", property)
        };
        match self {
            Self::UnknownProperty { class, property } => of(texts::NO_PROPERTY, class, property),
            Self::WrongType {
                class,
                property,
                expected,
            } => of(texts::PROPERTY_TYPE, class, property).with("expected", expected),
            Self::NullKey { class, property } => of(texts::NULL_KEY, class, property),
        }
    }
}
told_by_text!(InstanceError);

/// An instance of a class. INVARIANT: `values` runs parallel to `class.properties`, and every value fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    class: Arc<Class>,
    values: Box<[Value]>,
}

impl Instance {
    /// An instance with the defaults of the class.
    #[must_use]
    pub fn new(class: &Arc<Class>) -> Self {
        let values = class.properties.iter().map(|p| p.default.clone()).collect();
        Self {
            class: class.clone(),
            values,
        }
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> &Arc<Class> {
        &self.class
    }

    /// Sets a property.
    ///
    /// # Errors
    /// [`InstanceError::UnknownProperty`] or [`InstanceError::WrongType`]; nothing is changed then.
    pub fn set(&mut self, property: &str, value: impl Into<Value>) -> Result<(), InstanceError> {
        let value = value.into();
        let unknown = || InstanceError::UnknownProperty {
            class: self.class.name.to_string(),
            property: property.to_owned(),
        };
        let n = self.class.index(property).ok_or_else(unknown)?;
        let declared = self.class.properties.get(n).ok_or_else(unknown)?;
        if !declared.accepts(&value) {
            return Err(InstanceError::WrongType {
                class: self.class.name.to_string(),
                property: property.to_owned(),
                expected: declared.declared_type(),
            });
        }
        if let Some(slot) = self.values.get_mut(n) {
            *slot = value;
        }
        Ok(())
    }

    /// [`Instance::set`] that hands the instance on, for building in one expression.
    ///
    /// # Errors
    /// As [`Instance::set`].
    pub fn with(mut self, property: &str, value: impl Into<Value>) -> Result<Self, InstanceError> {
        self.set(property, value)?;
        Ok(self)
    }

    /// The value of a property; `None` if the class has no such property.
    #[must_use]
    pub fn get(&self, property: &str) -> Option<&Value> {
        self.class.index(property).and_then(|n| self.values.get(n))
    }

    /// Every property with its value, in declared order.
    pub fn values(&self) -> impl Iterator<Item = (&super::class::Property, &Value)> {
        self.class.properties.iter().zip(&self.values)
    }

    /// Every property with its value, in the order of the names; as Windows writes instances.
    pub fn by_name(&self) -> impl Iterator<Item = (&super::class::Property, &Value)> {
        self.class
            .by_name()
            .iter()
            .filter_map(|n| Some((self.class.properties.get(*n)?, self.values.get(*n)?)))
    }

    /// The path of the instance: namespace, class and keys, no host.
    ///
    /// # Errors
    /// [`InstanceError::NullKey`].
    pub fn path(&self) -> Result<Path, InstanceError> {
        let mut path = Path::new(&self.class.namespace, self.class.name.clone());
        for (property, value) in self.values().filter(|(p, _)| p.key) {
            if value.is_null() {
                return Err(InstanceError::NullKey {
                    class: self.class.name.to_string(),
                    property: property.name.to_string(),
                });
            }
            path.keys.push((property.name.clone(), value.clone()));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cim::schema::{Schema, VIRTUALIZATION_V2};

    fn new(class: &str) -> Instance {
        Instance::new(Schema::builtin().class(VIRTUALIZATION_V2, class).unwrap())
    }

    #[test]
    fn what_does_not_belong_is_refused_and_changes_nothing() {
        let mut job = new("Msvm_ConcreteJob");
        job.set("percentcomplete", 5_u16).unwrap();
        let error = job.set("PercentComplete", 5_u32).unwrap_err();
        assert_eq!(
            error.to_string(),
            "property Msvm_ConcreteJob.PercentComplete takes uint16"
        );
        let error = job.set("Percent", 5_u16).unwrap_err();
        assert!(matches!(error, InstanceError::UnknownProperty { .. }));
        assert!(job.set("OperationalStatus", 2_u16).is_err());
        let with_null = Value::Array(vec![Value::Uint16(2), Value::Null]);
        assert!(job.set("OperationalStatus", with_null).is_err());
        assert_eq!(job.get("PercentComplete"), Some(&Value::Uint16(5)));
        job.set("OperationalStatus", vec![2_u16]).unwrap();
        assert_eq!(job.get("Percent"), None);
    }

    #[test]
    fn the_path_has_the_keys_in_class_order() {
        let vm = new("Msvm_ComputerSystem");
        let no_key = vm.path().unwrap_err();
        assert!(matches!(no_key, InstanceError::NullKey { .. }));
        let vm = vm
            .with("Name", "A")
            .and_then(|vm| vm.with("CreationClassName", "Msvm_ComputerSystem"))
            .unwrap();
        assert_eq!(
            vm.path().unwrap().to_string(),
            r#"root\virtualization\v2:Msvm_ComputerSystem.Name="A",CreationClassName="Msvm_ComputerSystem""#
        );
    }

    #[test]
    fn an_instance_belongs_only_where_one_is_embedded() {
        let error = Value::Instance(Box::new(new("Msvm_Error")));
        let mut job = new("Msvm_ConcreteJob");
        assert!(job.set("ErrorDescription", error).is_err());
    }
}
