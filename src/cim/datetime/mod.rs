//! CIM datetime: a timestamp with offset or an interval, to the microsecond (DSP0004 5.2.4).
//!
//! Three texts: the CIM form of 25 characters (its [`fmt::Display`]), `xs:dateTime` or `xs:date`, and
//! `xs:duration` (DSP0230 7.2.3, rule I-16).

use std::fmt;
use std::iter;
use std::str;
use std::time::Duration;

use jiff::civil;
use jiff::{SignedDuration, Timestamp};

use crate::xml::WHITE_SPACE;

/// Length of the CIM form in bytes.
const CIM_LEN: usize = 25;
const MICROS_PER_MINUTE: i64 = 60_000_000;
const MICROS_PER_DAY: u64 = 86_400_000_000;
/// The longest interval: 99999999 days, 23:59:59.999999.
const INTERVAL_MAX: u64 = 100_000_000 * MICROS_PER_DAY - 1;
/// The greatest offset that `xs:dateTime` knows, in minutes.
const XS_OFFSET_MAX: u16 = 14 * 60;

/// A `datetime` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DateTime {
    /// A moment, with the offset from UTC it was written in. INVARIANT: its local time lies in the years
    /// 0 to 9999, its offset between -999 and 999 minutes; [`DateTime::timestamp`] sees to it.
    Timestamp {
        /// Microseconds since 1970-01-01T00:00:00Z.
        micros: i64,
        /// Offset of the local time from UTC in minutes.
        offset_minutes: i16,
    },
    /// A length of time in microseconds, at most 99 999 999 days.
    Interval {
        /// Its length.
        micros: u64,
    },
    /// A timestamp or an interval of which some fields are left open by asterisks.
    Partial(Partial),
}

/// The text of a datetime with asterisks; kept as it came, because it names no single moment.
/// INVARIANT: 25 ASCII characters in the layout of a timestamp or an interval.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Partial([u8; CIM_LEN]);

impl DateTime {
    /// A moment in UTC.
    #[must_use]
    pub fn utc(moment: Timestamp) -> Self {
        Self::Timestamp {
            micros: moment.as_microsecond(),
            offset_minutes: 0,
        }
    }

    /// A moment written with this offset; `None` if the local time leaves the years 0 to 9999 or the
    /// offset has more than three digits.
    #[must_use]
    pub fn timestamp(micros: i64, offset_minutes: i16) -> Option<Self> {
        local(micros, offset_minutes)
            .filter(|local| local.year() >= 0 && offset_minutes.unsigned_abs() <= 999)
            .map(|_| Self::Timestamp {
                micros,
                offset_minutes,
            })
    }

    /// An interval, cut to microseconds; longer than 99 999 999 days becomes the longest there is.
    #[must_use]
    pub fn interval(length: Duration) -> Self {
        let micros = u64::try_from(length.as_micros()).unwrap_or(INTERVAL_MAX);
        Self::Interval {
            micros: micros.min(INTERVAL_MAX),
        }
    }

    /// The moment, if it is one and within the range of [`Timestamp`].
    #[must_use]
    pub fn to_timestamp(&self) -> Option<Timestamp> {
        match self {
            Self::Timestamp { micros, .. } => Timestamp::from_microsecond(*micros).ok(),
            _ => None,
        }
    }

    /// The length, if it is an interval.
    #[must_use]
    pub fn to_duration(&self) -> Option<Duration> {
        match self {
            Self::Interval { micros } => Some(Duration::from_micros(*micros)),
            _ => None,
        }
    }

