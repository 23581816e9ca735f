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
    /// The guest sleeps.
    Suspended,
    /// Its watchdog has bitten.
    Watchdog,
    /// It waits for a debugger.
    Debug,
    /// A state of a version that this program does not know.
    Other,
}

impl RunState {
    /// The state that QEMU has this name for.
    #[must_use]
    pub fn of_status(name: &str) -> Self {
        match name {
            "running" => Self::Running,
            "paused" => Self::Paused,
            _ => {
                let named = Trouble::ALL.iter().find(|trouble| trouble.name() == name);
                Self::Troubled(named.copied().unwrap_or(Trouble::Other))
            }
        }
    }

    /// One word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Troubled(_) => "troubled",
            Self::Held => "held",
        }
    }

    /// The name of the trouble that it is in.
    #[must_use]
    pub fn trouble(self) -> Option<&'static str> {
        match self {
            Self::Troubled(trouble) => Some(trouble.name()),
            _ => None,
        }
    }
}

impl Trouble {
    const ALL: &[Self] = &[
        Self::IoError,
        Self::InternalError,
        Self::GuestPanicked,
        Self::ShutDown,
        Self::Prelaunch,
        Self::Inmigrate,
        Self::Postmigrate,
        Self::FinishMigrate,
        Self::SaveVm,
        Self::RestoreVm,
        Self::Suspended,
        Self::Watchdog,
        Self::Debug,
    ];

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
            Self::Suspended => "suspended",
            Self::Watchdog => "watchdog",
            Self::Debug => "debug",
            Self::Other => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_by_the_name_that_qemu_has_for_it() {
        for trouble in Trouble::ALL {
            let state = RunState::of_status(trouble.name());
            assert_eq!(state, RunState::Troubled(*trouble));
            assert_eq!(
                (state.word(), state.trouble()),
                ("troubled", Some(trouble.name()))
            );
        }
        assert_eq!(RunState::of_status("running"), RunState::Running);
        assert_eq!(RunState::of_status("paused"), RunState::Paused);
        assert_eq!(
            RunState::of_status("colo"),
            RunState::Troubled(Trouble::Other)
        );
    }
}
