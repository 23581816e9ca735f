//! Row 9: a set of one machine with a real disk is taken, applied and destroyed, each from the request to the end of
//! its job, over one fdatasync of the same disk.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use groupshot::cim::schema::VIRTUALIZATION_V2;
use groupshot::cim::{Path, Value};
use groupshot::client::{Client, Object};
use groupshot::config::Config;
use groupshot::server::Server;
use tokio::runtime::Runtime;

use crate::{median, spread, subject};

/// Octets of the machine's disk.
const DISK: usize = 16 << 20;

pub(crate) fn run(short: bool) {
    let rounds = if short { 5 } else { 41 };
    let runtime = Runtime::new().unwrap();
    let data = subject::data_dir();
    let image = data.path().join("disk.raw");
    std::fs::write(&image, vec![1; DISK]).unwrap();
    let imported = subject::local(
        data.path(),
        &[
            "vm",
            "import",
            "--overlay-ok",
            "bench",
            image.to_str().unwrap(),
        ],
    );
    let mut config = Config::default();
    config.listen.http.set_port(0);
    // The answer comes with the end of the job.
    config.snapshot.inline_wait = Duration::from_secs(40);
    let server = runtime
        .block_on(Server::start(data.path(), &config))
        .unwrap();
    let address = server.address();
    runtime.spawn(async move { server.run_until(std::future::pending()).await });
    let machine = imported["id"].as_str().unwrap();
    let made = subject::command(address, &["collection", "create", "bench", machine]);
    let rig = Rig {
        client: subject::client(address),
        group: object("Msvm_VirtualSystemCollection")
            .key("CollectionID", made["id"].as_str().unwrap()),
        runtime,
        file: File::create(data.path().join("one")).unwrap(),
    };
    rig.rounds(rounds);
}

struct Rig {
    runtime: Runtime,
    client: Client,
    group: Path,
    /// On the disk of the data directory.
    file: File,
}

impl Rig {
    fn rounds(&self, rounds: usize) {
        let mut rows = [
            ("create", Vec::new()),
            ("apply", Vec::new()),
            ("destroy", Vec::new()),
        ];
        let mut syncs = Vec::new();
        for _ in 0..rounds {
            let mut set = None;
            for (name, times) in &mut rows {
                let sync = microseconds(|| {
                    (&self.file).write_all(&[1; 4096]).unwrap();
                    self.file.sync_data().unwrap();
                });
                let mut answer = None;
                let took = microseconds(|| answer = Some(self.call(name, set.as_ref())));
                let answer = answer.unwrap();
                assert_eq!(answer.number("ReturnValue"), Some(0), "{name}: {answer:?}");
                let made = answer.get("ResultingSnapshotCollection").as_reference();
                set = made.cloned().or(set);
                syncs.push(sync);
                times.push((took, took / sync));
            }
        }
        let sync = median(syncs);
        for (name, times) in rows {
            let ratios: Vec<f64> = times.iter().map(|t| t.1).collect();
            let (low, high) = spread(ratios.clone());
            println!(
                "{name:7}: {:.1} ms, one fdatasync {:.2} ms, ratio {:.1} ({low:.1}..{high:.1})",
                median(times.iter().map(|t| t.0).collect()) / 1e3,
                sync / 1e3,
                median(ratios),
            );
        }
    }

    fn call(&self, name: &str, set: Option<&Path>) -> Object {
        let set = || Value::from(set.unwrap().clone());
        let (method, arguments) = match name {
            "create" => {
                let group = ("Collection", Value::from(self.group.clone()));
                ("CreateSnapshot", vec![group, ("SnapshotType", "1".into())])
            }
            "apply" => ("ApplySnapshot", vec![("SnapshotCollection", set())]),
            _ => (
                "DestroySnapshot",
                vec![("AffectedSnapshotCollection", set())],
            ),
        };
        let service = object("Msvm_CollectionSnapshotService");
        let answer = self.client.invoke(&service, method, &arguments);
        self.runtime.block_on(answer).unwrap()
    }
}

fn object(class: &str) -> Path {
    Path::new(VIRTUALIZATION_V2, class)
}

fn microseconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e6
}