    /// Reads any of the forms: CIM, `xs:dateTime`, `xs:date`, `xs:duration`; blanks around are dropped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(WHITE_SPACE);
        if text.starts_with('P') {
            return Self::parse_duration(text);
        }
        Self::parse_cim(text)
            .or_else(|| Self::parse_date_time(text))
            .or_else(|| Self::parse_date(text))
    }

    /// Reads `yyyymmddhhmmss.mmmmmmsutc` or `ddddddddhhmmss.mmmmmm:000`, with asterisks or without.
    #[must_use]
    pub fn parse_cim(text: &str) -> Option<Self> {
        let bytes: &[u8; CIM_LEN] = text.as_bytes().try_into().ok()?;
        if bytes.contains(&b'*') {
            return Partial::new(bytes).map(Self::Partial);
        }
        let mut read = Reader(text);
        if bytes.get(21) == Some(&b':') {
            let (days, hours, minutes) = (read.digits(8)?, read.digits(2)?, read.digits(2)?);
            let (seconds, micros) = (read.digits(2)?, read.after('.')?.digits(6)?);
            read.after(':')?;
            if hours > 23 || minutes > 59 || seconds > 59 || read.0 != "000" {
                return None;
            }
            let seconds = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
            return Some(Self::Interval {
                micros: seconds * 1_000_000 + micros,
            });
        }
        let date = (read.digits(4)?, read.digits(2)?, read.digits(2)?);
        let time = (read.digits(2)?, read.digits(2)?, read.digits(2)?);
        let micros = read.after('.')?.digits(6)?;
        let sign = read.sign()?;
        let offset = i16::try_from(read.digits(3)?).ok()? * sign;
        Self::of_local(date, time, micros, offset)
    }

    /// Reads an `xs:dateTime`; without an offset it is in UTC; digits beyond the microsecond are dropped.
    #[must_use]
    pub fn parse_date_time(text: &str) -> Option<Self> {
        let mut read = Reader(text);
        let date = read.date()?;
        let hours = read.after('T')?.digits(2)?;
        let minutes = read.after(':')?.digits(2)?;
        let seconds = read.after(':')?.digits(2)?;
        let micros = read.fraction()?;
        let offset = read.offset()?;
        if (hours, minutes, seconds, micros) == (24, 0, 0, 0) {
            // [XML Schema 2] 3.2.7: the end of the day is the first instant of the next
            let Self::Timestamp { micros, .. } = Self::of_local(date, (0, 0, 0), 0, offset)? else {
                return None;
            };
            let day = i64::try_from(MICROS_PER_DAY).ok()?;
            return Self::timestamp(micros.checked_add(day)?, offset);
        }
        Self::of_local(date, (hours, minutes, seconds), micros, offset)
    }

    /// Reads an `xs:date`: a day with its hours left open.
    fn parse_date(text: &str) -> Option<Self> {
        let mut read = Reader(text);
        let (year, month, day) = read.date()?;
        let offset = read.offset()?;
        Self::of_local((year, month, day), (0, 0, 0), 0, offset)?;
        Self::parse_cim(&format!(
            "{year:04}{month:02}{day:02}******.******{}",
            CimOffset(offset)
        ))
    }

    /// Reads an `xs:duration`. Years and months have no fixed length and must be absent or zero.
    #[must_use]
    pub fn parse_duration(text: &str) -> Option<Self> {
        let text = text.strip_prefix('P')?;
        let (date, time) = match text.split_once('T') {
            Some((_, "")) => return None,
            Some((date, time)) => (date, time),
            None => (text, ""),
        };
        if date.is_empty() && time.is_empty() {
            return None;
        }
        let [years, months, days] = designated(date, ['Y', 'M', 'D'])?;
        let (hours, minutes, seconds, fraction) = time_of_day(time)?;
        if years != 0 || months != 0 {
            return None;
        }
        let hours = days.checked_mul(24)?.checked_add(hours)?;
        let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
        let seconds = minutes.checked_mul(60)?.checked_add(seconds)?;
        let micros = seconds.checked_mul(1_000_000)?.checked_add(fraction)?;
        (micros <= INTERVAL_MAX).then_some(Self::Interval { micros })
    }

    /// Name of the `wscim` element that carries the value, and its text (rule I-16).
    #[must_use]
    pub fn to_xml(&self) -> (&'static str, String) {
        match self {
            Self::Interval { micros } => ("Interval", duration_text(*micros)),
            Self::Timestamp {
                micros,
                offset_minutes,
            } => ("Datetime", date_time_text(*micros, *offset_minutes)),
            Self::Partial(partial) => partial.date_text().map_or_else(
                || ("CIM_DateTime", partial.as_str().to_owned()),
                |date| ("Date", date),
            ),
        }
    }

    fn of_local(
        (year, month, day): (u64, u64, u64),
        (hour, minute, second): (u64, u64, u64),
        micros: u64,
        offset_minutes: i16,
    ) -> Option<Self> {
        let local = civil::DateTime::new(
            year.try_into().ok()?,
            month.try_into().ok()?,
            day.try_into().ok()?,
            hour.try_into().ok()?,
            minute.try_into().ok()?,
            second.try_into().ok()?,
            i32::try_from(micros).ok()?.checked_mul(1000)?,
        )
        .ok()?;
        let since = local.duration_since(EPOCH).as_micros();
        let offset = i64::from(offset_minutes) * MICROS_PER_MINUTE;
        let micros = i64::try_from(since).ok()?.checked_sub(offset)?;
        Self::timestamp(micros, offset_minutes)
    }
}

