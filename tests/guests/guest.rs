//! The smallest machine that can tell a lost write: its boot sector counts its starts in the second
//! sector of its disk, tells the count on QEMU's debug port and powers off.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::site::format;
use crate::support::tools;

/// Real-mode code at 0x7c00: reads sector 2, increments its first 32 bits, writes it back, sends the four
/// bytes to port 0xe9, powers off by ACPI (port 0x604 of the `pc` machine).
const BOOT: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // xor ax,ax; mov ds,es,ss,ax
    0xbc, 0x00, 0x7c, // mov sp,0x7c00
    0xb8, 0x01, 0x02, 0xbb, 0x00, 0x7e, 0xb9, 0x02, 0x00, 0xb6, 0x00, 0xcd, 0x13, // read
    0x72, 0x1f, // jc off
    0x66, 0xff, 0x06, 0x00, 0x7e, // inc dword [0x7e00]
    0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7e, 0xb9, 0x02, 0x00, 0xb6, 0x00, 0xcd, 0x13, // write
    0x72, 0x0b, // jc off
    0xbe, 0x00, 0x7e, 0xb9, 0x04, 0x00, // mov si,0x7e00; mov cx,4
    0xac, 0xe6, 0xe9, 0xe2, 0xfb, // lodsb; out 0xe9,al; loop
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, // off: out 0x604,0x2000
    0xf4, 0xeb, 0xfd, // hlt; jmp
];

/// Puts the boot sector and a count of 0 on a disk.
pub(super) fn install(image: &Path) {
    let mut sectors = BOOT.to_vec();
    sectors.resize(510, 0);
    sectors.extend([0x55, 0xaa]);
    sectors.resize(1024, 0);
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), sectors).unwrap();
    let command = format!("write -s {} 0 1024", source.path().display());
    let image_name = image.to_str().unwrap();
    tools::run(
        "qemu-io",
        &["-f", format(image), "-c", &command, image_name],
    );
}

/// How often the machine whose disk holds this has been started.
pub(super) fn count(content: &[u8]) -> u32 {
    u32::from_le_bytes(*content[512..].first_chunk().unwrap())
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// It ran; the count that it told.
    Ran(u32),
    /// QEMU refused to open the image; what it said.
    Refused(String),
}

/// Starts QEMU with this image as its only disk and waits for its end.
pub(super) fn start(image: &Path) -> Start {
    let drive = format!("file={},format={},if=ide", image.display(), format(image));
    let out = Command::new("timeout")
        .args(["60", "qemu-system-x86_64", "-M", "pc", "-accel", "tcg"])
        .args(["-m", "16", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-debugcon", "stdio", "-drive", &drive])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    match out.stdout.first_chunk() {
        Some(count) if out.status.success() => Start::Ran(u32::from_le_bytes(*count)),
        _ => {
            assert!(said.contains(image.to_str().unwrap()), "{out:?}");
            Start::Refused(said)
        }
    }
}
