//! What a job says of the disks that its set leaves out.

use crate::inventory::LeftOut;
use crate::text::Text;
use crate::text::catalog::snapshot as texts;

/// The status of a job, and what is left out of its set.
pub(crate) fn told_with(status: Text, left_out: Option<LeftOut>) -> Text {
    match left_out {
        None => status,
        Some(LeftOut { count, named }) => texts::LEFT_OUT
            .with("status", status)
            .with("count", count)
            .with("disks", named),
    }
}
