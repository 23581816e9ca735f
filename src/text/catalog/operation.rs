//! Texts of `operation`.

super::messages! {
    AUTHENTICATION_NEEDED = "operation.authentication-needed", "only Identify is answered without authentication";
    UNKNOWN_CONTEXT = "operation.unknown-context", "there is no open enumeration {context}: it has ended, was released, or nobody pulled it for too long";
    FOREIGN_CONTEXT = "operation.foreign-context", "the enumeration {context} was opened by another user";
    BUSY_CONTEXT = "operation.busy-context", "another Pull is working on the enumeration {context}";
    TOO_MANY_CONTEXTS = "operation.too-many-contexts", "user {user} has {limit} open enumerations, which is the limit; pull them to the end or release them";
    TOO_MANY_CONTEXTS_IN_TOTAL = "operation.too-many-contexts-in-total", "the server has {limit} open enumerations, which is the limit; try again later";
    CONTEXTS_TOO_LONG = "operation.contexts-too-long", "the open enumerations of user {user} were asked for with {limit} octets, which is the limit; pull them to the end or release them, or ask with shorter filters";
    CONTEXTS_TOO_LONG_IN_TOTAL = "operation.contexts-too-long-in-total", "the open enumerations of all users were asked for with {limit} octets, which is the limit; try again later, or with a shorter filter";
    TOO_MANY_REQUESTS = "operation.too-many-requests", "user {user} has {limit} requests under way, which is the limit; try again when one of them has ended";
    EXPIRES_IN_THE_PAST = "operation.expires-in-the-past", "n:Expires {time} is not in the future";
    ANSWER_TOO_LARGE = "operation.answer-too-large", "the answer needs {size} octets, the request allows {limit} (MaxEnvelopeSize)";
    ITEM_TOO_LARGE = "operation.item-too-large", "the next item is larger than the request allows (MaxEnvelopeSize, MaxCharacters)";
    UNREPORTABLE = "operation.unreportable", "method {method} was carried out; its answer needs {size} octets, the request allows {limit} (MaxEnvelopeSize)";
    TIMED_OUT = "operation.timed-out", "method {method} did not end within {seconds} s (OperationTimeout); it may still end";
    ENUMERATE_TIMED_OUT = "operation.enumerate-timed-out", "the enumeration was not begun within {seconds} s (OperationTimeout): others of this user are evaluated; try again with fewer at a time";
    NO_ITEM_IN_TIME = "operation.no-item-in-time", "no item was found within {seconds} s (OperationTimeout); the enumeration stays open, and another Pull goes on where it stands";
    NO_ITEM_IN_MAX_TIME = "operation.no-item-in-max-time", "no item was found within {seconds} s (MaxTime); the enumeration stays open, and another Pull goes on where it stands";
    LATE = "operation.late", "OperationTimeout ({seconds} s) had passed before the operation could begin";
    READ_TIMED_OUT = "operation.read-timed-out", "the request had not arrived and been parsed within {seconds} s (OperationTimeout); if other requests of this user are under way, try again with fewer at a time";
    BROKEN_EVALUATION = "operation.broken-evaluation", "the evaluation broke down; the log of the server tells more";
    GET_TIMED_OUT = "operation.get-timed-out", "the instance of {class} was not found within {seconds} s (OperationTimeout)";
    AUDIT_SILENT = "operation.audit-silent", "nothing was done: the audit log takes no line, for its file {file} does not answer; mend that and try again";
    AUDIT_UNREAD = "operation.audit-unread", "nothing was done: the log takes no line of the audit log, for nobody reads what the server writes to standard error; mend that and try again";
    BROKEN_METHOD = "operation.broken-method", "method {method} ended without a result";
}
