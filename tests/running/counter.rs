//! The smallest machine that writes as long as it runs: its boot sector counts, and writes each number to its first disk and
//! then to its second one. What it has written it tells on QEMU's debug port, a byte each time.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::site::{Image, Site, format};
use crate::support::tools;

use super::cut::Guest;

/// Real-mode code at 0x7c00. The number is in the second sector of both disks; between two numbers the processor waits for
/// the next tick of its timer, of which there are a hundred a second.
const BOOT: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // xor ax,ax; mov ds,es,ss,ax
    0xbc, 0x00, 0x7c, // mov sp,0x7c00
    0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x9c, 0xe6, 0x40, 0xb0, 0x2e, 0xe6, 0x40, // timer
    0xb8, 0x01, 0x02, 0xbb, 0x00, 0x7e, 0xb9, 0x02, 0x00, 0xba, 0x80, 0x00, 0xcd,
    0x13, // read
    0x72, 0x2d, // jc failed
    0x66, 0xff, 0x06, 0x00, 0x7e, // next: inc dword [0x7e00]
    0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7e, 0xb9, 0x02, 0x00, 0xba, 0x80, 0x00, 0xcd,
    0x13, // write
    0x72, 0x18, // jc failed
    0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7e, 0xb9, 0x02, 0x00, 0xba, 0x81, 0x00, 0xcd,
    0x13, // write
    0x72, 0x08, // jc failed
    0xb0, 0x2e, 0xe6, 0xe9, // mov al,'.'; out 0xe9,al
    0xfb, 0xf4, // sti; hlt
    0xeb, 0xd3, // jmp next
    0xb0, 0x21, 0xe6, 0xe9, // failed: mov al,'!'; out 0xe9,al
    0xf4, 0xeb, 0xfd, // hlt; jmp
];
/// Where the number is on a disk, bytes.
const NUMBER: usize = 512;

/// A machine that counts.
pub(super) struct Counter {
    pub(super) guest: Guest,
    told: PathBuf,
}

impl Counter {
    /// A machine with a qcow2 and a raw disk that has not counted yet.
    pub(super) fn new(site: &Site, name: &str) -> Self {
        let guest = Guest::new(site, name, &[Image::Qcow2, Image::Raw], 0);
        let mut sectors = BOOT.to_vec();
        sectors.resize(510, 0);
        sectors.extend([0x55, 0xaa]);
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), sectors).unwrap();
        let command = format!("write -s {} 0 512", source.path().display());
        let image = &guest.machine.images[0];
        let args = ["-f", format(image), "-c", &command, image.to_str().unwrap()];
        tools::run("qemu-io", &args);
        let told = guest.sockets.path().join("told");
        Self { guest, told }
    }

    /// Starts it; returns when it counts.
    pub(super) fn start(&mut self, site: &Site) {
        let port = format!("file:{}", self.told.display());
        self.guest.start(site, &["-debugcon", &port]);
        crate::support::until("it counts", || self.count() > 0);
    }

    /// Pauses it.
    pub(super) fn pause(&self) {
        self.guest.tell("stop", &json!({}));
    }

    /// How far it has told that it has counted.
    pub(super) fn count(&self) -> u64 {
        std::fs::metadata(&self.told).map_or(0, |told| told.len())
    }

    /// Its disks have held all numbers until now, and no write has failed.
    pub(super) fn assert_sound(&self, what: &str) {
        let told = std::fs::read(&self.told).unwrap();
        assert!(told.iter().all(|it| *it == b'.'), "{what}: a write failed");
    }
}

/// The number on a disk of such a machine.
pub(super) fn number(image: &Path, what: &str) -> u64 {
    let sectors = head(image, 2, what);
    let number = sectors[NUMBER..].first_chunk().unwrap();
    u32::from_le_bytes(*number).into()
}

/// So many sectors from the beginning of a disk, whatever runs on it.
pub(super) fn head(image: &Path, sectors: usize, what: &str) -> Vec<u8> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let part = [
        "bs=512".to_owned(),
        format!("count={sectors}"),
        format!("if={}", image.display()),
        format!("of={}", out.path().display()),
    ];
    let how = ["dd", "-U", "-f", format(image), "-O", "raw"];
    let part = part.iter().map(String::as_str);
    let args: Vec<_> = how.into_iter().chain(part).collect();
    let (read, said) = tools::try_run("qemu-img", &args);
    assert!(read, "{what}: {said}");
    std::fs::read(out.path()).unwrap()
}
