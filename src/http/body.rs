//! Reading a request body, or getting it out of the way, within limits of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

use super::TransportLimits;

/// Most that is read of a body which nobody wants, so that its sender hears the answer before the
/// connection closes.
pub(super) const DISCARD: usize = 4 << 20;

/// Longest that is waited for it.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Why a body could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// More than the limit.
    TooLarge,
    /// Not there in time.
    TooSlow,
    /// Cut off, or no sound chunks.
    Broken,
}

/// The whole body, of so many octets at most. One that says beforehand that it is too large is not touched.
pub(super) async fn read<B>(
    body: &mut B,
    most: usize,
    limits: &TransportLimits,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > most {
        return Err(BodyError::TooLarge);
    }
    let began = Instant::now();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    loop {
        // Of a body in one piece no copy is made.
        let read = first.len() + whole.len();
        let due = began + limits.body(u64::try_from(read).unwrap_or(u64::MAX));
        let more = timeout_at(due, next(body)).await;
        let Some(more) = more.map_err(|_| BodyError::TooSlow)?? else {
            break;
        };
        if read + more.len() > most {
            return Err(BodyError::TooLarge);
        }
        if read == 0 {
            first = more;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.max(read + more.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&more);
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}

/// Reads and forgets. `false` if something is left; the connection has to close then.
pub(super) async fn discard(body: &mut Incoming) -> bool {
    matches!(timeout(DISCARD_TIME, pass_over(body)).await, Ok(Ok(())))
}

/// Reads and forgets what comes behind an answer, for as long as the connection's clock lets it. Where something is
/// left, the connection closes.
pub(super) async fn forget(mut body: Incoming) {
    if let Err(error) = pass_over(&mut body).await {
        tracing::debug!(?error, "the rest of a refused request");
    }
}

async fn pass_over(body: &mut Incoming) -> Result<(), BodyError> {
    let mut left = DISCARD;
    while let Some(bytes) = next(body).await? {
        left = left.checked_sub(bytes.len()).ok_or(BodyError::TooLarge)?;
    }
    Ok(())
}

/// The next piece of data; trailers are skipped.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(BodyError::Broken),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