/// The CIM form of 25 characters.
impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partial(partial) => f.write_str(partial.as_str()),
            Self::Interval { micros } => {
                let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
                let (minutes, seconds) = (seconds / 60, seconds % 60);
                let (hours, minutes) = (minutes / 60, minutes % 60);
                let (days, hours) = (hours / 24, hours % 24);
                write!(
                    f,
                    "{days:08}{hours:02}{minutes:02}{seconds:02}.{micros:06}:000"
                )
            }
            Self::Timestamp {
                micros,
                offset_minutes,
            } => {
                let local = local(*micros, *offset_minutes).unwrap_or(EPOCH);
                let (date, time) = (local.date(), local.time());
                write!(
                    f,
                    "{:04}{:02}{:02}{:02}{:02}{:02}.{:06}{}",
                    date.year(),
                    date.month(),
                    date.day(),
                    time.hour(),
                    time.minute(),
                    time.second(),
                    time.subsec_nanosecond() / 1000,
                    CimOffset(*offset_minutes)
                )
            }
        }
    }
}

impl From<Timestamp> for DateTime {
    fn from(moment: Timestamp) -> Self {
        Self::utc(moment)
    }
}

impl From<Duration> for DateTime {
    fn from(length: Duration) -> Self {
        Self::interval(length)
    }
}

impl Partial {
    /// Checks the layout: each field all digits or all asterisks; once a field of the date and time is
    /// open, so are all smaller ones, and at least one is.
    fn new(bytes: &[u8; CIM_LEN]) -> Option<Self> {
        let interval = bytes.get(21) == Some(&b':');
        let fields: &[(usize, usize)] = if interval {
            &[(0, 8), (8, 10), (10, 12), (12, 14)]
        } else {
            &[(0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14)]
        };
        let mut open = false;
        for (from, to) in fields {
            match bytes.get(*from..*to)? {
                field if field.iter().all(|b| *b == b'*') => open = true,
                field if !open && field.iter().all(u8::is_ascii_digit) => {}
                _ => return None,
            }
        }
        Self::micros_are_sound(bytes.get(15..21)?, open)?;
        let offset = bytes.get(22..)?;
        let offset_sound = if interval {
            offset == b"000"
        } else {
            matches!(bytes.get(21), Some(b'+' | b'-'))
                && (offset.iter().all(u8::is_ascii_digit) || offset == b"***")
        };
        (bytes.get(14) == Some(&b'.') && offset_sound).then_some(Self(*bytes))
    }

