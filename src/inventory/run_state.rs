//! What a machine does at a moment.

/// Whether and how a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// No process runs it.
    Off,
    /// Its processors run.
    Running,
    /// Its processors were stopped, on request.
    Paused,
    /// A process has it, and its processors stand still for another reason.
    Troubled(Trouble),
    /// Something has an image of it open for writing, and there is no monitor that tells more: it is taken as running.
    Held,
}

/// Why the processors of a machine stand still without a request. The names are QEMU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// An error of one of its disks.
    IoError,
    /// An error of the program that runs it.
    InternalError,
    /// The guest has crashed.
    GuestPanicked,
    /// The guest was shut down, and the process is still there.
    ShutDown,
    /// It has not been started yet.
    Prelaunch,
    /// It is being received from another host.
    Inmigrate,
    /// It was sent to another host.
    Postmigrate,
    /// It is about to go to another host.
    FinishMigrate,
    /// Its memory is being saved.
    SaveVm,
    /// Its memory is being restored.
    RestoreVm,
}

impl Trouble {
    /// The name that QEMU has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoError => "io-error",
            Self::InternalError => "internal-error",
            Self::GuestPanicked => "guest-panicked",
            Self::ShutDown => "shutdown",
            Self::Prelaunch => "prelaunch",
            Self::Inmigrate => "inmigrate",
            Self::Postmigrate => "postmigrate",
            Self::FinishMigrate => "finish-migrate",
            Self::SaveVm => "save-vm",
            Self::RestoreVm => "restore-vm",
        }
    }
}
