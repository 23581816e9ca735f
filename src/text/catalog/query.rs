//! Texts of queries: what is wrong in the text of a query, and where.

super::messages! {
    TOO_LONG = "query.too-long", "the query is longer than {max} bytes";
    SYNTAX = "query.syntax", "line {line}, column {column}: expected {expected}, got {got}";
    TOO_DEEP = "query.too-deep", "line {line}, column {column}: conditions are nested more than {max} deep";
    TOO_MANY = "query.too-many", "line {line}, column {column}: there are more than {max} {what}";
    NO_CLASS = "query.no-class", "line {line}, column {column}: there is no class {class} in the namespace {namespace}";
    NO_PROPERTY = "query.no-property", "line {line}, column {column}: the class {class} has no property {property}";
    NO_OTHER_CLASS = "query.no-other-class", "line {line}, column {column}: {qualifier} is neither the class of the query nor its alias";
    ARRAY = "query.array", "line {line}, column {column}: {property} is an array; a condition compares single values, or tests an array with IS NULL";
    NO_ARRAY = "query.no-array", "line {line}, column {column}: {property} is no array";
    TYPE_CLASH = "query.type-clash", "line {line}, column {column}: {property} is of type {type} and cannot be compared with {literal}";
    TWO_TYPES = "query.two-types", "line {line}, column {column}: {left} ({left_type}) and {right} ({right_type}) cannot be compared";
    NO_ORDER = "query.no-order", "line {line}, column {column}: values of type {type} have no order; compare them with = or <>";
    NO_PATTERN = "query.no-pattern", "line {line}, column {column}: {property} is of type {type}; LIKE takes a string property";
    BAD_PATTERN = "query.bad-pattern", "line {line}, column {column}: the pattern {pattern} has '[' without ']'";
    NO_PATH = "query.no-path", "line {line}, column {column}: {text} is no object path: {reason}";
    NOT_ISA = "query.not-isa", "line {line}, column {column}: {property} is of type {type}; ISA takes __THIS or a reference";
    NULL_ORDER = "query.null-order", "line {line}, column {column}: NULL is compared with =, <> or IS only";
    NO_QUALIFIER = "query.no-qualifier", "line {line}, column {column}: {keyword} takes the name of a qualifier or class, got {got}";
    NOT_OFFERED = "query.not-offered", "line {line}, column {column}: {what} is not offered in a query that enumerates instances";
    TWICE = "query.twice", "line {line}, column {column}: {what} stands twice";
    XPATH_ROOT = "query.xpath-root", "line {line}, column {column}: on the URI of all classes the filter begins with the class of the instances, as in Msvm_ComputerSystem[ElementName = 'web']";
    XPATH_STEP = "query.xpath-step", "line {line}, column {column}: {name} is neither a property of {class} nor the name of a class";
    XPATH_CLASS = "query.xpath-class", "line {line}, column {column}: no instance of {class} can be a {name}";
    XPATH_BELOW = "query.xpath-below", "line {line}, column {column}: there is nothing below {above} that a filter could ask for";
    XPATH_POSITION = "query.xpath-position", "line {line}, column {column}: [{got}] is no position in {property}: an array has positions, from 1, before any condition";
    XPATH_NO_VALUE = "query.xpath-no-value", "line {line}, column {column}: there is no value here that could be compared; name a property";
    XPATH_ARRAY = "query.xpath-array", "line {line}, column {column}: {property} is an array; name one of its values by its position, as in {property}[1]";
    XPATH_ORDER = "query.xpath-order", "line {line}, column {column}: {property} is of type {type}, and XPath orders numbers only; compare it with = or !=";
    XPATH_PART = "query.xpath-part", "line {line}, column {column}: {property} is of type {type}; {function}() takes a single string";
    XPATH_BOOLEAN = "query.xpath-boolean", "line {line}, column {column}: {what} is not offered; the values of booleans are compared with 'true' and 'false' in quotes";
    SELECTOR_REFERENCE = "query.selector-reference", "the selector {selector} of the filter is an endpoint reference; a selector filter compares text";
    SELECTOR_QUOTE = "query.selector-quote", "the value of the selector {selector} of the filter holds a quotation mark";
    SELECTOR_PROPERTY = "query.selector-property", "the selector {selector} of the filter is no property of {class}";
    SELECTOR_TYPE = "query.selector-type", "the selector {selector} of the filter is of type {type}; a selector filter takes no arrays, datetimes and references";
    SELECTOR_VALUE = "query.selector-value", "the selector {selector} of the filter takes {expected}, got {got}";
    SELECTOR_EMPTY = "query.selector-empty", "a selector filter holds one w:SelectorSet with at least one w:Selector";
}
