//! The main promise on real disks: what the program captures is what was written, byte for byte, whatever
//! file system, format and chain; trouble with the disks is told clearly and leaves nothing behind.

mod alarm;
mod away;
mod capture;
mod closed;
mod damage;
mod denied;
pub(crate) mod doctor;
mod first;
mod hung;
mod images;
mod imported;
mod left;
mod linked;
mod lost;
mod progress;
mod refuse;
mod restored;
mod scene;
mod stands;
mod tops;
mod trouble;
