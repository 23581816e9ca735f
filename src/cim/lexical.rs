//! The text of scalar values, both ways, and conversion between integer widths.
//!
//! Reading is lenient as the wire needs it, writing gives one canonical form. DSP0230 7.2, DSP0201 3.

use super::datetime::DateTime;
use super::path::Path;
use super::value::{Type, TypeError, Value};
use crate::xml::WHITE_SPACE;

/// Longest piece of a refused text that an error repeats, in characters.
const QUOTED_MAX: usize = 64;

impl Value {
    /// Reads one scalar of type `ty`.
    ///
    /// * integers: decimal or `0x` hex, a leading `+` or `-`, blanks around;
    /// * booleans: `true`, `false`, `1`, `0` in any case, blanks around;
    /// * reals: as `xs:double`, with `INF`, `-INF` and `NaN`;
    /// * `char16`: the character, or its number;
    /// * `datetime`: the CIM form of 25 characters, `xs:dateTime`, `xs:date` or `xs:duration`;
    /// * references: path text as [`Path::parse`] takes it;
    /// * strings: the text as it is.
    ///
    /// # Errors
    /// The text is no value of the type, or out of its range.
    pub fn parse(ty: &Type, text: &str) -> Result<Self, TypeError> {
        let value = match ty {
            Type::Boolean => boolean(text).map(Self::Boolean),
            Type::Real32 => real32(text).map(Self::Real32),
            Type::Real64 => real64(text).map(Self::Real64),
            Type::Char16 => char16(text).map(Self::Char16),
            Type::String => Some(Self::String(text.to_owned())),
            Type::DateTime => DateTime::parse(text).map(Self::DateTime),
            Type::Reference(_) => Path::parse(text).ok().map(Self::from),
            _ => integer(text).and_then(|n| Self::integer(ty, n)),
        };
        value.ok_or_else(|| TypeError {
            expected: ty.to_string(),
            got: format!("'{}'", text.chars().take(QUOTED_MAX).collect::<String>()).into(),
        })
    }

    /// The canonical text; `None` for null, arrays and instances, which have none.
    #[must_use]
    pub fn lexical(&self) -> Option<String> {
        Some(match self {
            Self::Null | Self::Array(_) | Self::Instance(_) => return None,
            Self::Boolean(b) => b.to_string(),
            Self::Uint8(n) => n.to_string(),
            Self::Uint16(n) => n.to_string(),
            Self::Uint32(n) => n.to_string(),
            Self::Uint64(n) => n.to_string(),
            Self::Sint8(n) => n.to_string(),
            Self::Sint16(n) => n.to_string(),
            Self::Sint32(n) => n.to_string(),
            Self::Sint64(n) => n.to_string(),
            Self::Real32(n) if n.is_finite() && !plain(f64::from(*n)) => format!("{n:e}"),
            Self::Real32(n) if n.is_finite() => n.to_string(),
            Self::Real32(n) => not_finite(f64::from(*n)),
            Self::Real64(n) if n.is_finite() && !plain(*n) => format!("{n:e}"),
            Self::Real64(n) if n.is_finite() => n.to_string(),
            Self::Real64(n) => not_finite(*n),
            Self::Char16(unit) => match char::from_u32(u32::from(*unit)) {
                Some(c) if writable(c) => c.to_string(),
                _ => format!("{unit:#06x}"),
            },
            Self::String(text) => text.clone(),
            Self::DateTime(moment) => moment.to_string(),
            Self::Reference(path) => path.to_string(),
        })
    }

    /// The same value in type `ty`: integers change their width where the value is in range, `real32`
    /// widens to `real64`, arrays go element by element, null stays null.
    ///
    /// # Errors
    /// The value is of another kind or out of range. Strings are not read; that is [`Value::parse`].
    pub fn convert(self, ty: &Type) -> Result<Self, TypeError> {
        if let Self::Array(values) = self {
            let converted: Result<Vec<_>, _> = values.into_iter().map(|v| v.convert(ty)).collect();
            return converted.map(Self::Array);
        }
        if self.fits(ty, false) {
            return Ok(self);
        }
        let converted = match (&self, ty) {
            (Self::Real32(n), Type::Real64) => Some(Self::Real64(f64::from(*n))),
            _ => self.as_integer().and_then(|n| Self::integer(ty, n)),
        };
        converted.ok_or_else(|| TypeError {
            expected: ty.to_string(),
            got: self.describe().into(),
        })
    }

