//! A literal becomes a value of the declared type.

use crate::cim::datetime::DateTime;
use crate::cim::value::{Type, Value};

use super::syntax::{Constant, Literal};

/// The value, or what was expected instead.
pub(super) fn value(constant: &Constant, ty: &Type, array: bool) -> Result<Value, String> {
    match constant {
        Constant::Scalar(Literal::Null) => Ok(Value::Null),
        Constant::Scalar(literal) if !array => scalar(literal, ty),
        Constant::Array(literals) if array => literals
            .iter()
            .map(|literal| match literal {
                Literal::Null => Err(format!("expected {ty} values, not null")),
                _ => scalar(literal, ty),
            })
            .collect::<Result<_, _>>()
            .map(Value::Array),
        Constant::Scalar(_) => Err(format!("expected an array of {ty} in braces")),
        Constant::Array(_) => Err(format!("expected one {ty}, not an array")),
    }
}

fn scalar(literal: &Literal, ty: &Type) -> Result<Value, String> {
    let fits = match (ty, literal) {
        (Type::Boolean, Literal::Boolean(b)) => Some(Value::Boolean(*b)),
        (Type::String, Literal::String(s)) => Some(Value::String(s.clone())),
        (Type::Char16, Literal::Char(c)) => Some(Value::Char16(*c)),
        (Type::DateTime, Literal::String(s)) => DateTime::parse_cim(s).map(Value::DateTime),
        (Type::Real32 | Type::Real64, Literal::Integer(n)) => real(&n.to_string(), ty),
        (Type::Real32 | Type::Real64, Literal::Real(r)) => real(&r.to_string(), ty),
        (_, Literal::Integer(n)) => integer(*n, ty),
        _ => None,
    };
    fits.ok_or_else(|| match (ty, literal) {
        (_, Literal::Integer(n)) if is_integer(ty) => format!("expected {ty}, {n} is out of range"),
        (Type::DateTime, Literal::String(_)) => {
            "expected a datetime such as 20260102030405.000000+000".to_owned()
        }
        _ => format!("expected {ty}, not {}", literal.kind()),
    })
}

/// Is it one of the eight integer types?
pub(super) const fn is_integer(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Uint8
            | Type::Uint16
            | Type::Uint32
            | Type::Uint64
            | Type::Sint8
            | Type::Sint16
            | Type::Sint32
            | Type::Sint64
    )
}

/// The integer as a value of that type, if it is an integer type and has room for it.
pub(super) fn integer(n: i128, ty: &Type) -> Option<Value> {
    match ty {
        Type::Uint8 => n.try_into().ok().map(Value::Uint8),
        Type::Uint16 => n.try_into().ok().map(Value::Uint16),
        Type::Uint32 => n.try_into().ok().map(Value::Uint32),
        Type::Uint64 => n.try_into().ok().map(Value::Uint64),
        Type::Sint8 => n.try_into().ok().map(Value::Sint8),
        Type::Sint16 => n.try_into().ok().map(Value::Sint16),
        Type::Sint32 => n.try_into().ok().map(Value::Sint32),
        Type::Sint64 => n.try_into().ok().map(Value::Sint64),
        _ => None,
    }
}

/// Through its text, so that `real32` gets the nearest of its own numbers.
fn real(text: &str, ty: &Type) -> Option<Value> {
    match ty {
        Type::Real32 => text
            .parse()
            .ok()
            .filter(|r: &f32| r.is_finite())
            .map(Value::Real32),
        _ => text.parse().ok().map(Value::Real64),
    }
}