    /// The microseconds may be open from any digit on (DSP0004 5.2.4.1).
    fn micros_are_sound(field: &[u8], open: bool) -> Option<()> {
        let digits = field.iter().take_while(|b| b.is_ascii_digit()).count();
        let stars = field.iter().skip(digits).all(|b| *b == b'*');
        (stars && (!open || digits == 0)).then_some(())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// `yyyy-mm-dd±hh:mm` where just the time of day is open.
    fn date_text(&self) -> Option<String> {
        let text = self.as_str();
        let (year, month, day) = (text.get(..4)?, text.get(4..6)?, text.get(6..8)?);
        let offset = text.get(21..).filter(|o| !o.starts_with(':'))?;
        let offset: i16 = offset.parse().ok()?;
        if text.get(8..21)? != "******.******" || day.contains('*') {
            return None;
        }
        Some(format!("{year}-{month}-{day}{}", XsOffset(offset)))
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const EPOCH: civil::DateTime = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The local time of a moment; `None` beyond the years that can be written.
fn local(micros: i64, offset_minutes: i16) -> Option<civil::DateTime> {
    let offset = i64::from(offset_minutes) * MICROS_PER_MINUTE;
    let since = SignedDuration::from_micros(micros.checked_add(offset)?);
    EPOCH.checked_add(since).ok()
}

fn date_time_text(micros: i64, offset_minutes: i16) -> String {
    let beyond = offset_minutes.unsigned_abs() > XS_OFFSET_MAX;
    let offset = if beyond { 0 } else { offset_minutes };
    let local = local(micros, offset).unwrap_or(EPOCH);
    let (date, time) = (local.date(), local.time());
    let fields = [
        ("", i32::from(date.year()), 4),
        ("-", i32::from(date.month()), 2),
        ("-", i32::from(date.day()), 2),
        ("T", i32::from(time.hour()), 2),
        (":", i32::from(time.minute()), 2),
        (":", i32::from(time.second()), 2),
    ];
    // By hand: most instances have a date, and `format!` takes longer than all the rest of writing them.
    let mut text = String::with_capacity("0000-00-00T00:00:00.000000+00:00".len());
    for (before, number, digits) in fields {
        text.push_str(before);
        let number = number.unsigned_abs();
        let digit = |n| char::from_digit(number / 10_u32.pow(n) % 10, 10);
        text.extend((0..digits).rev().filter_map(digit));
    }
    text.push_str(&fraction_text(
        u64::from(time.subsec_nanosecond().unsigned_abs()) / 1000,
    ));
    match offset {
        0 => text.push('Z'),
        _ => text.push_str(&XsOffset(offset).to_string()),
    }
    text
}

fn duration_text(micros: u64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let (days, hours) = (hours / 24, hours % 24);
    let fraction = fraction_text(micros);
    format!("P{days}DT{hours}H{minutes}M{seconds}{fraction}S")
}

/// `.5` for 500000 microseconds, nothing for none.
fn fraction_text(micros: u64) -> String {
    match micros {
        0 => String::new(),
        _ => format!(".{micros:06}").trim_end_matches('0').to_owned(),
    }
}

/// Digits after a decimal point, as microseconds.
fn micros_of_fraction(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let six = digits.bytes().chain(iter::repeat(b'0')).take(6);
    Some(six.fold(0, |micros, digit| micros * 10 + u64::from(digit - b'0')))
}

/// Hours, minutes, seconds and microseconds of what stands behind the `T` of an `xs:duration`.
fn time_of_day(time: &str) -> Option<(u64, u64, u64, u64)> {
    let Some((whole, fraction)) = time.split_once('.') else {
        let [hours, minutes, seconds] = designated(time, ['H', 'M', 'S'])?;
        return Some((hours, minutes, seconds, 0));
    };
    // The designator of the seconds stands behind the fraction, so what is before the point ends in digits.
    let digits = whole.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (before, seconds) = whole.split_at_checked(whole.len() - digits)?;
    if before.ends_with('S') {
        return None;
    }
    let [hours, minutes, _] = designated(before, ['H', 'M', 'S'])?;
    let fraction = micros_of_fraction(fraction.strip_suffix('S')?)?;
    Some((hours, minutes, seconds.parse().ok()?, fraction))
}

/// The numbers before each of the designators of an `xs:duration` part; an absent one is 0.
fn designated(mut text: &str, designators: [char; 3]) -> Option<[u64; 3]> {
    let mut numbers = [0; 3];
    for (number, designator) in numbers.iter_mut().zip(designators) {
        if let Some((digits, rest)) = text.split_once(designator) {
            if !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            *number = digits.parse().ok()?;
            text = rest;
        }
    }
    text.is_empty().then_some(numbers)
}

/// The offset in the CIM form: `+060`.
struct CimOffset(i16);

impl fmt::Display for CimOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+04}", self.0)
    }
}

/// The offset in the form of XML Schema: `Z`, `+01:00`.
struct XsOffset(i16);

impl fmt::Display for XsOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("Z");
        }
        let minutes = self.0.unsigned_abs();
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Reads a datetime from its front.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    /// Exactly `n` digits.
    fn digits(&mut self, n: usize) -> Option<u64> {
        let (digits, rest) = self.0.split_at_checked(n)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        digits.parse().ok()
    }

    /// What follows this character, which must be next.
    fn after(&mut self, c: char) -> Option<&mut Self> {
        self.0 = self.0.strip_prefix(c)?;
        Some(self)
    }

    fn sign(&mut self) -> Option<i16> {
        if self.after('-').is_some() {
            return Some(-1);
        }
        self.after('+').map(|_| 1)
    }

    /// `yyyy-mm-dd`
    fn date(&mut self) -> Option<(u64, u64, u64)> {
        let year = self.digits(4)?;
        let month = self.after('-')?.digits(2)?;
        let day = self.after('-')?.digits(2)?;
        Some((year, month, day))
    }

    /// `.f…` or nothing, in microseconds.
    fn fraction(&mut self) -> Option<u64> {
        if self.after('.').is_none() {
            return Some(0);
        }
        let end = self
            .0
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        micros_of_fraction(digits)
    }

    /// `Z`, `±hh:mm` or nothing, to the end of the text, in minutes.
    fn offset(&mut self) -> Option<i16> {
        if matches!(self.0, "" | "Z") {
            return Some(0);
        }
        let sign = self.sign()?;
        let hours = self.digits(2)?;
        let minutes = self.after(':')?.digits(2)?;
        let total = u16::try_from(hours * 60 + minutes).ok()?;
        if minutes > 59 || total > XS_OFFSET_MAX || !self.0.is_empty() {
            return None;
        }
        i16::try_from(total).ok().map(|n| n * sign)
    }
}

#[cfg(test)]
mod tests;