    /// The value of any integer type, signed or not.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        Some(match self {
            Self::Uint8(n) => i128::from(*n),
            Self::Uint16(n) => i128::from(*n),
            Self::Uint32(n) => i128::from(*n),
            Self::Uint64(n) => i128::from(*n),
            Self::Sint8(n) => i128::from(*n),
            Self::Sint16(n) => i128::from(*n),
            Self::Sint32(n) => i128::from(*n),
            Self::Sint64(n) => i128::from(*n),
            _ => return None,
        })
    }

    /// An integer of type `ty`; `None` if `ty` is no integer type or `n` out of its range.
    #[must_use]
    pub fn integer(ty: &Type, n: i128) -> Option<Self> {
        match ty {
            Type::Uint8 => n.try_into().ok().map(Self::Uint8),
            Type::Uint16 => n.try_into().ok().map(Self::Uint16),
            Type::Uint32 => n.try_into().ok().map(Self::Uint32),
            Type::Uint64 => n.try_into().ok().map(Self::Uint64),
            Type::Sint8 => n.try_into().ok().map(Self::Sint8),
            Type::Sint16 => n.try_into().ok().map(Self::Sint16),
            Type::Sint32 => n.try_into().ok().map(Self::Sint32),
            Type::Sint64 => n.try_into().ok().map(Self::Sint64),
            _ => None,
        }
    }

    /// The value named for an error: `sint32 -1`, `string`, `null`.
    #[must_use]
    pub fn describe(&self) -> String {
        let name = match self {
            Self::Null => "null",
            Self::Boolean(_) => "boolean",
            Self::Uint8(_) => "uint8",
            Self::Uint16(_) => "uint16",
            Self::Uint32(_) => "uint32",
            Self::Uint64(_) => "uint64",
            Self::Sint8(_) => "sint8",
            Self::Sint16(_) => "sint16",
            Self::Sint32(_) => "sint32",
            Self::Sint64(_) => "sint64",
            Self::Real32(_) => "real32",
            Self::Real64(_) => "real64",
            Self::Char16(_) => "char16",
            Self::String(_) => "string",
            Self::DateTime(_) => "datetime",
            Self::Reference(path) => return format!("reference to {}", path.class),
            Self::Instance(instance) => return format!("instance of {}", instance.class().name),
            Self::Array(_) => "array",
        };
        self.as_integer()
            .map_or_else(|| name.to_owned(), |n| format!("{name} {n}"))
    }
}

fn boolean(text: &str) -> Option<bool> {
    let text = text.trim_matches(WHITE_SPACE);
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") || is("1") {
        Some(true)
    } else if is("false") || is("0") {
        Some(false)
    } else {
        None
    }
}

/// Reads an integer, decimal or hex.
pub(super) fn integer(text: &str) -> Option<i128> {
    let text = text.trim_matches(WHITE_SPACE);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((digits, 10), |hex| (hex, 16));
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let n = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -n } else { n })
}

