//! The disks of the demonstration: made, written with patterns, compared by bytes.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::content::{self, Content};
use crate::engine::import::{NewDisk, NewMachine};
use crate::held::Folder;
use crate::inventory::{Format, Machine};
use crate::server;

use super::super::failure::Failure;

/// Machines of the demonstration: name and format of their disk.
const MACHINES: &[(&str, Format)] = &[
    ("demo-web", Format::Qcow2),
    ("demo-app", Format::Raw),
    ("demo-db", Format::Qcow2),
];
/// Size of each disk in blocks.
const BLOCKS: u64 = 16;
/// Bytes that are written and compared at a time.
const BLOCK: usize = 1 << 20;

/// A pattern: which block holds which bytes follows from it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Fresh for every run, so that what an earlier run left cannot pass for this one's.
    pub(super) run: u64,
    /// `A`, `B`, …
    pub(super) letter: char,
}

/// What a disk should hold: for each block the pattern that was written last.
pub(super) type Expected = Vec<Pattern>;

/// The machines of the data directory; the three of the demonstration are made if there are none.
pub(super) fn machines(data_dir: &Path) -> Result<Vec<Machine>, Failure> {
    let (found, problems) = server::machines(data_dir)?;
    if let Some(problem) = problems.first() {
        return Err(Failure::failed(problem));
    }
    // An earlier run may have ended before it had made them all.
    let begun = server::has_served(data_dir);
    if begun && !found.is_empty() {
        return Ok(found);
    }
    let folder = Folder::follow(data_dir)?.make("images", 0o750)?;
    let mut made = found;
    for (name, format) in MACHINES {
        if made.iter().any(|machine| machine.name == *name) {
            continue;
        }
        let own = format!("{name}.{}", format.as_str());
        let file = folder.path().join(&own);
        if !begun {
            folder.remove_file(own)?; // made, but not imported
        }
        let size = BLOCKS * u64::try_from(BLOCK).unwrap_or(u64::MAX);
        content::create(&file, *format, size).map_err(|e| at(&file, &e))?;
        let new = NewMachine {
            name: (*name).to_owned(),
            disks: vec![NewDisk {
                id: None,
                file,
                format: Some(*format),
            }],
            // Quickstart itself looks up the active files.
            overlay_ok: true,
            accept_images: false,
            sockets: Default::default(),
            unmanaged_ok: false,
        };
        made.push(server::import_machine(data_dir, &new, &[])?.machine);
    }
    Ok(made)
}

/// The machines write: every block of their disks, or every second pair of blocks.
pub(super) fn write(
    data_dir: &Path,
    pattern: Pattern,
    everywhere: bool,
    expected: &mut Expected,
) -> Result<(), Failure> {
    let (machines, _) = server::machines(data_dir)?;
    expected.resize(usize::try_from(BLOCKS).unwrap_or(0), pattern);
    for (n, slot) in expected.iter_mut().enumerate() {
        if everywhere || n % 4 < 2 {
            *slot = pattern;
        }
    }
    for machine in machines {
        for disk in &machine.disks {
            let slots = expected.iter().enumerate();
            let writes: Vec<_> = slots
                .filter(|(_, slot)| **slot == pattern)
                .map(|(n, _)| (offset(n), bytes(pattern, &machine.name, n)))
                .collect();
            content::overwrite(&disk.file, disk.format, &writes).map_err(|e| at(&disk.file, &e))?;
        }
    }
    Ok(())
}

/// Compares a disk with what it should hold; gives how many bytes were compared.
pub(super) fn compare(file: &Path, machine: &str, expected: &Expected) -> Result<u64, Failure> {
    let failed = |e| at(file, &e);
    let mut content = Content::open(file, format(file)?).map_err(failed)?;
    let mut read = vec![0; BLOCK];
    for (n, pattern) in expected.iter().enumerate() {
        content.read(&mut read, offset(n)).map_err(failed)?;
        let wanted = bytes(*pattern, machine, n);
        if read != wanted {
            let byte = read.iter().zip(&wanted).position(|(a, b)| a != b);
            return Err(Failure::failed(format_args!(
                "{} differs from pattern {} at byte {}",
                file.display(),
                pattern.letter,
                offset(n) + u64::try_from(byte.unwrap_or(0)).unwrap_or(0),
            )));
        }
    }
    Ok(content.size())
}

fn format(file: &Path) -> Result<Format, Failure> {
    match file.extension().and_then(|e| e.to_str()) {
        Some("qcow2") => Ok(Format::Qcow2),
        Some("raw") => Ok(Format::Raw),
        _ => Err(Failure::failed(format_args!(
            "{}: neither .qcow2 nor .raw",
            file.display()
        ))),
    }
}

/// Bytes that look random and are the same every time (the generator is splitmix64).
fn bytes(pattern: Pattern, machine: &str, block: usize) -> Vec<u8> {
    let mut state = pattern.run ^ u64::from(u32::from(pattern.letter)) << 32;
    for byte in machine.bytes().chain(block.to_le_bytes()) {
        state = state.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte);
    }
    let mut out = Vec::with_capacity(BLOCK);
    while out.len() < BLOCK {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        out.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    out
}

fn offset(block: usize) -> u64 {
    u64::try_from(block * BLOCK).unwrap_or(u64::MAX)
}

fn at(file: &Path, error: &io::Error) -> Failure {
    Failure::failed(format_args!("{}: {error}", file.display()))
}

/// The active files of the machines, by machine name.
pub(super) fn active(data_dir: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let (machines, _) = server::machines(data_dir)?;
    let of = |m: &Machine| -> Vec<(String, PathBuf)> {
        m.disks
            .iter()
            .map(|d| (m.name.clone(), d.file.clone()))
            .collect()
    };
    Ok(machines.iter().flat_map(of).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_an_early_death_left_out_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().canonicalize().unwrap();
        let made = machines(&data).unwrap();
        let lost = data.join("machines").join(made[1].id.to_string());
        fs::remove_dir_all(lost).unwrap(); // its disk stays
        let names = |all: &[Machine]| {
            let mut names: Vec<_> = all.iter().map(|m| m.name.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&machines(&data).unwrap()), names(&made));
    }

    #[test]
    fn a_single_changed_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().canonicalize().unwrap();
        let made = machines(&data).unwrap();
        assert_eq!(made.len(), MACHINES.len());
        let (a, b) = (
            Pattern {
                run: 1,
                letter: 'A',
            },
            Pattern {
                run: 1,
                letter: 'B',
            },
        );
        let mut expected = Expected::new();
        write(&data, a, true, &mut expected).unwrap();
        let all_a = expected.clone();
        write(&data, b, false, &mut expected).unwrap();
        for (machine, file) in active(&data).unwrap() {
            compare(&file, &machine, &expected).unwrap();
            assert!(compare(&file, &machine, &all_a).is_err());
            assert!(compare(&file, "another machine", &expected).is_err());
            let mut content = Content::open(&file, format(&file).unwrap()).unwrap();
            let last = content.size() - (1 << 16);
            let mut cluster = vec![0; 1 << 16];
            content.read(&mut cluster, last).unwrap();
            cluster[(1 << 16) - 512..].fill(0);
            content::overwrite(&file, format(&file).unwrap(), &[(last, cluster)]).unwrap();
            let found = compare(&file, &machine, &expected).unwrap_err();
            assert!(found.message.contains("at byte 16776704"), "{found:?}");
        }
    }
}
