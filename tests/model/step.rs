//! What can be done, and what then must be there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::support::site::{Image, SIZE};

/// One step. Numbers choose among what is there; a step that finds nothing does nothing.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A machine writes to a disk; zeroes without data if `byte` is 0.
    Write {
        machine: usize,
        disk: usize,
        at: usize,
        length: usize,
        byte: u8,
    },
    /// A disk grows.
    Grow { machine: usize, disk: usize },
    /// A change of the sets, or an export.
    Change {
        change: Change,
        death: Option<Death>,
    },
    /// A machine of the last export becomes one more member.
    ImportExported { member: usize },
    /// A machine with a new image becomes one more member.
    ImportFresh { image: Image, byte: u8 },
    /// The server ends in order and starts.
    Restart,
}

/// What clients ask for.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Create,
    Apply { set: usize },
    ApplyMember { set: usize, member: usize },
    Destroy { set: usize },
    DestroyMember { set: usize, member: usize },
    Export { set: usize },
}

/// When the server dies.
#[derive(Debug, Clone)]
pub(super) enum Death {
    /// So many milliseconds after it was asked.
    After(u64),
    /// At one of the fail points of the change; not all of them are passed.
    At(usize),
}

/// Any step, the frequent ones more often.
pub(super) fn op() -> BoxedStrategy<Op> {
    let byte = prop_oneof![3 => 1..=255u8, 1 => Just(0)];
    let write = (0..4usize, 0..2usize, 0..SIZE, 1..SIZE / 3, byte);
    let write = write.prop_map(|(machine, disk, at, length, byte)| Op::Write {
        machine,
        disk,
        at: at / 512 * 512,
        length: length.next_multiple_of(512),
        byte,
    });
    let death = prop_oneof![
        (0..400u64).prop_map(Death::After),
        (0..64usize).prop_map(Death::At),
    ];
    let change = (change(), proptest::option::weighted(0.25, death));
    let images = prop_oneof![Just(Image::Raw), Just(Image::Qcow2), Just(Image::Chain)];
    let fresh = (images, 1..=255u8).prop_map(|(image, byte)| Op::ImportFresh { image, byte });
    prop_oneof![
        12 => write,
        2 => (0..4usize, 0..2usize).prop_map(|(machine, disk)| Op::Grow { machine, disk }),
        16 => change.prop_map(|(change, death)| Op::Change { change, death }),
        2 => (0..4usize).prop_map(|member| Op::ImportExported { member }),
        1 => fresh,
        2 => Just(Op::Restart),
    ]
    .boxed()
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => Just(Change::Create),
        4 => (0..8usize).prop_map(|set| Change::Apply { set }),
        2 => (0..8usize, 0..4usize).prop_map(|(set, member)| Change::ApplyMember { set, member }),
        3 => (0..8usize).prop_map(|set| Change::Destroy { set }),
        3 => (0..8usize, 0..4usize).prop_map(|(set, member)| Change::DestroyMember { set, member }),
        3 => (0..8usize).prop_map(|set| Change::Export { set }),
    ]
}

/// Contents of the disks of one machine.
pub(super) type Disks = Vec<Vec<u8>>;

/// A set that must be there: what each member that is left must hold, by machine.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) members: BTreeMap<String, Disks>,
}
