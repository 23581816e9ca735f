//! Texts of `http`: the plain answers that carry no envelope.

super::messages! {
    /// 400
    BAD_REQUEST = "http.bad-request", "The request is no sound HTTP message: {reason}.";
    /// 401
    UNAUTHORIZED = "http.unauthorized", "A user name and password are required.";
    /// 403
    NO_SCHEME = "http.no-scheme", "No authentication is offered on this connection: over plain HTTP from another host passwords are not accepted (setting auth.allow_unencrypted).";
    /// 403
    NO_USER = "http.no-user", "Only a client certificate that stands for a user is accepted on this connection.";
    /// 403
    CROSS_SITE = "http.cross-site", "A web page ({origin}) sends this request, and pages of that origin are not allowed to (setting http.allowed_origins).";
    /// 404
    NOT_FOUND = "http.not-found", "There is nothing at this path; WS-Management is at /wsman.";
    /// 405
    METHOD = "http.method", "Only POST is answered here.";
    /// 413
    TOO_LARGE = "http.too-large", "The request is larger than {limit} octets.";
    /// 415
    MEDIA_TYPE = "http.media-type", "The media type {found} is not understood; application/soap+xml is.";
    /// 415
    CODING = "http.coding", "The content coding {found} is not understood.";
    /// 500, rule T-13
    TOO_SLOW = "http.too-slow", "The request did not arrive within {seconds} seconds, or after {grace} seconds not at {rate} octets a second.";
    /// 500
    INTERNAL = "http.internal", "The server failed while it answered; its log has the details.";
    /// 503
    OVERLOAD = "http.overload", "Too many connections are open.";
    /// 503
    USER_OVERLOAD = "http.user-overload", "This user has too many connections open; {limit} are allowed.";
    /// 503
    STOPPING = "http.stopping", "The server is shutting down.";
}
