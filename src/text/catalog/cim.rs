//! Texts of `cim`: why values, object paths and instances are not what they should be. They are causes in the sentences
//! of others.

super::messages! {
    PATH_HOST = "cim.path-host", "a path with a host needs a namespace and ':' before the class";
    PATH_NAMESPACE = "cim.path-namespace", "'{namespace}' is no namespace";
    PATH_CLASS = "cim.path-class", "'{class}' is no class name";
    PATH_AFTER_CLASS = "cim.path-after-class", "after class {class} the keys must follow a '.'";
    PATH_KEY = "cim.path-key", "'{key}' is no key name";
    PATH_EQUALS = "cim.path-equals", "'=' must follow the key {key}";
    PATH_VALUE = "cim.path-value", "the value of key {key} must be quoted, a number, TRUE or FALSE";
    PATH_QUOTE = "cim.path-quote", "the value of key {key} has no closing quote";
    PATH_KEY_TWICE = "cim.path-key-twice", "the key {key} stands twice";
    PATH_AFTER_VALUE = "cim.path-after-value", "after the value of key {key} ',' or the end must follow";
    PATH_KEYS = "cim.path-keys", "the path has more than {max} keys";
    PATH_DEPTH = "cim.path-depth", "paths are nested too deeply";

    KEY_MISSING = "cim.key-missing", "the path of a {class} needs the key {key}";
    KEY_UNKNOWN = "cim.key-unknown", "{key} is no key of {class}";
    KEY_TYPE = "cim.key-type", "the key {class}.{key} takes {expected}, got {got}";
    NO_NAMESPACE = "cim.no-namespace", "there is no namespace {namespace}";
    NO_CLASS = "cim.no-class", "there is no class {class} in {namespace}";

    NO_PROPERTY = "cim.no-property", "class {class} has no property {property}";
    PROPERTY_TYPE = "cim.property-type", "property {class}.{property} takes {expected}";
    NULL_KEY = "cim.null-key", "key property {class}.{property} has no value";

    TYPE = "cim.type", "expected {expected}, got {got}";
    ELEMENT = "cim.element", "the element {element}";
    ELEMENT_IN = "cim.element-in", "the element {element} in {parent}";
    ELEMENT_LACKS = "cim.element-lacks", "{element} without {what}";
    ELEMENT_LACKS_BOTH = "cim.element-lacks-both", "{element} without {what} and {other}";
    KEY_TWICE = "cim.key-twice", "the key {key} twice";
    KEY_TEXT = "cim.key-text", "'{text}' as key {key}";
    ARRAY = "cim.array", "an array";
    ONE_VALUE = "cim.one-value", "one value";
}
