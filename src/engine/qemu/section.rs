//! `[qemu]` of `vm.toml`: how a machine runs, and where its QEMU is asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::held;
use crate::inventory::Sockets;
use crate::text::Text;
use crate::text::catalog::engine as texts;

/// Most monitors of a machine.
const MONITORS_MAX: usize = 2;

/// Keys of the section that are of this host, and mean nothing on another one.
const OF_THE_HOST: &[&str] = &["qmp", "agent", "unmanaged_ok", "no_flush_ok"];

/// Folders that managers of machines have their sockets in. A monitor there is the manager's, which goes wrong without it.
const MANAGED: &[(&str, &str)] = &[
    ("/run/libvirt", "libvirt"),
    ("/var/lib/libvirt", "libvirt"),
    ("/run/qemu-server", "Proxmox VE"),
    ("/run/incus", "Incus"),
    ("/var/lib/incus", "Incus"),
    ("/var/log/incus", "Incus"),
    ("/run/lxd", "LXD"),
    ("/var/lib/lxd", "LXD"),
    ("/var/log/lxd", "LXD"),
    ("/var/snap/lxd", "LXD"),
];

/// The section. Other keys are for a later version, and refused by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Section {
    /// Whoever starts the machine looks up its active files first.
    #[serde(default)]
    pub(crate) overlay_ok: bool,
    /// Sockets of QMP monitors: Groupshot's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) qmp: Vec<PathBuf>,
    /// The socket of the guest agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<PathBuf>,
    /// Somebody else may manage the machine.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(crate) unmanaged_ok: bool,
    /// Its QEMU may have disks open that it never writes out.
    #[serde(default, skip_serializing_if = "is_not")]
    pub(crate) no_flush_ok: bool,
    #[serde(flatten)]
    others: toml::Table,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_not(on: &bool) -> bool {
    !on
}

impl Section {
    /// The section, if anything is to stand in it.
    pub(crate) fn new(overlay_ok: bool, sockets: &Sockets, unmanaged_ok: bool) -> Option<Self> {
        let it = Self {
            overlay_ok,
            qmp: sockets.qmp.clone(),
            agent: sockets.agent.clone(),
            unmanaged_ok,
            no_flush_ok: false,
            others: toml::Table::new(),
        };
        (it != Self::default()).then_some(it)
    }

    /// A key that this version does not read.
    pub(crate) fn unread(&self) -> Option<&str> {
        self.others.keys().next().map(String::as_str)
    }

    /// Where the machine is asked.
    pub(crate) fn sockets(&self) -> Sockets {
        Sockets {
            qmp: self.qmp.clone(),
            agent: self.agent.clone(),
        }
    }

    /// The rules that types do not hold.
    ///
    /// # Errors
    /// In words what is wrong.
    pub(crate) fn check(&self) -> Result<(), Text> {
        if self.qmp.len() > MONITORS_MAX {
            let text = texts::QEMU_MONITORS.with("limit", MONITORS_MAX);
            return Err(text.with("count", self.qmp.len()));
        }
        let mut seen = BTreeSet::new();
        for socket in self.qmp.iter().chain(&self.agent) {
            if !socket.is_absolute() || socket.to_str().is_none() {
                return Err(texts::SOCKET_FORM.with("file", socket.display()));
            }
            if !seen.insert(socket) {
                return Err(texts::SOCKET_TWICE.with("file", socket.display()));
            }
        }
        if self.agent.is_some() && self.qmp.is_empty() {
            return Err(texts::AGENT_ALONE.text());
        }
        if self.overlay_ok && self.unmanaged_ok {
            return Err(texts::UNMANAGED_OVERLAY.text());
        }
        Ok(())
    }
}

