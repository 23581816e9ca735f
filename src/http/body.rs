//! Reading a request body, or getting it out of the way, within limits of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

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

/// The whole body. One that says beforehand that it is too large is not touched.
pub(super) async fn read(
    body: &mut Incoming,
    limit: usize,
    time: Duration,
) -> Result<Bytes, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(BodyError::TooLarge);
    }
    match timeout(time, collect(body, announced, limit)).await {
        Ok(result) => result,
        Err(_) => Err(BodyError::TooSlow),
    }
}

async fn collect(body: &mut Incoming, announced: usize, limit: usize) -> Result<Bytes, BodyError> {
    let Some(first) = next(body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(announced.max(first.len()));
    whole.extend_from_slice(&first);
    while let Some(more) = next(body).await? {
        if whole.len() + more.len() > limit {
            return Err(BodyError::TooLarge);
        }
        whole.extend_from_slice(&more);
    }
    Ok(whole.freeze())
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
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
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
