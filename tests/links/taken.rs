//! Another process has a lock or a lease on an image that neither QEMU nor this server would take.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::scene::{INVALID_STATE, Scene};
use crate::support::site::{Ground, Image};
use crate::support::wire::Wire;

/// A write lock on the byte that the command line names, or a write lease, kept until the process is killed.
const TAKES: &str = "import fcntl, os, signal, struct, sys, time
file, what = sys.argv[1:]
if what == 'lease':
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(file, os.O_RDWR)
    for _ in range(600):  # the server may look at it just now
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            break
        except BlockingIOError:
            time.sleep(0.05)
    else:
        sys.exit('no lease')
else:
    fd = os.open(file, os.O_RDWR)
    lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, int(what), 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
print(flush=True)
signal.pause()
";

struct Taken(Child);

impl Taken {
    fn by(scene: &Scene, what: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", TAKES])
            .arg(&scene.image)
            .arg(what)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut began = [0];
        let out = child.stdout.as_mut().unwrap();
        out.read_exact(&mut began).unwrap();
        Self(child)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
#[ignore = "needs root and QEMU's tools, which ./check installs"]
fn an_image_that_another_process_has_a_lock_or_a_lease_on_is_in_use() {
    let scene = Scene::new(Ground::Xfs, Image::Raw, &["--overlay-ok"]);
    let server = scene.site.serve();
    let wire = Wire::new(&server);
    let group = scene.group(&wire);
    let set = wire.take(&group, "one");
    scene.site.wait_for_journals();
    // The two bytes that tell of Groupshot itself; one of QEMU's.
    for what in ["300", "301", "201", "lease"] {
        let _taken = Taken::by(&scene, what);
        for refused in [
            wire.create(&group, "two").unwrap(),
            wire.apply(&set).unwrap(),
        ] {
            let why = wire.why(&refused);
            assert_eq!(refused.value, INVALID_STATE, "{what}: {why}");
            assert!(why.contains("in use by another process"), "{what}: {why}");
        }
    }
    wire.take(&group, "two");
    scene.site.wait_for_journals();
}
