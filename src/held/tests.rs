//! Attacks on names of files and folders, each by hand.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::stat::Mode;
use rustix::fs::inotify;
use tempfile::TempDir;

use super::*;
use crate::text::Argument;
use crate::text::catalog::held as texts;

/// A private folder of ours, a shared one, and a file outside that nobody may touch.
struct World {
    _dir: TempDir,
    ours: PathBuf,
    shared: PathBuf,
    victim: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("ours")).unwrap();
        fs::create_dir(at("shared")).unwrap();
        fs::set_permissions(at("ours"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(at("shared"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(at("victim"), "secret").unwrap();
        fs::set_permissions(at("victim"), fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            ours: at("ours"),
            shared: at("shared"),
            victim: at("victim"),
            _dir: dir,
        }
    }

    fn is_untouched(&self) -> bool {
        let meta = fs::metadata(&self.victim).unwrap();
        fs::read(&self.victim).unwrap() == b"secret" && meta.mode() & 0o7777 == 0o600
    }
}

fn inode(file: &Path) -> u64 {
    fs::symlink_metadata(file).unwrap().ino()
}

#[test]
fn only_a_regular_file_is_opened_and_nothing_waits_for_a_pipe() {
    let world = World::new();
    let at = |name: &str| world.shared.join(name);
    symlink(&world.victim, at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
    fs::create_dir(at("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for write in [false, true] {
        for name in ["link", "dangling"] {
            let error = open(&at(name), write).unwrap_err();
            assert_eq!(foreign(&error), Some(Foreign::Link), "{name} {error}");
        }
        for name in ["pipe", "folder", "socket"] {
            let error = open(&at(name), write).unwrap_err();
            assert_eq!(foreign(&error), Some(Foreign::NotRegular), "{name} {error}");
        }
        assert_eq!(
            foreign(&open(Path::new("/dev/null"), write).unwrap_err()),
            Some(Foreign::NotRegular)
        );
        assert!(open(&world.victim, write).is_ok());
    }
    assert!(open_any(&at("link")).is_ok());
    assert!(append(&at("link"), 0o600).is_err());
    let folder = Folder::open(&world.shared).unwrap();
    assert!(folder.create_new("dangling", 0o600).is_err());
    assert!(folder.open_or_create("dangling", 0o600).is_err());
    assert!(world.is_untouched() && !at("nowhere").exists());
}

#[test]
fn a_log_is_added_to_by_one_name_and_through_links_of_private_folders_only() {
    let world = World::new();
    let at = |name: &str| world.shared.join(name);
    append(&at("log"), 0o640).unwrap().write_all(b"a").unwrap();
    append(&at("log"), 0o640).unwrap().write_all(b"b").unwrap();
    assert_eq!(fs::read(at("log")).unwrap(), b"ab");
    symlink(&world.victim, at("link")).unwrap();
    fs::hard_link(&world.victim, at("second")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
    let why = |name| foreign(&append(&at(name), 0o640).unwrap_err());
    assert_eq!(why("link"), Some(Foreign::Link));
    assert_eq!(why("pipe"), Some(Foreign::NotRegular));
    assert_eq!(why("second"), Some(Foreign::Names(2)));
    let shared = Folder::open(&world.shared).unwrap();
    let error = shared.open_or_create("second", 0o640).unwrap_err();
    assert_eq!(foreign(&error), Some(Foreign::Names(2)));
    assert!(world.is_untouched());
    symlink(at("log"), world.ours.join("link")).unwrap();
    let mut through = append(&world.ours.join("link"), 0o640).unwrap();
    through.write_all(b"c").unwrap();
    assert_eq!(fs::read(at("log")).unwrap(), b"abc");
    assert!(append(Path::new("/dev/full"), 0o640).is_ok());
}

#[test]
fn a_link_is_replaced_and_removed_and_nothing_else_is() {
    let world = World::new();
    for folder in [&world.ours, &world.shared] {
        let held = Folder::open(folder).unwrap();
        let to = Path::new("/1");
        held.set_link("a", to, ".aside").unwrap();
        held.set_link("a", Path::new("/2"), ".aside").unwrap();
        assert_eq!(
            held.read_link("a").unwrap().as_deref(),
            Some(Path::new("/2"))
        );
        fs::write(folder.join("file"), "mine").unwrap();
        assert!(held.set_link("file", to, ".aside").is_err());
        fs::rename(folder.join("file"), folder.join(".aside")).unwrap();
        assert!(held.set_link("b", to, ".aside").is_err());
        assert!(!held.remove_link(".aside").unwrap());
        assert_eq!(held.read_link(".aside").unwrap(), None);
        assert_eq!(held.read_link("nothing").unwrap(), None);
        assert!(held.remove_link("a").unwrap() && !held.remove_link("a").unwrap());
        assert_eq!(held.names().unwrap(), [".aside"]);
    }
}

#[test]
fn what_is_no_regular_file_is_not_opened_to_see_that() {
    let world = World::new();
    let pipe = world.shared.join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let opens = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&opens, &pipe, inotify::WatchFlags::OPEN).unwrap();
    let seen = || rustix::io::read(&opens, &mut [0; 1024]);
    let folder = Folder::open(&world.shared).unwrap();
    let opened = [
        open(&pipe, false).map(drop),
        open(&pipe, true).map(drop),
        open_any(&pipe).map(drop),
        read_any(&pipe).map(drop),
        folder.open_file("pipe", false).map(drop),
        folder.open_or_create("pipe", 0o600).map(drop),
        append(&pipe, 0o600).map(drop),
    ];
    for (n, opened) in opened.into_iter().enumerate() {
        let error = opened.unwrap_err();
        assert_eq!(foreign(&error), Some(Foreign::NotRegular), "{n}: {error}");
    }
    assert_eq!(seen(), Err(rustix::io::Errno::AGAIN));
    File::options().read(true).write(true).open(&pipe).unwrap();
    assert!(seen().is_ok());
}

#[test]
fn a_socket_takes_the_place_of_a_dead_one_and_of_nothing_else() {
    let world = World::new();
    for folder in [&world.ours, &world.shared] {
        let held = Folder::open(folder).unwrap();
        let (first, made) = held.listen("s", 0o600).unwrap();
        assert_eq!(made.kind, FileKind::Socket);
        drop(first);
        let (_second, new) = held.listen("s", 0o600).unwrap();
        let stands = || held.look("s").unwrap().map(|it| (it.inode, it.mode));
        assert_eq!(stands(), Some((new.inode, 0o600)));
        let other = Identity {
            inode: new.inode + 1,
            ..made
        };
        assert!(held.remove_socket("s", &other).is_err());
        assert!(held.remove_socket("s", &new).unwrap());
        for put in 0..3 {
            match put {
                0 => symlink(&world.victim, folder.join("s")).unwrap(),
                1 => fs::write(folder.join("s"), "mine").unwrap(),
                _ => nix::unistd::mkfifo(&folder.join("s"), Mode::S_IRWXU).unwrap(),
            }
            assert!(held.listen("s", 0o600).is_err(), "{put}");
            fs::remove_file(folder.join("s")).unwrap();
        }
    }
    assert!(world.is_untouched());
}

#[test]
fn what_is_moved_is_what_was_looked_at() {
    let world = World::new();
    let (shared, ours) = (
        Folder::open(&world.shared).unwrap(),
        Folder::open(&world.ours).unwrap(),
    );
    fs::write(world.shared.join("a"), "a").unwrap();
    let looked = shared.look("a").unwrap().unwrap();
    fs::rename(world.shared.join("a"), world.shared.join("old")).unwrap();
    symlink(&world.victim, world.shared.join("a")).unwrap();
    let error = shared.move_new("a", &looked, &ours, "a").unwrap_err();
    assert!(matches!(foreign(&error), Some(Foreign::Other { .. })));
    assert_eq!(fs::read_link(world.shared.join("a")).unwrap(), world.victim);
    assert!(ours.names().unwrap().is_empty());
    shared.move_new("old", &looked, &ours, "a").unwrap();
    assert_eq!(fs::read(world.ours.join("a")).unwrap(), b"a");
    fs::write(world.shared.join("b"), "b").unwrap();
    let b = shared.look("b").unwrap().unwrap();
    let error = shared.move_new("b", &b, &ours, "a").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    let error = ours.move_new("a", &looked, &shared, "c").unwrap_err();
    assert!(matches!(foreign(&error), Some(Foreign::Shared { .. })));
    assert!(world.is_untouched());
}

#[test]
fn a_file_of_ours_is_removed_whichever_it_is_and_nothing_else_is() {
    let world = World::new();
    for folder in [&world.ours, &world.shared] {
        let file = folder.join("f");
        fs::write(&file, "x").unwrap();
        assert!(remove_file(&file).unwrap() && !remove_file(&file).unwrap());
        symlink(&world.victim, &file).unwrap();
        assert_eq!(
            foreign(&remove_file(&file).unwrap_err()),
            Some(Foreign::Link)
        );
        fs::remove_file(&file).unwrap();
        let link = world.victim.with_file_name("link");
        symlink(folder, &link).unwrap();
        fs::write(&file, "x").unwrap();
        let error = remove_file(&link.join("f")).unwrap_err();
        assert_eq!(foreign(&error), Some(Foreign::Link));
        assert!(file.exists());
        fs::remove_file(&link).unwrap();
        fs::remove_file(&file).unwrap();
    }
    assert!(world.is_untouched());
}

#[test]
fn a_held_file_is_meant_whatever_takes_its_name() {
    let world = World::new();
    let image = world.shared.join("a.raw");
    fs::write(&image, "image").unwrap();
    let held = open(&image, false).unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o444)).unwrap();
    fs::rename(&image, world.shared.join("old")).unwrap();
    symlink(&world.victim, &image).unwrap();
    set_mode(&held, 0o640).unwrap();
    set_attribute(&held, "user.note", b"x").ok();
    writable(&held).unwrap().write_all(b"IMAGE").unwrap();
    assert_eq!(fs::read(world.shared.join("old")).unwrap(), b"IMAGE");
    assert!(world.is_untouched());
}

#[test]
fn a_held_folder_is_meant_whatever_takes_its_name() {
    let world = World::new();
    fs::create_dir(world.shared.join("a")).unwrap();
    let held = Folder::open(&world.shared.join("a")).unwrap();
    fs::rename(world.shared.join("a"), world.shared.join("b")).unwrap();
    symlink(&world.ours, world.shared.join("a")).unwrap();
    held.create_new("x", 0o600).unwrap();
    assert!(world.shared.join("b/x").exists() && !world.ours.join("x").exists());
    let error = Folder::open(&world.shared.join("a")).unwrap_err();
    assert_eq!(foreign(&error), Some(Foreign::Link));
    let shared = Folder::open(&world.shared).unwrap();
    let error = shared.child("a").unwrap_err();
    assert_eq!(foreign(&error), Some(Foreign::Link));
    assert_eq!(
        foreign(&shared.make("a", 0o700).unwrap_err()),
        Some(Foreign::Link)
    );
    for bad in ["", ".", "..", "b/x", "/"] {
        assert!(shared.look(bad).is_err(), "{bad:?}");
        assert!(shared.create_new(bad, 0o600).is_err(), "{bad:?}");
    }
}

/// As the folder for clones, in a folder in which others may rename.
#[test]
fn folders_in_a_held_one_go_whatever_takes_its_name() {
    let world = World::new();
    let root = Arc::new(Folder::open(&world.shared).unwrap());
    let file = Ours::below(root, Path::new("first/set/file")).unwrap();
    let file = file.within(First::new(|_| Ok(())));
    drop(file.make().unwrap().create_new("file", 0o600).unwrap());
    let at = |name: &str| world.shared.join(name);
    fs::rename(at("first"), at("aside")).unwrap();
    fs::create_dir_all(at("first/set")).unwrap();
    assert!(file.discard(None).unwrap());
    file.remove_folders(2).unwrap();
    assert!(at("aside").is_dir() && !at("aside/set").exists());
    assert!(at("first/set").is_dir(), "it is another one");
}

#[test]
fn no_way_leads_out_of_a_root_with_openat2_or_without() {
    let world = World::new();
    fs::create_dir_all(world.shared.join("in/deep")).unwrap();
    symlink("in", world.shared.join("link")).unwrap();
    symlink(&world.ours, world.shared.join("out")).unwrap();
    let root = Folder::open(&world.shared).unwrap();
    let table = [
        ("", true, true),
        ("in/deep", true, true),
        ("link/deep", false, true),
        ("out", false, false),
        ("../ours", false, false),
        ("/", false, false),
    ];
    for (way, straight, beneath) in table {
        let path = Path::new(way);
        assert_eq!(
            root.beneath(path, Way::Straight).is_ok(),
            straight,
            "{way:?}"
        );
        assert_eq!(root.walk(path, path.into()).is_ok(), straight, "{way:?}");
        assert_eq!(root.beneath(path, Way::Beneath).is_ok(), beneath, "{way:?}");
    }
    let found = Folder::resolve(&world.shared.join("link/deep")).unwrap();
    let real = world.shared.canonicalize().unwrap();
    assert_eq!(found.path(), real.join("in/deep"));
}

#[test]
fn an_exchange_puts_back_what_is_foreign() {
    let world = World::new();
    let (image, new) = (world.shared.join("a.raw"), world.ours.join("new"));
    fs::write(&image, "old").unwrap();
    fs::write(&new, "new").unwrap();
    let (shared, ours) = (
        Folder::open(&world.shared).unwrap(),
        Folder::open(&world.ours).unwrap(),
    );
    let (old, made) = (inode(&image), inode(&new));
    let exchange = |old| shared.exchange("a.raw", old, &ours, "new", made);
    // Another file.
    let error = exchange(old + 1).unwrap_err();
    assert_eq!(
        foreign(&error),
        Some(Foreign::Other {
            expected: old + 1,
            found: old
        })
    );
    // A link.
    fs::rename(&image, world.shared.join("aside")).unwrap();
    symlink(&world.victim, &image).unwrap();
    assert_eq!(foreign(&exchange(old).unwrap_err()), Some(Foreign::Link));
    assert_eq!(fs::read_link(&image).unwrap(), world.victim);
    fs::remove_file(&image).unwrap();
    fs::rename(world.shared.join("aside"), &image).unwrap();
    exchange(old).unwrap();
    assert_eq!(fs::read(&image).unwrap(), b"new");
    assert_eq!(inode(&new), old);
    // Into a folder where others could exchange it again.
    let error = ours
        .exchange("new", old, &shared, "a.raw", made)
        .unwrap_err();
    assert!(matches!(foreign(&error), Some(Foreign::Shared { .. })));
    assert!(world.is_untouched());
}

#[test]
fn an_exchange_under_attack_ends_whole_or_not_at_all() {
    let world = World::new();
    let (image, new) = (world.shared.join("a.raw"), world.ours.join("new"));
    fs::write(&image, "old").unwrap();
    fs::write(&new, "new").unwrap();
    let (old, made) = (inode(&image), inode(&new));
    let (shared, ours) = (
        Folder::open(&world.shared).unwrap(),
        Folder::open(&world.ours).unwrap(),
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    let aside = world.shared.join("aside");
    symlink(&world.victim, &aside).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let folder = Folder::open(&world.shared).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let (a, b) = (folder.as_fd(), folder.as_fd());
                rustix::fs::renameat_with(a, "a.raw", b, "aside", flags).unwrap();
            }
        });
        for _ in 0..2000 {
            match shared.exchange("a.raw", old, &ours, "new", made) {
                Ok(()) => {
                    assert_eq!(ours.look("new").unwrap().unwrap().inode, old);
                    break;
                }
                Err(e) => match foreign(&e).unwrap() {
                    Foreign::Kept { .. } => break,
                    _ => assert_eq!(ours.look("new").unwrap().unwrap().inode, made),
                },
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(world.is_untouched());
}

#[test]
fn only_the_expected_file_is_removed() {
    let world = World::new();
    for folder in [&world.ours, &world.shared] {
        let held = Folder::open(folder).unwrap();
        let file = folder.join("a");
        fs::write(&file, "x").unwrap();
        let it = inode(&file);
        let error = held.remove("a", it + 1).unwrap_err();
        assert!(matches!(foreign(&error), Some(Foreign::Other { .. })));
        assert!(held.remove("a", it).unwrap());
        assert!(!held.remove("a", it).unwrap());
        symlink(&world.victim, &file).unwrap();
        let error = held.remove("a", inode(&world.victim)).unwrap_err();
        assert_eq!(foreign(&error), Some(Foreign::Link));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let error = held.remove("a", it).unwrap_err();
        assert_eq!(foreign(&error), Some(Foreign::NotRegular));
        fs::remove_dir(&file).unwrap();
        assert_eq!(
            held.names().unwrap(),
            Vec::<std::ffi::OsString>::new(),
            "nothing of ours is left"
        );
    }
    assert!(world.is_untouched());
}

#[test]
fn what_a_killed_process_left_while_it_removed_a_file_goes_at_the_next_try() {
    let world = World::new();
    let held = Folder::open(&world.shared).unwrap();
    fs::write(world.shared.join("a"), "x").unwrap();
    let it = inode(&world.shared.join("a"));
    let trash = held.make(".groupshot-trash-1", 0o700).unwrap();
    held.rename_new("a", &trash, it.to_string()).unwrap();
    assert!(!held.remove("a", it).unwrap());
    assert!(held.names().unwrap().is_empty());
    // In a folder of root that somebody else has given such a name nothing is removed but that very file.
    fs::create_dir(world.shared.join(".groupshot-trash")).unwrap();
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(world.shared.join(".groupshot-trash"), private).unwrap();
    fs::write(world.shared.join("a"), "x").unwrap();
    let it = inode(&world.shared.join("a"));
    let number = world.shared.join(".groupshot-trash").join(it.to_string());
    fs::write(&number, "root's").unwrap();
    assert!(held.remove("a", it).unwrap());
    assert!(!held.remove("a", it).unwrap());
    assert_eq!(fs::read(&number).unwrap(), b"root's");
    assert_eq!(held.names().unwrap(), [".groupshot-trash"]);
}

#[test]
fn a_folder_is_told_by_its_number_and_when_it_was_made() {
    let world = World::new();
    let ours = Folder::open(&world.ours).unwrap();
    let made = ours.make_new("a", 0o750).unwrap().origin().unwrap();
    let text = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<Origin>(&text).unwrap(), made);
    let other = ours.make_new("b", 0o750).unwrap();
    assert!(other.require(&made).is_err());
    fs::write(world.ours.join("b/file"), "x").unwrap();
    let error = ours.remove_tree("b", &made).unwrap_err();
    assert!(matches!(foreign(&error), Some(Foreign::Other { .. })));
    assert!(world.ours.join("b/file").exists());
    // The same number, made at another time.
    let born: serde_json::Value = serde_json::from_str(&text).unwrap();
    if born.get("born").is_some() {
        let mut again = born;
        again["born"] = serde_json::json!([1, 2]);
        let again: Origin = serde_json::from_value(again).unwrap();
        assert!(ours.remove_tree("a", &again).is_err());
    }
    assert!(ours.remove_tree("a", &made).unwrap());
}

#[test]
fn a_tree_is_removed_without_following_a_link() {
    let world = World::new();
    let held = Folder::open(&world.ours).unwrap();
    fs::create_dir_all(world.ours.join("t/one/two")).unwrap();
    for folder in ["t", "t/one", "t/one/two"] {
        let mode = fs::Permissions::from_mode(0o750);
        fs::set_permissions(world.ours.join(folder), mode).unwrap();
    }
    fs::write(world.ours.join("t/one/two/file"), "x").unwrap();
    symlink(world.victim.parent().unwrap(), world.ours.join("t/one/out")).unwrap();
    let made = held.child("t").unwrap().origin().unwrap();
    assert!(held.remove_tree("t", &made).unwrap());
    assert!(!held.remove_tree("t", &made).unwrap());
    symlink(&world.shared, world.ours.join("t")).unwrap();
    let error = held.remove_tree("t", &made).unwrap_err();
    assert_eq!(foreign(&error), Some(Foreign::Link));
    assert!(world.is_untouched() && world.shared.exists());
}

#[test]
fn a_file_is_replaced_whole_and_through_no_link() {
    let world = World::new();
    let file = world.ours.join("tops.json");
    symlink(&world.victim, world.ours.join("tops.json.new")).unwrap();
    replace(&file, b"one", 0o640).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"one");
    symlink(&world.victim, world.ours.join("link")).unwrap();
    replace(&world.ours.join("link"), b"two", 0o600).unwrap();
    assert!(
        fs::symlink_metadata(world.ours.join("link"))
            .unwrap()
            .is_file()
    );
    let refused = replace_as(&file, b"three", 0o640, |_| Err(io::Error::other("no")));
    assert!(matches!(refused, Err(NotReplaced::Refused(_))));
    assert_eq!(fs::read(&file).unwrap(), b"one");
    assert!(!world.ours.join("tops.json.new").exists());
    assert!(world.is_untouched());
}