/// The manager whose socket this is, by where it lies, links resolved. Blocks.
pub(crate) fn manager(socket: &Path) -> Option<&'static str> {
    let folder = socket.parent()?;
    let real = held::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    // Also where the folder is not there now.
    let real = match real.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => real,
    };
    let named = MANAGED.iter().find(|(of, _)| real.starts_with(of));
    // A session of libvirt has its sockets below the home or the run-time folder of a user.
    let of_session = || {
        let parts: Vec<_> = real.components().map(|part| part.as_os_str()).collect();
        let is_session = parts.windows(2).any(|two| *two == ["libvirt", "qemu"]);
        is_session.then_some("libvirt")
    };
    named.map(|(_, name)| *name).or_else(of_session)
}

/// Takes out of a definition what is of this host only; the keys that it had.
pub(crate) fn without_host(definition: &mut toml::Table) -> Vec<&'static str> {
    let Some(section) = definition
        .get_mut("qemu")
        .and_then(toml::Value::as_table_mut)
    else {
        return Vec::new();
    };
    let lost = OF_THE_HOST.iter().copied();
    lost.filter(|key| section.remove(*key).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::definition;

    fn section(text: &str) -> Result<Section, String> {
        let section: Section = toml::from_str(text).map_err(|e| e.to_string())?;
        section.check().map_err(|text| text.english())?;
        Ok(section)
    }

    #[test]
    fn sockets_are_read_and_what_is_wrong_with_them_is_named() {
        let good = section("qmp = ['/run/a', '/run/b']\nagent = '/run/c'\n").unwrap();
        assert_eq!(
            good.sockets().qmp,
            [Path::new("/run/a"), Path::new("/run/b")]
        );
        assert_eq!(good.sockets().agent.as_deref(), Some(Path::new("/run/c")));
        let table = [
            ("qmp = ['/a', '/b', '/c']", "names 3 sockets"),
            ("qmp = ['a']", "socket a "),
            ("qmp = ['/a', '/a']", "/a twice"),
            ("qmp = ['/a']\nagent = '/a'", "/a twice"),
            ("agent = '/a'", "agent needs qmp"),
            (
                "qmp = ['/a']\nunmanaged_ok = true\noverlay_ok = true",
                "exclude",
            ),
            ("qmp = '/a'", "expected a sequence"),
        ];
        for (text, word) in table {
            let error = section(text).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_manager_is_told_by_the_folder_of_its_sockets_through_links_too() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let own = dir.join(".config/libvirt/qemu/lib/domain-1-web");
        std::fs::create_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(&own, dir.join("link")).unwrap();
        let table = [
            (dir.join("web.qmp"), None),
            (dir.join("link/monitor.sock"), Some("libvirt")),
            ("/var/run/qemu-server/100.qmp".into(), Some("Proxmox VE")),
            ("/run/libvirt/qemu/web".into(), Some("libvirt")),
            (
                "/var/snap/lxd/common/lxd/logs/web/qemu.monitor".into(),
                Some("LXD"),
            ),
            ("/run/incus/web/qemu.monitor".into(), Some("Incus")),
        ];
        for (socket, expected) in table {
            assert_eq!(manager(&socket), expected, "{}", socket.display());
        }
    }

    #[test]
    fn an_exported_definition_tells_what_of_its_host_it_has_lost() {
        let text = "id = 'x'\n[qemu]\nqmp = ['/run/a']\nagent = '/run/b'\nunmanaged_ok = true\n[[disk]]\nid = 'd'\n";
        let files = std::collections::BTreeMap::from([("d".to_owned(), "d.qcow2".to_owned())]);
        let exported = definition::with_disks(text, &files).unwrap();
        let (comment, rest) = exported.split_once('\n').unwrap();
        assert!(
            comment.starts_with("# ") && comment.ends_with("qmp, agent, unmanaged_ok"),
            "{comment}"
        );
        assert!(
            !rest.contains("/run") && !rest.contains("unmanaged"),
            "{rest}"
        );
        let exported =
            definition::with_disks("[qemu]\noverlay_ok = true\n[[disk]]\nid = 'd'\n", &files);
        assert!(!exported.unwrap().contains('#'));
    }
}
