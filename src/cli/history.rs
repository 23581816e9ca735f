//! `groupshot history`: how operations ended, for 30 days; a running server is asked.

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use crate::audit::names;
use crate::clock::SystemClock;
use crate::inventory::{Ended, Ending, Query};
use crate::server;

use super::failure::Failure;
use super::local::DataDir;
use super::output::{Output, table};
use super::remote::block_on;

/// Shows when operations ended, how, why, and what they were about, the newest first.
#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    data: DataDir,
    /// Only what was about this snapshot set: its id, the beginning of that, or its name then.
    #[arg(long, value_name = "NAME|ID")]
    set: Option<String>,
    /// Only what was about this machine.
    #[arg(long, value_name = "NAME|ID")]
    machine: Option<String>,
    /// Only what was about this collection.
    #[arg(long, value_name = "NAME|ID")]
    collection: Option<String>,
    /// Only what this user asked for.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only what ended since: a date (2026-11-20), a time (2026-11-20T08:00:00Z), or so long ago (3d, 12h, 30m).
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<Since>,
    /// Only what did not end well.
    #[arg(long)]
    failed: bool,
    /// At most so many.
    #[arg(long, value_name = "N", default_value = "50", value_parser = limit)]
    limit: usize,
}

/// The most entries that are shown at once.
const MOST: usize = 22_000;

/// A moment, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    Ago(SignedDuration),
}

pub(super) fn run(wish: &History, output: &Output) -> Result<(), Failure> {
    let query = Query {
        set: wish.set.clone(),
        machine: wish.machine.clone(),
        collection: wish.collection.clone(),
        user: wish.user.clone(),
        since: wish.since.map(|since| match since {
            Since::At(time) => time,
            Since::Ago(time) => SystemClock::shared()
                .now()
                .saturating_sub(time)
                .unwrap_or(Timestamp::MIN),
        }),
        failed: wish.failed,
        limit: wish.limit,
    };
    let data_dir = wish.data.path()?;
    let found = block_on(async { Ok(server::history(&data_dir, query).await?) })?;
    let objects: Vec<Json> = found.iter().map(object).collect();
    output.result(json!({"history": objects}), || in_words(&found))
}

fn object(it: &Ended) -> Json {
    let mut object = serde_json::to_value(it).unwrap_or_default();
    if let Json::Object(fields) = &mut object {
        let whole = (it.seconds() * 1000.0).round() / 1000.0;
        fields.insert("seconds".to_owned(), json!(whole));
        for list in ["sets", "collections", "machines"] {
            fields.entry(list).or_insert_with(|| json!([]));
        }
        fields.entry("recovered").or_insert(json!(false));
        fields.entry("moreMachines").or_insert(json!(0));
        for unknown in ["job", "code", "directory"] {
            fields.entry(unknown).or_insert(Json::Null);
        }
    }
    object
}

fn in_words(found: &[Ended]) -> String {
    if found.is_empty() {
        return "nothing is known of such operations".to_owned();
    }
    let head = [
        "ENDED (UTC)",
        "WHAT",
        "OUTCOME",
        "SET",
        "COLLECTION",
        "MACHINES",
        "USER",
        "TOOK",
        "REASON",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(row));
    table(&rows)
}

fn row(it: &Ended) -> Vec<String> {
    let outcome = match it.recovered {
        true => format!("{}, by recovery", it.outcome.as_str()),
        false => it.outcome.as_str().to_owned(),
    };
    vec![
        it.ended.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        it.what.as_str().to_owned(),
        outcome,
        names(&it.about.sets),
        names(&it.about.collections),
        names(&it.about.machines),
        it.user.clone(),
        match it.outcome {
            Ending::Refused => String::new(),
            _ => took(it.seconds()),
        },
        it.reason.clone(),
    ]
}

/// `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`.
fn took(seconds: f64) -> String {
    let whole = SignedDuration::try_from_secs_f64(seconds).unwrap_or_default();
    let whole = whole.as_secs();
    match whole {
        ..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

fn when(text: &str) -> Result<Since, String> {
    let ago = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "d" => 86_400,
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        let number = number.parse::<u32>().ok()?;
        Some(Since::Ago(SignedDuration::from_secs(
            i64::from(number) * seconds,
        )))
    };
    let date = || {
        let date = text.parse::<Date>().ok()?;
        let start = date.to_zoned(TimeZone::UTC).ok()?;
        Some(Since::At(start.timestamp()))
    };
    let time = || text.parse::<Timestamp>().ok().map(Since::At);
    ago()
        .or_else(time)
        .or_else(|| (!text.contains('T')).then(date).flatten())
        .ok_or_else(|| {
            "expected a date (2026-11-20), a time (2026-11-20T08:00:00Z) or so long ago (3d, 12h, 30m)"
                .to_owned()
        })
}

fn limit(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MOST).contains(n));
    number.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_a_time_or_so_long_ago() {
        let at = |text: &str| Since::At(text.parse().unwrap());
        let ago = |hours| Since::Ago(SignedDuration::from_hours(hours));
        for (text, wanted) in [
            ("2026-11-20", Some(at("2026-11-20T00:00:00Z"))),
            ("2026-11-20T08:00:00Z", Some(at("2026-11-20T08:00:00Z"))),
            (
                "2026-11-20T08:00:00+02:00",
                Some(at("2026-11-20T06:00:00Z")),
            ),
            ("3d", Some(ago(72))),
            ("12h", Some(ago(12))),
            ("yesterday", None),
            ("", None),
            ("d", None),
            ("-1d", None),
        ] {
            assert_eq!(when(text).ok(), wanted, "{text}");
        }
        assert_eq!(took(0.44), "0.4 s");
        assert_eq!(took(185.2), "3 min 5 s");
    }
}