#[test]
fn folders_of_ours_are_no_links_and_not_shared() {
    let world = World::new();
    let made = make_folders(&world.shared.join("a/b"), 2).unwrap();
    assert!(made.identity().unwrap().is_private());
    make_folders(&world.shared.join("a/b"), 2).unwrap();
    symlink(&world.ours, world.shared.join("link")).unwrap();
    let error = make_folders(&world.shared.join("link"), 1).unwrap_err();
    assert_eq!(foreign(&error), Some(Foreign::Link));
    let error = make_folders(&world.shared.join("link/x"), 2).unwrap_err();
    assert_eq!(foreign(&error), Some(Foreign::Link));
    assert!(!world.ours.join("x").exists());
    make_folders(&world.shared.join("link/x"), 1).unwrap();
    assert!(world.ours.join("x").is_dir());
    let error = make_folders(&world.shared.join("b"), 2).unwrap_err();
    assert!(matches!(foreign(&error), Some(Foreign::Shared { .. })));
    fs::write(world.shared.join("a/b/file"), "").unwrap();
    remove_folders(&world.shared.join("a/b/gone"), 2).unwrap();
    assert!(world.shared.join("a/b").exists());
    fs::remove_file(world.shared.join("a/b/file")).unwrap();
    remove_folders(&world.shared.join("a/b/gone"), 2).unwrap();
    assert!(!world.shared.join("a").exists());
}

