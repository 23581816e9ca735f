//! Texts of `text::reader`: what is wrong with a text in TOML or JSON. They are causes in the sentences of others.

super::messages! {
    AT = "reader.at", "line {line}, column {column}: {reason}";
    AT_COLUMN = "reader.at-column", "column {column}: {reason}";
    NOT_UTF8 = "reader.not-utf8", "it is not UTF-8 text";
    DAMAGED = "reader.damaged", "is damaged: {reason}";
    DAMAGED_CHECKSUM = "reader.damaged-checksum", "is damaged: its checksum is wrong";
    NOT_JSON = "reader.not-json", "not valid JSON at line {line}, column {column}";

    EXPECTED = "reader.expected", "expected {expected}";
    EXPECTED_FOUND = "reader.expected-found", "expected {expected}, found {found}";
    EXPECTED_THERE = "reader.expected-there", "{wrong}; expected {expected}";
    UNKNOWN_KEY = "reader.unknown-key", "unknown key {key}";
    UNKNOWN_KEY_OF = "reader.unknown-key-of", "unknown key {key}, expected {known}";
    MISSING_KEY = "reader.missing-key", "the key {key} is missing";

    WHOLE_NUMBER = "reader.whole-number", "a whole number, 0 or more";
    WHOLE_NUMBER_TO = "reader.whole-number-to", "a whole number from 0 to {last}";
    BOOLEAN = "reader.boolean", "true or false";
    QUOTED_TEXT = "reader.quoted-text", "a text in quotes";
    QUOTED_PATH = "reader.quoted-path", "a path in quotes";
    ADDRESS = "reader.address", "an address with a port, such as \"127.0.0.1:5985\" or \"[::]:5986\"";
    LIST_IN_BRACKETS = "reader.list-in-brackets", "a list in [ ]";
    TABLE = "reader.table", "a table";
    TABLE_OF_KEYS = "reader.table-of-keys", "a table of keys";
    LIST = "reader.list", "a list";
    DATE = "reader.date", "a date";
    NUMBER = "reader.number", "the number {number}";
    A_KEY = "reader.a-key", "a key";
    A_VALUE = "reader.a-value", "a value";
    LINE_END = "reader.line-end", "the end of the line";
    LETTERS = "reader.letters", "letters, digits, - or _";

    LINE_GOES_ON = "reader.line-goes-on", "the line goes on where it should end";
    UNQUOTED = "reader.unquoted", "there is no value, or a text without quotes";
    ESCAPE = "reader.escape", "what stands behind \\ in a text means nothing";
    OPEN_TEXT = "reader.open-text", "a text in quotes is not closed, or has a character that must not stand in it";
    KEY_TWICE = "reader.key-twice", "the key stands twice";
    NO_VALUE = "reader.no-value", "the key has no value";
    VALUE_MISSING = "reader.value-missing", "a value is missing";
    COMMA = "reader.comma", "a comma is missing, or there is one too many";
    OPEN_BRACKET = "reader.open-bracket", "a bracket is not closed";
    NO_BRACKET = "reader.no-bracket", "a bracket is missing";
    TOO_DEEP = "reader.too-deep", "lists or tables are nested too deep";
    COMMENT_WRONG = "reader.comment-wrong", "the comment is not valid";
    CARRIAGE_RETURN = "reader.carriage-return", "a line ends with a carriage return and no line feed";
    NUMBER_WRONG = "reader.number-wrong", "the number is not valid";
    DATE_WRONG = "reader.date-wrong", "the date or time is not valid";
    KEY_WRONG = "reader.key-wrong", "the key is not valid";
    VALUE_WRONG = "reader.value-wrong", "the value is not valid";
    LIST_WRONG = "reader.list-wrong", "the list is not valid";
    TABLE_WRONG = "reader.table-wrong", "the table is not valid";
    OUT_OF_PLACE = "reader.out-of-place", "something stands there that does not belong there";
}
