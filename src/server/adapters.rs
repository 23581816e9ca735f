//! The adapters that the configuration names: engine, storage drivers, audit log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::{Audit, AuditTo};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::engine::Compute;
use crate::engine::drivers::Drivers;
use crate::engine::library::Library;
use crate::engine::overlay::Overlay;
use crate::engine::qcow2::chain::Roots;
use crate::engine::reflink::Reflink;
use crate::engine::settings::EngineKind;
use crate::engine::sim::Sim;
use crate::engine::space::Reserve;

use super::StartError;

/// The engine, its storage drivers, and the library if it is the engine.
pub(super) struct Adapters {
    pub(super) compute: Arc<dyn Compute>,
    pub(super) storage: Drivers,
    pub(super) library: Option<Arc<Library>>,
}

/// The engine that the configuration names, with its storage drivers, the preferred one first.
pub(super) fn engine(
    data_dir: &Path,
    config: &Config,
    clock: &SharedClock,
) -> Result<Adapters, StartError> {
    match config.engine.default {
        EngineKind::Library => {
            let roots = roots(data_dir, &config.engine.image_roots);
            let library = Library::open_judged(data_dir, clock.clone(), roots.clone());
            let library = Arc::new(library?);
            let reserve = reserve(config);
            Ok(Adapters {
                compute: library.clone(),
                library: Some(library),
                storage: Drivers::new(vec![
                    Arc::new(
                        Reflink::new(reserve)
                            .within(roots.clone())
                            .at_most(config.snapshot.clone_extents),
                    ),
                    Arc::new(
                        Overlay::new(data_dir, reserve, config.snapshot.chain_cap)
                            .within(roots.clone()),
                    ),
                ])
                .within(roots),
            })
        }
        EngineKind::Sim => {
            let sim = Sim::new(data_dir, config.engine.machines, clock.now())
                .map_err(StartError::failed)?;
            Ok(Adapters {
                compute: sim.clone(),
                storage: Drivers::new(vec![sim]),
                library: None,
            })
        }
    }
}

/// The room that stays free.
pub(super) fn reserve(config: &Config) -> Reserve {
    Reserve {
        bytes: config.snapshot.reserve,
        ..Reserve::default()
    }
}

/// The folders that images may lie in, as configured; empty allows all. What the server makes lies in its data
/// directory, or beside an image.
pub(super) fn roots(data_dir: &Path, folders: &[PathBuf]) -> Roots {
    match folders {
        [] => Roots::default(),
        folders => Roots::new(&[folders, &[data_dir.to_owned()]].concat()),
    }
}

/// The audit log that is configured.
pub(super) fn audit(config: &Config, clock: &SharedClock) -> Result<Audit, StartError> {
    match &config.log.audit {
        AuditTo::Off => Ok(Audit::default()),
        AuditTo::Log => Ok(Audit::to_log(clock.clone())),
        AuditTo::File(path) => Audit::to_file(path, clock.clone())
            .map_err(|e| StartError::Config(format!("log.audit: {}: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::SystemClock;
    use crate::engine::{At, Kept};
    use crate::inventory::{Format, SnapshotDisk};

    #[test]
    fn the_folders_for_images_hold_for_what_a_driver_has_kept_that_is_not_configured() {
        let folder = tempfile::tempdir().unwrap();
        let [data, images, outside] =
            ["data", "images", "outside"].map(|name| folder.path().join(name));
        for folder in [&data, &images, &outside] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("a.raw"), [1; 512]).unwrap();
        }
        let mut config = Config::default();
        config.engine.default = EngineKind::Library;
        config.engine.image_roots = vec![images.clone()];
        let Adapters { storage, .. } = engine(&data, &config, &SystemClock::shared()).unwrap();
        let is_read = |folder: &Path| {
            let disk = SnapshotDisk {
                id: "disk0".into(),
                file: folder.join("a.raw"),
                format: Format::Raw,
                size: 512,
                driver: "another".into(),
                sealed: Vec::new(),
                damage: None,
            };
            let kept = Kept {
                at: &At::new("m", "disk0"),
                machine: None,
                disk: &disk,
            };
            storage.reader(&disk).unwrap().sources(kept).is_ok()
        };
        assert_eq!([&images, &outside].map(|f| is_read(f)), [true, false]);
    }
}