/// A sync is most of what a change of names costs, and a folder that goes takes what was in it along.
#[test]
fn of_folders_that_go_only_the_one_above_is_synced_and_of_those_that_stay_each_that_lost_one() {
    let world = World::new();
    let file = world.shared.join("a/b/file");
    let made = || {
        let folder = make_folders(file.parent().unwrap(), 2).unwrap();
        drop(folder.create_new("file", 0o600).unwrap());
    };
    let removed = || {
        let _before = synced();
        discard(&file, 2, None).unwrap();
        remove_folders(&file, 2).unwrap();
        synced()
    };
    made();
    assert_eq!(removed(), ["b", "shared"]);
    made();
    fs::write(world.shared.join("a/b/other"), "").unwrap();
    assert_eq!(removed(), ["b"]);
    fs::remove_file(world.shared.join("a/b/other")).unwrap();
    fs::write(world.shared.join("a/other"), "").unwrap();
    assert_eq!(removed(), ["b", "a"]);
    // Perhaps a process died before it had synced that.
    assert_eq!(removed(), ["a"]);
}

#[test]
fn a_nameless_file_gets_a_name_and_replaces_nothing() {
    let world = World::new();
    let folder = Folder::open(&world.shared).unwrap();
    let file = folder.nameless(0o600).unwrap();
    symlink(&world.victim, world.shared.join("taken")).unwrap();
    assert!(folder.link_in(&file, "taken").is_err());
    folder.link_in(&file, "free").unwrap();
    assert_eq!(
        inode(&world.shared.join("free")),
        Identity::of(&file).unwrap().inode
    );
    fs::hard_link(world.shared.join("free"), world.shared.join("second")).unwrap();
    assert_eq!(Identity::of(&file).unwrap().links, 2);
}

