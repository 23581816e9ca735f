//! Texts of `job`.

super::messages! {
    /// ErrorDescription of a job that was cancelled.
    CANCELLED = "job.cancelled", "The job was cancelled by {user}; what it had done was undone.";
    /// The same of one that has ended before that.
    CANCELLED_UNDOING = "job.cancelled-undoing", "The job was cancelled by {user}; what it had done is being undone.";
    /// ErrorDescription of a job whose worker went away without a word.
    WORKER_LOST = "job.worker-lost", "The job stopped because of an internal error of the server; the server's log has the details.";
}
