//! The table of faults: code, subcode, detail, action and Microsoft's number of each.
//!
//! Subcodes and details are those of DSP0226 annex and DSP0227; the numbers and most names are Windows'
//! `ERROR_WSMAN_*`. A row without a number of its own carries that of `UNSUPPORTED_FEATURE`.

use super::{Action, Code, FaultKind};

/// Declares the kinds and their list.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $code:ident $subcode:literal $detail:literal $action:ident $number:literal;)*) => {
        $($(#[doc = $doc])* pub static $name: FaultKind = FaultKind {
            name: stringify!($name),
            code: Code::$code,
            subcode: $subcode,
            detail: $detail,
            action: Action::$action,
            number: $number,
        };)*
        /// Every kind.
        pub static ALL: &[&FaultKind] = &[$(&$name),*];
    };
}

kinds! {
    /// SOAP 1.1/unknown envelope ns.
    SOAP_VERSION_MISMATCH = VersionMismatch "" "" A 2150858765;
    /// Unknown header with mU (+ s:NotUnderstood header).
    SOAP_FAULT_MUST_UNDERSTAND = MustUnderstand "" "" A 2150858768;
    /// Authenticated but not authorised (Code="5"); Pull/Release by other user (R8.1-6); cert mapping fails.
    ACCESS_DENIED = Sender "w:AccessDenied" "" W 5;
    /// Method/operation not valid for this class, unknown method.
    ACTION_MISMATCH = Sender "a:ActionNotSupported" "ActionMismatch" A 2150858801;
    /// Action not implemented.
    ACTION_NOT_SUPPORTED = Sender "a:ActionNotSupported" "" A 2150858771;
    /// Action is malformed / not an action URI.
    INVALID_ACTIONURI = Sender "a:ActionNotSupported" "" A 2150858753;
    /// Create: instance exists.
    ALREADY_EXISTS = Sender "w:AlreadyExists" "" W 2150858803;
    /// Filter error in Enumerate: bad query, broken rule of a selector filter, association Object that is
    /// not exactly one instance (R8.2.1-4).
    ENUMERATE_CANNOT_PROCESS_FILTER = Sender "n:CannotProcessFilter" "" N 2150858778;
    /// Operation conflicts with another in progress.
    CONCURRENCY = Sender "w:Concurrency" "" W 2150858802;
    /// Subscribe: unknown Delivery/@Mode (detail: e:SupportedDeliveryMode).
    EVENTING_DELIVERY_MODE_REQUESTED_UNAVAILABLE = Sender "e:DeliveryModeRequestedUnavailable" "" E 2150858782;
    /// Sink answers this to stop the subscription.
    DELIVERY_REFUSED = Receiver "w:DeliveryRefused" "" W 2150858804;
    /// ResourceURI syntax / unknown prefix.
    INVALID_RESOURCE_URI = Sender "a:DestinationUnreachable" "InvalidResourceURI" A 2150858811;
    /// Unknown class or namespace.
    RESOURCE_NOT_FOUND = Sender "a:DestinationUnreachable" "InvalidResourceURI" A 2150858752;
    /// Resource or instance not reachable / not found.
    DESTINATION_UNREACHABLE = Sender "a:DestinationUnreachable" "" A 2150858770;
    /// URI > 2048.
    URI_LIMIT = Sender "w:EncodingLimit" "URILimitExceeded" W 2150858797;
    /// MaxEnvelopeSize < 8192.
    MIN_ENVELOPE_SIZE = Sender "w:EncodingLimit" "MinimumEnvelopeLimit" W 2150858878;
    /// MaxEnvelopeSize value unusable.
    MAX_ENVELOPE_SIZE = Sender "w:EncodingLimit" "MaxEnvelopeSize" W 2150858823;
    /// Response (or single item) larger than MaxEnvelopeSize.
    MAX_ENVELOPE_SIZE_EXCEEDED = Sender "w:EncodingLimit" "MaxEnvelopeSizeExceeded" W 2150858824;
    /// Request larger than the service accepts (Windows: HTTP 413).
    SERVER_ENVELOPE_LIMIT = Sender "w:EncodingLimit" "ServiceEnvelopeLimit" W 2150858825;
    /// Too many/long selectors.
    SELECTOR_LIMIT = Sender "w:EncodingLimit" "SelectorLimit" W 2150858826;
    /// Too many/long options.
    OPTION_LIMIT = Sender "w:EncodingLimit" "OptionLimit" W 2150858827;
    /// Unsupported charset.
    CHARACTER_SET = Sender "w:EncodingLimit" "CharacterSet" W 2150858828;
    /// Operation done, response cannot be expressed/too large.
    UNREPORTABLE_SUCCESS = Sender "w:EncodingLimit" "UnreportableSuccess" W 2150858829;
    /// Whitespace handling problem.
    WHITESPACE = Sender "w:EncodingLimit" "Whitespace" W 2150858830;
    /// Encoding of attachment/text unusable.
    ENCODING_TYPE = Sender "w:EncodingLimit" "EncodingType" W 2150859033;
    /// Other encoding limit.
    ENCODING_LIMIT = Sender "w:EncodingLimit" "" W 2150858805;
    /// Endpoint temporarily unavailable (RetryAfter).
    ENDPOINT_UNAVAILABLE_INVALID_VALUE = Receiver "a:EndpointUnavailable" "InvalidValues" A 2150859034;
    /// Service/vmm temporarily down; optional detail a:RetryAfter ms, faultDetail/ResourceOffline.
    ENDPOINT_UNAVAILABLE = Receiver "a:EndpointUnavailable" "" A 2150858772;
    /// NotifyTo not reachable at Subscribe.
    EVENTING_LOOPBACK_TESTFAILED = Sender "e:EventSourceUnableToProcess" "UnusableAddress" E 2150858901;
    /// Source cannot start subscription (Pegasus: Sender).
    EVENTING_SOURCE_UNABLE_TO_PROCESS = Receiver "e:EventSourceUnableToProcess" "" E 2150858787;
    /// Unknown Filter/@Dialect in Enumerate (detail n:SupportedDialect).
    ENUMERATE_FILTER_DIALECT_REQUESTED_UNAVAILABLE = Sender "n:FilterDialectRequestedUnavailable" "" N 2150858777;
    /// Filter on an event source without filtering.
    EVENTING_FILTERING_NOT_SUPPORTED = Sender "e:FilteringNotSupported" "" E 2150858785;
    /// Filter on a non-CIM URI.
    ENUMERATE_FILTERING_NOT_SUPPORTED = Sender "n:FilteringNotSupported" "" N 2150858776;
    /// Fragment/filter expression not processable.
    CANNOT_PROCESS_FILTER = Sender "w:CannotProcessFilter" "" W 2150859042;
    /// All-classes Subscribe without filter.
    FILTERING_REQUIRED = Sender "e:FilteringRequestedUnavailable" "FilteringRequired" E 2150858831;
    /// Unknown Filter/@Dialect in Subscribe (detail e:SupportedDialect).
    EVENTING_FILTERING_REQUESTED_UNAVAILABLE = Sender "e:FilteringRequestedUnavailable" "" E 2150858786;
    /// Anything else; provider failure; Code = Win32/HRESULT.
    INTERNAL_ERROR = Receiver "w:InternalError" "" W 1359;
    /// OperationTimeout not a positive xs:duration.
    INVALID_TIMEOUT_HEADER = Sender "a:InvalidMessageInformationHeader" "InvalidTimeout" W 2150858881;
    /// FragmentTransfer/@Dialect unknown.
    FRAGMENT_DIALECT_REQUESTED_UNAVAILABLE = Receiver "w:FragmentDialectNotSupported" "" W 2150858896;
    /// Fragment path invalid, starts with "/", addresses nothing in the representation.
    INVALID_FRAGMENT_PATH = Sender "w:CannotProcessFilter" "" W 2150858899;
    /// Bookmark too old.
    BOOKMARK_EXPIRED = Sender "w:InvalidBookmark" "Expired" W 2150858832;
    /// Bookmark malformed (Invalid, InvalidFormat).
    INVALID_BOOKMARK = Sender "w:InvalidBookmark" "" W 2150858808;
    /// Unknown, expired, finished or released context in Pull/Release.
    ENUMERATE_INVALID_ENUMERATION_CONTEXT = Receiver "n:InvalidEnumerationContext" "" N 2150858779;
    /// Subscribe/Renew Expires in the past/≤0.
    EVENTING_INVALID_EXPIRATION_TIME = Sender "e:InvalidExpirationTime" "" E 2150858783;
    /// Enumerate Expires in the past/≤0.
    ENUMERATE_INVALID_EXPIRATION_TIME = Sender "n:InvalidExpirationTime" "" N 2150858774;
    /// Delivery/@Mode invalid.
    EVENTING_DELIVERY_MODE_REQUESTED_INVALID = Sender "e:InvalidMessage" "" E 2150858920;
    /// Bad/duplicate header, MessageID empty, FragmentTransfer mU=false, SequenceId≠1.
    INVALID_MESSAGE_INFORMATION_HEADER = Sender "a:InvalidMessageInformationHeader" "" A 2150858767;
    /// MustComply option not supported.
    OPTIONS_NOT_SUPPORTED = Sender "w:InvalidOptions" "NotSupported" W 2150858833;
    /// OptionSet not usable here.
    UNSUPPORTED_FEATURE_OPTIONS = Sender "w:InvalidOptions" "NotSupported" W 2150858918;
    /// Option name unknown.
    OPTIONS_INVALID_NAME = Sender "w:InvalidOptions" "InvalidName" W 2150858834;
    /// Option value bad.
    OPTIONS_INVALID_VALUE = Sender "w:InvalidOptions" "InvalidValue" W 2150858835;
    /// Other option error.
    INVALID_OPTIONS = Sender "w:InvalidOptions" "" W 2150858809;
    /// Invoke: parameter value not of the CIM type.
    PARAMETER_TYPE_MISMATCH = Sender "w:InvalidParameter" "TypeMismatch" W 2150858836;
    /// Invoke: unknown parameter.
    INVALID_PARAMETER_NAME = Sender "w:InvalidParameter" "InvalidName" W 2150858837;
    /// Invoke: other parameter error.
    INVALID_PARAMETER = Sender "w:InvalidParameter" "" W 2150858810;
    /// Put/Create: bad value.
    INVALID_XML_VALUES = Sender "x:InvalidRepresentation" "InvalidValues" X 2150858838;
    /// Put/Create: required value absent.
    INVALID_XML_MISSING_VALUES = Sender "x:InvalidRepresentation" "MissingValues" X 2150858839;
    /// Put/Create: element ns/name ≠ class.
    INVALID_XML_NAMESPACE = Sender "x:InvalidRepresentation" "InvalidNamespace" X 2150858840;
    /// Fragment Put: body not matching the fragment.
    INVALID_XML_FRAGMENT = Sender "x:InvalidRepresentation" "InvalidFragment" X 2150858841;
    /// Other Put/Create body error.
    INVALID_REPRESENTATION = Sender "x:InvalidRepresentation" "" X 2150858773;
    /// A key is missing.
    INSUFFICIENT_SELECTORS = Sender "w:InvalidSelectors" "InsufficientSelectors" W 2150858842;
    /// No selectors on a class that is no singleton (Windows).
    INVALID_URI_WMI_SINGLETON = Sender "w:InvalidSelectors" "InsufficientSelectors" W 2150859002;
    /// Selector is not a key.
    UNEXPECTED_SELECTORS = Sender "w:InvalidSelectors" "UnexpectedSelectors" W 2150858843;
    /// EPR where text expected or v.v.
    SELECTOR_TYPEMISMATCH = Sender "w:InvalidSelectors" "TypeMismatch" W 2150858844;
    /// Value not parsable.
    INVALID_SELECTOR_VALUE = Sender "w:InvalidSelectors" "InvalidValue" W 2150858845;
    /// More than one instance matches.
    AMBIGUOUS_SELECTORS = Sender "w:InvalidSelectors" "AmbiguousSelectors" W 2150858846;
    /// Same name twice.
    DUPLICATE_SELECTORS = Sender "w:InvalidSelectors" "DuplicateSelectors" W 2150858847;
    /// Other.
    INVALID_SELECTORS = Sender "w:InvalidSelectors" "" W 2150858813;
    /// Required wsa header absent (To, Action, ReplyTo, MessageID).
    MESSAGE_INFORMATION_HEADER_REQUIRED = Sender "a:MessageInformationHeaderRequired" "" A 2150858769;
    /// Sink did not acknowledge.
    NO_ACK = Sender "w:NoAck" "" W 2150858800;
    /// Plugin/user/system quota.
    QUOTA_LIMIT = Sender "w:QuotaLimit" "" W 2150858815;
    /// Shell quota.
    QUOTA_MAX_SHELLS = Sender "w:QuotaLimit" "" W 2150859173;
    /// Malformed SOAP/body.
    SCHEMA_VALIDATION_ERROR = Sender "w:SchemaValidationError" "" W 2150858817;
    /// Pull MaxTime elapsed without an item.
    ENUMERATE_TIMED_OUT = Receiver "n:TimedOut" "" N 2150858780;
    /// OperationTimeout elapsed.
    OPERATION_TIMEDOUT = Receiver "w:TimedOut" "" W 2150858793;
    /// Renew not possible (Windows: always).
    EVENTING_UNABLE_TO_RENEW = Receiver "e:UnableToRenew" "" E 2150858788;
    /// DateTime given, only duration supported (or v.v.).
    EVENTING_UNSUPPORTED_EXPIRATION_TYPE = Sender "e:UnsupportedExpirationType" "" E 2150858784;
    /// As left, for Enumerate.
    ENUMERATE_UNSUPPORTED_EXPIRATION_TYPE = Sender "n:UnsupportedExpirationType" "" N 2150859036;
    /// Optional feature not offered: AuthorizationMode.
    AUTHORIZATION_MODE_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "AuthorizationMode" W 2150858852;
    /// ReplyTo/FaultTo not anonymous; EndTo in Enumerate.
    UNSUPPORTED_ADDRESSING_MODE = Sender "w:UnsupportedFeature" "AddressingMode" W 2150858870;
    /// Optional feature not offered: Ack.
    ACK_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "Ack" W 2150858853;
    /// Optional feature not offered: OperationTimeout.
    OPERATION_TIMEOUT_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "OperationTimeout" W 2150858854;
    /// Locale mU=true.
    MUSTUNDERSTAND_ON_LOCALE_UNSUPPORTED = Sender "w:UnsupportedFeature" "Locale" W 2150858887;
    /// Unknown EnumerationMode.
    ENUMERATION_MODE_UNSUPPORTED = Sender "w:UnsupportedFeature" "EnumerationMode" W 2150858886;
    /// Optional feature not offered: ExpirationTime.
    EXPIRATION_TIME_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "ExpirationTime" W 2150858856;
    /// Fragment access / IncludeResultProperty unsupported.
    FRAGMENT_TRANSFER_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "FragmentLevelAccess" W 2150858871;
    /// Optional feature not offered: DeliveryRetries.
    DELIVERY_RETRIES_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "DeliveryRetries" W 2150858857;
    /// Optional feature not offered: Heartbeats.
    HEARTBEATS_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "Heartbeats" W 2150858858;
    /// Optional feature not offered: Bookmarks.
    BOOKMARKS_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "Bookmarks" W 2150858859;
    /// Bad MaxElements (0, text).
    MAX_ELEMENTS_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "MaxElements" W 2150859037;
    /// Optional feature not offered: MaxTime.
    MAXTIME_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "MaxTime" W 2150858861;
    /// Optional feature not offered: MaxEnvelopeSize.
    MAXENVELOPE_SIZE_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "MaxEnvelopeSize" W 2150858862;
    /// Optional feature not offered: MaxEnvelopePolicy.
    MAXENVELOPE_POLICY_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "MaxEnvelopePolicy" W 2150858863;
    /// Optional feature not offered: FilteringRequired.
    FILTERING_REQUIRED_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "FilteringRequired" W 2150858864;
    /// Optional feature not offered: InsecureAddress.
    INSECURE_ADDRESS_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "InsecureAddress" W 2150858865;
    /// Optional feature not offered: FormatMismatch.
    FORMAT_MISMATCH_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "FormatMismatch" W 2150858866;
    /// Optional feature not offered: FormatSecurityToken.
    FORMAT_SECURITY_TOKEN_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "FormatSecurityToken" W 2150858867;
    /// Optional feature not offered: AsynchronousRequest.
    ASYNCHRONOUS_REQUEST_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "AsynchronousRequest" W 2150858818;
    /// Optional feature not offered: MissingValues.
    MISSING_VALUES_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "MissingValues" W 2150858818;
    /// Optional feature not offered: InvalidValues.
    INVALID_VALUES_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "InvalidValues" W 2150858818;
    /// Optional feature not offered: InvalidNamespace.
    INVALID_NAMESPACE_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "InvalidNamespace" W 2150858818;
    /// Optional feature not offered: OptionSet.
    OPTION_SET_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "OptionSet" W 2150858818;
    /// Other optional feature.
    UNSUPPORTED_FEATURE = Sender "w:UnsupportedFeature" "" W 2150858818;
    /// Subscribe: w:Locale in e:Delivery without xml:lang.
    EVENTING_MISSING_LOCALE_IN_DELIVERY = Sender "w:SchemaValidationError" "" W 2150859028;
    /// Subscribe: w:Heartbeats is no duration.
    EVENTING_INVALID_HEARTBEAT = Sender "e:InvalidMessage" "" E 2150858916;
    /// Subscribe: anything else wrong with the message.
    EVENTING_INVALID_MESSAGE = Sender "e:InvalidMessage" "" E 2150858789;
    /// Subscribe in a push mode without e:NotifyTo.
    EVENTING_MISSING_NOTIFYTO = Sender "e:InvalidMessage" "" E 2150858912;
    /// Subscribe: e:NotifyTo without a:Address.
    EVENTING_MISSING_NOTIFYTO_ADDRESS = Sender "e:InvalidMessage" "" E 2150858913;
    /// Subscribe: the address of e:NotifyTo is unusable.
    EVENTING_INVALID_NOTIFYTO_ADDRESS = Sender "e:InvalidMessage" "" E 2150858914;
    /// XML that cannot be used where it stands.
    INVALID_XML = Sender "w:InternalError" "Invalid" W 2150858819;
    /// A language that is not offered.
    LOCALE_NOT_SUPPORTED = Sender "w:UnsupportedFeature" "Locale" W 2150858855;
    /// Generic (Code="87").
    WIN32_INVALID_PARAMETER = Sender "w:InvalidParameter" "InvalidValue" W 87;
    /// Subscribe: batch limits with a mode that has no batches.
    EVENTING_INCOMPATIBLE_BATCHPARAMS_AND_DELIVERYMODE = Sender "w:UnsupportedFeature" "FormatMismatch" A 2150858900;
    /// Subscribe: the address of e:EndTo is unusable.
    EVENTING_INVALID_ENDTO_ADDRESS = Sender "w:UnsupportedFeature" "AddressingMode" A 2150858902;
    /// Subscribe: w:Locale in e:Delivery names no language.
    EVENTING_INVALID_LOCALE_IN_DELIVERY = Sender "w:InvalidParameter" "Locale" W 2150858915;
    /// Whole request kind unsupported.
    REQUEST_NOT_SUPPORTED_AT_SERVICE = Sender "w:UnsupportedFeature" "InvalidResourceURI" W 2150859064;
    /// A delivery policy that is too complex.
    POLICY_TOO_COMPLEX = Receiver "w:EventDeliverToUnusable" "PolicyTooComplex" W 2150859101;
    /// A delivery policy that cannot be kept.
    POLICY_CANNOT_COMPLY = Receiver "w:EventDeliverToUnusable" "CannotComplyWithPolicy" W 2150859102;
    /// PolymorphismMode unknown/unsupported (Pegasus: Sender).
    POLYMORPHISM_MODE_UNSUPPORTED = Receiver "b:PolymorphismModeNotSupported" "" W 2150859063;
    /// The selector __cimnamespace names another namespace than the resource URI (H-18).
    DIFFERENT_CIM_SELECTOR = Receiver "w:InternalError" "" W 2150859067;
    /// References are nested too deeply in selectors (H-17).
    EPR_NESTING_EXCEEDED = Sender "w:InvalidSelectors" "" W 2150858879;
    /// A query on the URI of another class (E-40).
    INVALID_URI_WMI_ENUM_WQL = Sender "n:CannotProcessFilter" "" N 2150859003;
    /// A filter whose markup is not that of its dialect (E-40, E-42).
    INVALID_FILTER_XML = Sender "n:CannotProcessFilter" "" N 2150859015;
    /// Enumerate with key selectors (E-9).
    ENUMERATE_WMI_INVALID_KEY = Sender "w:InvalidSelectors" "UnexpectedSelectors" W 2150859016;
    /// Too many operations or enumerations of one user.
    QUOTA_MAX_OPERATIONS = Sender "w:QuotaLimit" "" W 2150859174;
    /// Pull or Release by another user than that of the Enumerate (E-3).
    DIFFERENT_AUTHZ_TOKEN = Sender "w:AccessDenied" "" W 2150859177;
    /// Invoke: a required parameter is absent (I-2).
    PARAMETER_MISSING_VALUES = Sender "w:InvalidParameter" "MissingValues" W 2150858810;
    /// Invoke: a reference or path that cannot be read (I-4).
    PARAMETER_INVALID_VALUE = Sender "w:InvalidParameter" "InvalidValue" W 2150858810;
    /// No such instance.
    INSTANCE_NOT_FOUND = Sender "a:DestinationUnreachable" "" A 2150858752;
    /// A header that a rule requires in this form is there in another one.
    INVALID_HEADER = Sender "a:InvalidMessageInformationHeader" "" A 2150859035;
    /// p:DataLocale with mustUnderstand in a language that is not offered (H-22).
    DATA_LOCALE_UNSUPPORTED = Sender "w:UnsupportedFeature" "DataLocale" W 2150858887;
    /// A Content-Type that is no SOAP; normally answered 415 before (T-4).
    UNSUPPORTED_MEDIA = Sender "w:SchemaValidationError" "" W 2150858869;
}