#[test]
fn the_mode_of_a_socket_is_set_without_following_a_link() {
    let world = World::new();
    let folder = Folder::open(&world.shared).unwrap();
    let socket = world.shared.join("s");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let it = folder.look("s").unwrap().unwrap();
    folder.set_mode_of("s", &it, 0o600).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o7777, 0o600);
    fs::rename(&socket, world.shared.join("old")).unwrap();
    symlink(&world.victim, &socket).unwrap();
    let error = folder.set_mode_of("s", &it, 0o666).unwrap_err();
    assert!(matches!(foreign(&error), Some(Foreign::Other { .. })));
    let _: File = folder.create_new("kept", 0o600).unwrap();
    assert!(world.is_untouched());
}

#[test]
fn nothing_is_looked_for_in_an_open_folder_once_its_place_does_not_answer() {
    let world = World::new();
    fs::create_dir(world.shared.join("in")).unwrap();
    let folder = Folder::open(&world.shared).unwrap();
    assert!(folder.beneath(Path::new("in"), Way::Beneath).is_ok());
    let stands = world.shared.join("stands");
    let (go, gate) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let at = &stands;
        let standing = scope.spawn(move || ask(at, || Ok(gate.recv().is_ok())));
        while !give_up(&stands) {
            std::thread::yield_now();
        }
        let beneath = |below, way| folder.beneath(Path::new(below), way).map(drop);
        let looks = [
            beneath("in", Way::Beneath),
            beneath("in", Way::Straight),
            beneath("", Way::Beneath),
            folder.identity().map(drop),
            folder.open_or_create("new", 0o600).map(drop),
        ];
        go.send(()).unwrap();
        assert!(standing.join().unwrap().unwrap());
        for (at, look) in looks.into_iter().enumerate() {
            assert!(look.is_err_and(|e| is_silence(&e)), "look {at}");
        }
        assert!(!world.shared.join("new").exists());
    });
    assert!(folder.beneath(Path::new("in"), Way::Beneath).is_ok());
}