/// Reads an `xs:double`; a number too great for the type is refused, not read as infinity.
fn real64(text: &str) -> Option<f64> {
    let text = text.trim_matches(WHITE_SPACE);
    if let Some(n) = named_real(text) {
        return Some(n);
    }
    if !is_decimal(text) {
        return None;
    }
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

fn real32(text: &str) -> Option<f32> {
    let text = text.trim_matches(WHITE_SPACE);
    if let Some(n) = named_real(text) {
        return Some(if n.is_nan() {
            f32::NAN
        } else if n > 0.0 {
            f32::INFINITY
        } else {
            f32::NEG_INFINITY
        });
    }
    if !is_decimal(text) {
        return None;
    }
    text.parse().ok().filter(|n: &f32| n.is_finite())
}

fn named_real(text: &str) -> Option<f64> {
    match text {
        "INF" | "+INF" => Some(f64::INFINITY),
        "-INF" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => None,
    }
}

/// Keeps out the words that Rust would read as numbers, such as `infinity`.
fn is_decimal(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
}

/// Is the number short enough to read without an exponent?
fn plain(n: f64) -> bool {
    n == 0.0 || (1e-5..1e17).contains(&n.abs())
}

fn not_finite(n: f64) -> String {
    let text = if n.is_nan() {
        "NaN"
    } else if n > 0.0 {
        "INF"
    } else {
        "-INF"
    };
    text.to_owned()
}

/// One character is itself, also a digit; anything longer is the number of a UTF-16 code unit.
fn char16(text: &str) -> Option<u16> {
    let mut units = text.encode_utf16();
    match (units.next(), units.next()) {
        (Some(unit), None) => Some(unit),
        _ => integer(text).and_then(|n| u16::try_from(n).ok()),
    }
}

/// May the character stand in XML text and come back as it was?
fn writable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cim::name::Name;

    #[test]
    fn lenient_texts_are_read() {
        let table = [
            (Type::Boolean, " TRUE\n", Value::Boolean(true)),
            (Type::Boolean, "0", Value::Boolean(false)),
            (Type::Uint8, "255", Value::Uint8(255)),
            (Type::Uint8, "-0", Value::Uint8(0)),
            (Type::Uint16, " 0xFFff ", Value::Uint16(65535)),
            (
                Type::Uint64,
                "18446744073709551615",
                Value::Uint64(u64::MAX),
            ),
            (Type::Uint32, "007", Value::Uint32(7)),
            (Type::Sint8, "-128", Value::Sint8(-128)),
            (Type::Sint64, "-0x10", Value::Sint64(-16)),
            (Type::Sint32, "+5", Value::Sint32(5)),
            (Type::Real32, "-INF", Value::Real32(f32::NEG_INFINITY)),
            (Type::Real64, "1e3", Value::Real64(1000.0)),
            (Type::Char16, "5", Value::Char16(0x35)),
            (Type::Char16, "53", Value::Char16(53)),
            (Type::Char16, " ", Value::Char16(32)),
            (Type::Char16, "€", Value::Char16(0x20AC)),
            (Type::String, " a ", Value::from(" a ")),
            (
                Type::DateTime,
                "P1D",
                Value::DateTime(DateTime::Interval {
                    micros: 86_400_000_000,
                }),
            ),
        ];
        for (ty, text, value) in table {
            assert_eq!(Value::parse(&ty, text), Ok(value), "{ty} {text:?}");
        }
        assert!(matches!(Value::parse(&Type::Real64, "NaN"), Ok(Value::Real64(n)) if n.is_nan()));
    }

    #[test]
    fn what_is_no_value_of_the_type_is_refused() {
        let table = [
            (Type::Boolean, "yes"),
            (Type::Boolean, ""),
            (Type::Uint8, "256"),
            (Type::Uint8, "-1"),
            (Type::Uint8, ""),
            (Type::Uint8, "1.0"),
            (Type::Uint8, "++1"),
            (Type::Uint8, "0x"),
            (Type::Uint8, "0x+1"),
            (Type::Uint8, "1 2"),
            (Type::Uint64, "18446744073709551616"),
            (Type::Sint64, "99999999999999999999999999999999999999999999"),
            (Type::Sint8, "128"),
            (Type::Real64, "infinity"),
            (Type::Real64, "1e999"),
            (Type::Real32, "1e39"),
            (Type::Real64, ""),
            (Type::Char16, ""),
            (Type::Char16, "65536"),
            (Type::Char16, "𝄞"),
            (Type::DateTime, "tomorrow"),
            (Type::Reference(Name::from("C")), "?"),
        ];
        for (ty, text) in table {
            let error = Value::parse(&ty, text).unwrap_err();
            assert_eq!(error.expected, ty.to_string(), "{text}");
            assert_eq!(error.got, format!("'{text}'").into());
        }
        let error = Value::parse(&Type::Uint8, &"9".repeat(1000)).unwrap_err();
        assert!(error.got.plain().unwrap().len() < 100);
    }

    #[test]
    fn integers_change_width_where_they_are_in_range() {
        assert_eq!(Value::Uint64(5).convert(&Type::Uint8), Ok(Value::Uint8(5)));
        assert_eq!(Value::Sint8(5).convert(&Type::Uint64), Ok(Value::Uint64(5)));
        assert_eq!(Value::Null.convert(&Type::Uint8), Ok(Value::Null));
        let array = Value::from(vec![1_u8, 2]).convert(&Type::Sint32);
        assert_eq!(array, Ok(Value::from(vec![1_i32, 2])));
        assert_eq!(
            Value::Real32(0.5).convert(&Type::Real64),
            Ok(Value::Real64(0.5))
        );
        let error = Value::Sint32(-1).convert(&Type::Uint8).unwrap_err();
        assert_eq!(error.to_string(), "expected uint8, got sint32 -1");
        assert!(Value::Uint16(256).convert(&Type::Uint8).is_err());
        assert!(Value::from("5").convert(&Type::Uint8).is_err());
        assert!(Value::Uint8(1).convert(&Type::Boolean).is_err());
    }

    #[test]
    fn the_canonical_text_is_short_and_exact() {
        let table = [
            (Value::Boolean(true), "true"),
            (Value::Sint64(i64::MIN), "-9223372036854775808"),
            (Value::Real64(1.0), "1"),
            (Value::Real64(1e21), "1e21"),
            (Value::Real32(0.1), "0.1"),
            (Value::Real32(f32::INFINITY), "INF"),
            (Value::Real64(f64::NAN), "NaN"),
            (Value::Char16(0x41), "A"),
            (Value::Char16(9), "0x0009"),
            (Value::Char16(0xD800), "0xd800"),
        ];
        for (value, text) in table {
            assert_eq!(value.lexical().as_deref(), Some(text));
        }
        assert_eq!(Value::Null.lexical(), None);
        assert_eq!(Value::Array(Vec::new()).lexical(), None);
    }

    fn any_scalar() -> impl Strategy<Value = (Type, Value)> {
        prop_oneof![
            any::<bool>().prop_map(|v| (Type::Boolean, Value::Boolean(v))),
            any::<u8>().prop_map(|v| (Type::Uint8, Value::Uint8(v))),
            any::<u16>().prop_map(|v| (Type::Uint16, Value::Uint16(v))),
            any::<u32>().prop_map(|v| (Type::Uint32, Value::Uint32(v))),
            any::<u64>().prop_map(|v| (Type::Uint64, Value::Uint64(v))),
            any::<i8>().prop_map(|v| (Type::Sint8, Value::Sint8(v))),
            any::<i16>().prop_map(|v| (Type::Sint16, Value::Sint16(v))),
            any::<i32>().prop_map(|v| (Type::Sint32, Value::Sint32(v))),
            any::<i64>().prop_map(|v| (Type::Sint64, Value::Sint64(v))),
            any::<f32>().prop_map(|v| (Type::Real32, Value::Real32(v))),
            any::<f64>().prop_map(|v| (Type::Real64, Value::Real64(v))),
            any::<u16>().prop_map(|v| (Type::Char16, Value::Char16(v))),
            any::<String>().prop_map(|v| (Type::String, Value::String(v))),
            (any::<u32>(), -999..1000_i16).prop_filter_map("range", |(s, offset)| {
                let moment = DateTime::timestamp(i64::from(s) * 1_000_001, offset)?;
                Some((Type::DateTime, Value::DateTime(moment)))
            }),
            any::<String>().prop_map(|v| {
                let path = Path::new("root/x", "C").key("K", v);
                (Type::Reference(Name::from("C")), Value::from(path))
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_value_reads_back_from_its_text((ty, value) in any_scalar()) {
            let text = value.lexical().unwrap();
            let read = Value::parse(&ty, &text);
            let both_nan = |v: &Value| matches!(v, Value::Real64(n) if n.is_nan())
                || matches!(v, Value::Real32(n) if n.is_nan());
            prop_assert!(read.as_ref() == Ok(&value) || both_nan(&value), "{text}: {read:?}");
        }

        #[test]
        fn no_text_breaks_a_type((ty, _) in any_scalar(), text in ".{0,40}") {
            if let Ok(value) = Value::parse(&ty, &text) {
                prop_assert!(value.fits(&ty, false));
            }
        }
    }
}
