//! Literals of MOF: numbers in every form, strings, characters.

/// An integer or real literal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Decimal, hexadecimal, octal or binary.
    Integer(i128),
    /// With a decimal point.
    Real(f64),
}

/// Reads a number; the error says what is wrong with it.
pub(super) fn number(text: &str) -> Result<Number, &'static str> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    if let Some(hex) = hex {
        return integer(hex, 16, negative, "expected hexadecimal digits after 0x");
    }
    if let Some(binary) = digits.strip_suffix(['b', 'B']) {
        return integer(binary, 2, negative, "expected only 0 and 1 before b");
    }
    if digits.contains('.') {
        return real(text, digits);
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return integer(
            digits,
            8,
            negative,
            "expected octal digits after a leading 0",
        );
    }
    integer(digits, 10, negative, "expected a number")
}

fn integer(
    digits: &str,
    radix: u32,
    negative: bool,
    expected: &'static str,
) -> Result<Number, &'static str> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(expected);
    }
    let magnitude =
        i128::from_str_radix(digits, radix).map_err(|_| "expected a number of at most 64 bits")?;
    Ok(Number::Integer(if negative {
        -magnitude
    } else {
        magnitude
    }))
}

/// `digits* . digits+ (e sign? digits+)?`
fn real(text: &str, digits: &str) -> Result<Number, &'static str> {
    let expected = "expected a real number such as 1.5 or -2.0e10";
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').ok_or(expected)?;
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    if !all_digits(whole) || fraction.is_empty() || !all_digits(fraction) || !exponent_fits {
        return Err(expected);
    }
    let value: f64 = text.parse().map_err(|_| expected)?;
    if value.is_finite() {
        Ok(Number::Real(value))
    } else {
        Err("expected a real number of at most 64 bits")
    }
}

/// The text of a string or character literal, given without its quotes.
pub(super) fn text(inner: &str) -> Result<String, &'static str> {
    if !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    String::from_utf16(&units(inner)?).map_err(|_| "expected a whole surrogate pair")
}

/// The UTF-16 code unit of a character literal, given without its quotes.
pub(super) fn character(inner: &str) -> Result<u16, &'static str> {
    match units(inner)?.as_slice() {
        [unit] => Ok(*unit),
        _ => Err("expected one UTF-16 character"),
    }
}

/// DSP0004 annex A, `escapedChar`.
fn units(inner: &str) -> Result<Vec<u16>, &'static str> {
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf16(&mut [0; 2]));
            continue;
        }
        let unit = match chars.next() {
            Some('b') => 8,
            Some('t') => 9,
            Some('n') => 10,
            Some('f') => 12,
            Some('r') => 13,
            Some('"') => 0x22,
            Some('\'') => 0x27,
            Some('\\') => 0x5C,
            Some('x' | 'X') => {
                let mut digits = 0;
                let mut unit = 0_u32;
                while let Some(d) = chars.peek().and_then(|c| c.to_digit(16))
                    && digits < 4
                {
                    unit = unit * 16 + d;
                    digits += 1;
                    chars.next();
                }
                match u16::try_from(unit) {
                    Ok(unit) if digits > 0 => unit,
                    _ => return Err("expected hexadecimal digits after \\x"),
                }
            }
            _ => return Err("expected \\b \\t \\n \\f \\r \\\" \\' \\\\ or \\x with digits"),
        };
        out.push(unit);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_form() {
        for (text, value) in [
            ("0", 0),
            ("-7", -7),
            ("+12", 12),
            ("0x1F", 31),
            ("-0XfF", -255),
            ("0777", 511),
            ("101b", 5),
            ("18446744073709551615", i128::from(u64::MAX)),
        ] {
            assert_eq!(number(text), Ok(Number::Integer(value)), "{text}");
        }
        for (text, value) in [("1.5", 1.5), (".25", 0.25), ("-2.0e+3", -2000.0)] {
            assert_eq!(number(text), Ok(Number::Real(value)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "0x", "0xG", "12b", "08", "1.", "1.5e", "1e5", "12abc", "1.5.2", "1.0e999",
        ] {
            assert!(number(text).is_err(), "{text}");
        }
        assert!(number(&"9".repeat(80)).is_err());
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(text(r#"a\tb\"\\\x41z"#).as_deref(), Ok("a\tb\"\\Az"));
        assert_eq!(text(r"\xD83D\xDE00").as_deref(), Ok("😀"));
        assert!(text(r"\xD83D").is_err());
        assert!(text(r"\q").is_err());
        assert_eq!(character("A"), Ok(65));
        assert_eq!(character(r"\x41"), Ok(65));
        assert!(character("AB").is_err());
        assert!(character("").is_err());
    }
}
