//! WS-CIM (DSP0230): CIM values and instances as XML, and back; class URIs and references.
//!
//! Text forms of scalars are `cim`'s ([`crate::cim::Value::parse`]); here stands what XML adds: nil, repeated
//! elements for arrays, references as endpoint references, instances as elements, type names.

pub mod epr;
mod read;
#[cfg(test)]
mod tests;
pub mod uri;
mod write;

pub use epr::{Names, Reference, SelectorError};
pub use read::{Declared, Error, instance as read_instance, value as read_value};
pub use uri::Family;
pub use write::{
    columns as write_columns, fragment as write_fragment, instance as write_instance,
    output as write_output,
};

/// How values are written for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// The URIs it speaks; references use them too.
    pub family: Family,
    /// Write `m:IsNullArray` for null arrays (rule I-17).
    pub precise_arrays: bool,
    /// Write `xsi:type` on every property (rule H-25).
    pub show_types: bool,
}