#[test]
fn a_link_counts_where_nobody_else_can_have_put_it() {
    let world = World::new();
    let at = |folder: &Path, name: &str| folder.join(name);
    fs::write(at(&world.ours, "real"), "x").unwrap();
    for folder in [&world.ours, &world.shared] {
        symlink("real", at(folder, "near")).unwrap();
        symlink(at(&world.ours, "near"), at(folder, "far")).unwrap();
    }
    let ours = world.ours.canonicalize().unwrap();
    let shared = world.shared.canonicalize().unwrap();
    for name in ["real", "near", "far", "../ours/far"] {
        assert!(is_led(&at(&ours, name)).unwrap(), "{name}");
    }
    for name in ["near", "far"] {
        assert!(!is_led(&at(&shared, name)).unwrap(), "{name}");
    }
    // By way of one that anybody may have put there.
    symlink(at(&shared, "far"), at(&ours, "round")).unwrap();
    assert!(!is_led(&at(&ours, "round")).unwrap());
    symlink("loop", at(&ours, "loop")).unwrap();
    assert!(!is_led(&at(&ours, "loop")).unwrap());
    assert!(is_led(&at(&ours, "gone")).is_err());
}

/// What it is can be told, and its words are a text within those of others.
#[test]
fn what_is_foreign_or_silent_is_a_text_within_another() {
    let other = Foreign::Other {
        expected: 1,
        found: 2,
    };
    let error = io::Error::from(other);
    assert_eq!(foreign(&error), Some(other));
    let words = texts::OTHER.with("found", 2).with("expected", 1);
    assert_eq!(error.to_string(), words.english());
    assert_eq!(Argument::from(&error), words.into());
    let gone = io::Error::from(io::ErrorKind::NotFound);
    assert_eq!(foreign(&gone), None);
    assert_eq!(Argument::from(&gone), Argument::Plain(gone.to_string()));

    let error = Silent("/images".into()).error();
    assert!(is_silence(&error) && !is_silence(&gone));
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(
        Argument::from(error),
        texts::SILENT.with("place", "/images").into()
    );
}
