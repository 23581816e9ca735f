//! Texts of `xml` and of CIM-XML: why a text cannot be read.

super::messages! {
    AT = "xml.at", "{cause} at byte {at}";
    MALFORMED = "xml.malformed", "{reason}";
    DOCTYPE = "xml.doctype", "a document type declaration is not allowed";
    INSTRUCTION = "xml.instruction", "a processing instruction is not allowed";
    VERSION = "xml.version", "there is no XML {version}";
    ENTITY = "xml.entity", "the entity {entity} is not declared";
    PREFIX = "xml.prefix", "the prefix {prefix} is not declared";
    BAD_PREFIX = "xml.bad-prefix", "the prefix {prefix} must not be declared like this";
    BAD_DEFAULT = "xml.bad-default", "the default namespace (xmlns) must not be declared like this";
    CHARACTER = "xml.character", "a character that XML does not allow";
    NAME = "xml.name", "{name} is not a name";
    NAME_LENGTH = "xml.name-length", "a name or a namespace is longer than {max} bytes";
    ATTRIBUTE_TWICE = "xml.attribute-twice", "the attribute {attribute} stands twice";
    DEPTH = "xml.depth", "elements are nested too deeply";
    ATTRIBUTES = "xml.attributes", "an element has too many attributes";
    NAMESPACES = "xml.namespaces", "too many namespaces are declared";
    OUTSIDE_ROOT = "xml.outside-root", "content outside of the root element";
    INCOMPLETE = "xml.incomplete", "the text ends too early";

    INSTANCE_XML = "cimxml.xml", "the text is not well-formed: {cause}";
    INSTANCES = "cimxml.instances", "one INSTANCE element is expected, got {count}";
    ELEMENT = "cimxml.element", "{parent} holds {found}, expected {expected}";
    ATTRIBUTE = "cimxml.attribute", "{element} needs the attribute {attribute}";
    NO_CLASS = "cimxml.no-class", "there is no class {class} in {namespace}";
    NO_PROPERTY = "cimxml.no-property", "class {class} has no property {property}";
    PROPERTY_TWICE = "cimxml.property-twice", "property {class}.{property} stands twice";
    VALUE = "cimxml.value", "property {class}.{property} takes {expected}, got {got}";
    INSTANCE_DEPTH = "cimxml.depth", "instances are nested too deeply";
}
