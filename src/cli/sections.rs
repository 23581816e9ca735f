//! What a manual page says besides what clap knows: EXIT STATUS, ENVIRONMENT, FILES and EXAMPLES. One table has them for
//! every command; `docs/reference/commands.md` shows the same exit codes.

use clap::Command;
use clap_mangen::roff::{Roff, bold, roman};

use super::failure::{DONE, Exit};

use Exit::{Authentication, Busy, Config, Failed, Job, Unreachable, Usage};

/// What is said of one command.
struct Entry {
    /// As it is typed behind `groupshot`.
    command: &'static str,
    /// How it can end besides well.
    exits: &'static [Exit],
    /// What an exit code means with this command besides.
    also: &'static [(Exit, &'static str)],
    files: &'static [File],
    /// Command lines; behind the # stands what each does.
    examples: &'static [&'static str],
}

/// What most commands need.
const fn entry(
    command: &'static str,
    exits: &'static [Exit],
    files: &'static [File],
    examples: &'static [&'static str],
) -> Entry {
    let also = &[];
    Entry {
        command,
        exits,
        also,
        files,
        examples,
    }
}

impl Entry {
    const fn also(self, also: &'static [(Exit, &'static str)]) -> Self {
        Self { also, ..self }
    }
}

/// A path, with what is there.
type File = (&'static str, &'static str);

/// Commands that touch neither a data directory nor a server.
const ALONE: &[Exit] = &[Failed, Usage];
/// Commands that act on a data directory.
const LOCAL: &[Exit] = &[Failed, Usage, Config, Busy];
/// Commands that speak to a server.
const REMOTE: &[Exit] = &[Failed, Usage, Authentication, Unreachable];
/// Those of them that wait for a job.
const FOLLOWED: &[Exit] = &[Failed, Usage, Authentication, Job, Unreachable];

const UNASKED: (Exit, &str) = (Usage, "without --yes there is no terminal on which to ask.");
const UNANSWERED: (Exit, &str) = (Busy, "the running server does not answer.");

const DATA: File = (
    "/var/lib/groupshot",
    "The data directory of root. Other users have $XDG_STATE_HOME/groupshot or ~/.local/state/groupshot.",
);
const CONFIGURATION: File = (
    "groupshot.toml",
    "The configuration file, by whatever name. Without --config none is read.",
);
const CHECKED: File = (
    "groupshot.toml",
    "The file that is checked if none is named.",
);
const CERTIFICATE: File = (
    "/var/lib/groupshot/tls/certificate.pem",
    "The certificate that a server of this host has made for itself; --ca takes it.",
);
const DEFINITION: File = (
    "machines/<id>/vm.toml",
    "The definition of a machine, in the data directory.",
);
const LINKS: File = (
    "machines/by-name/<name>/<disk>",
    "Link to the active file of a disk, in the data directory.",
);
const USERS: File = (
    "users.json",
    "Users, roles and hashes of passwords, in the data directory.",
);
const SOCKET: File = (
    "groupshot.sock",
    "Where a running server is asked, in the data directory.",
);
const JOURNALS: File = (
    "journal/<job>.log",
    "One for each operation in flight, in the data directory.",
);
const RECORDS: File = (
    "sets/<set>/set.json",
    "The record of a snapshot set, in the data directory.",
);
const ORPHANS: File = (
    "orphans/",
    "What was moved out of the way, in the data directory.",
);
const RELOCATION: File = (
    "relocate.json",
    "A relocation that was begun and not finished, in the data directory.",
);
const DEMONSTRATION: File = (
    "./groupshot-demo",
    "The data directory of the demonstration.",
);

const LOCAL_FILES: &[File] = &[DATA];
const REMOTE_FILES: &[File] = &[CERTIFICATE];

/// The commands, in the order of the program's help.
const TABLE: &[Entry] = &[
    entry(
        "serve",
        LOCAL,
        &[CONFIGURATION, DATA, CERTIFICATE],
        &[
            "groupshot serve # Listens on 127.0.0.1:5985, for clients on this host.",
            "groupshot serve --config groupshot.toml --tls-listen 127.0.0.1:5986 # Listens for HTTPS as well.",
        ],
    )
    .also(&[(
        Failed,
        "a second signal ended it at once, or its database can no longer be written.",
    )]),
    entry(
        "quickstart",
        &[Failed, Usage, Config, Busy, Job, Unreachable],
        &[DEMONSTRATION],
        &["groupshot quickstart --exit # Shows the main job and ends."],
    )
    .also(&[(Failed, "a byte of a disk differs.")]),
    entry(
        "collection create",
        REMOTE,
        REMOTE_FILES,
        &[
            "groupshot collection create nightly web-1 db-1 # Makes a collection of two machines.",
            "groupshot collection create --groups all nightly # Makes a collection of collections.",
        ],
    ),
    entry(
        "collection add",
        REMOTE,
        REMOTE_FILES,
        &["groupshot collection add nightly spare # Adds a machine."],
    ),
    entry(
        "collection remove",
        REMOTE,
        REMOTE_FILES,
        &["groupshot collection remove nightly spare # Takes a machine out."],
    ),
    entry(
        "collection list",
        REMOTE,
        REMOTE_FILES,
        &["groupshot collection list --url https://localhost:5986/wsman --ca server.pem # Asks over HTTPS."],
    ),
    entry(
        "collection delete",
        REMOTE,
        REMOTE_FILES,
        &["groupshot collection delete nightly # Machines and sets stay."],
    ),
    entry(
        "snapshot create",
        FOLLOWED,
        REMOTE_FILES,
        &[
            "groupshot snapshot create nightly --name before-update # Takes a set and waits for it.",
            "groupshot snapshot create nightly --check # Tells what would become of each disk; takes nothing.",
        ],
    )
    .also(&[(Failed, "with --check, the set would not be taken.")]),
    entry(
        "snapshot apply",
        FOLLOWED,
        REMOTE_FILES,
        &[
            "groupshot snapshot apply before-update # Puts every machine of the set back; asks first.",
            "groupshot snapshot apply before-update --yes --member web-1 # Puts one machine back; does not ask.",
        ],
    )
    .also(&[UNASKED]),
    entry(
        "snapshot list",
        REMOTE,
        REMOTE_FILES,
        &["groupshot snapshot list --json # Prints one JSON object."],
    ),
    entry(
        "snapshot show",
        REMOTE,
        REMOTE_FILES,
        &["groupshot snapshot show before-update # Shows members, disks and files."],
    ),
    entry(
        "snapshot export",
        FOLLOWED,
        REMOTE_FILES,
        &["groupshot snapshot export before-update /srv/exports # Writes the set below a folder that the server's [export] roots name."],
    ),
    entry(
        "snapshot delete",
        FOLLOWED,
        REMOTE_FILES,
        &["groupshot snapshot delete before-update --yes # Deletes the set; does not ask."],
    )
    .also(&[UNASKED]),
    entry(
        "job list",
        REMOTE,
        REMOTE_FILES,
        &["groupshot job list # Shows the jobs that the server still knows."],
    ),
    entry(
        "job show",
        REMOTE,
        REMOTE_FILES,
        &["groupshot job show 8B5879E2 # The beginning of the id will do."],
    ),
    entry(
        "job cancel",
        REMOTE,
        REMOTE_FILES,
        &["groupshot job cancel 8B5879E2 # Asks the server to undo it, and waits."],
    )
    .also(&[(
        Failed,
        "the job has ended or can no longer be stopped, or it has not moved for 15 s.",
    )]),
    entry(
        "vm import",
        LOCAL,
        &[DATA, DEFINITION],
        &[
            "groupshot vm import db-1 images/db-1.raw images/db-1-data.raw # Takes a machine with two disks into the library.",
            "groupshot vm import web-1 images/web-1.qcow2 --qmp /run/vm/web-1.qmp --qmp /run/vm/web-1.qmp2 # Takes in a machine that runs, or that is off now.",
            "groupshot vm import --definition vm.toml # Makes a new machine of the disks of an export.",
        ],
    ),
    entry(
        "vm list",
        LOCAL,
        LOCAL_FILES,
        &["groupshot vm list # Shows the machines of the library."],
    ),
    entry(
        "vm show",
        LOCAL,
        &[DATA, DEFINITION],
        &["groupshot vm show web-1 # Shows its disks and their active files."],
    ),
    entry(
        "vm path",
        LOCAL,
        &[DATA, LINKS],
        &["groupshot vm path web-1 # Prints the paths to start it by."],
    ),
    entry(
        "vm set",
        LOCAL,
        &[DATA, DEFINITION],
        &["groupshot vm set web-1 --overlay-ok # Allows overlays; says what follows and asks."],
    )
    .also(&[UNASKED]),
    entry(
        "vm remove",
        LOCAL,
        &[DATA, SOCKET],
        &["groupshot vm remove web-1 # Takes it out of the library; its images stay."],
    )
    .also(&[UNANSWERED]),
    entry(
        "user add",
        LOCAL,
        &[DATA, USERS],
        &["groupshot user add backup --role operator # Asks for the password."],
    ),
    entry(
        "user list",
        LOCAL,
        &[DATA, USERS],
        &["groupshot user list # Shows users and roles."],
    ),
    entry(
        "user accept",
        LOCAL,
        &[DATA, USERS],
        &["groupshot user accept # Takes users.json as it was edited."],
    ),
    entry(
        "user remove",
        LOCAL,
        &[DATA, USERS],
        &["groupshot user remove backup # Removes a user."],
    ),
    entry(
        "user unlock",
        LOCAL,
        &[DATA, SOCKET],
        &[
            "groupshot user unlock backup # Ends the lock-outs of a user.",
            "groupshot user unlock --address 192.0.2.9 # Ends those of an address.",
        ],
    )
    .also(&[UNANSWERED]),
    entry(
        "user password",
        LOCAL,
        &[DATA, USERS],
        &["groupshot user password backup # Asks for the new password."],
    ),
    entry(
        "relocate",
        LOCAL,
        &[DATA, RELOCATION],
        &[
            "groupshot relocate --data-dir /srv/groupshot --from /var/lib/groupshot # Tells what would be written after a move.",
            "groupshot relocate --data-dir /srv/groupshot --from /var/lib/groupshot --apply # Writes it.",
            "groupshot relocate --here --apply # Binds a data directory that was restored from a backup.",
        ],
    )
    .also(&[
        (
            Failed,
            "something is in the way, or a file is not confirmed.",
        ),
        (Config, "paths lead into another data directory."),
    ]),
    entry(
        "rescue",
        LOCAL,
        &[DATA, JOURNALS],
        &["groupshot rescue # Finishes or undoes what a dead server left."],
    )
    .also(&[(Failed, "an operation is left, a journal is damaged, or it is not known what a machine does now that may have been stopped.")]),
    entry(
        "schema check",
        ALONE,
        &[],
        &["groupshot schema check classes.mof # Shows every error with its place."],
    )
    .also(&[(Failed, "a file has an error.")]),
    entry(
        "schema show",
        ALONE,
        &[],
        &["groupshot schema show Msvm_SnapshotCollection # Prints a built-in class."],
    ),
    entry(
        "config check",
        LOCAL,
        &[CHECKED, DATA],
        &["groupshot config check groupshot.toml # Tells every mistake with its line."],
    ),
    entry(
        "doctor",
        LOCAL,
        &[CONFIGURATION, DATA, SOCKET, RECORDS, ORPHANS],
        &[
            "groupshot doctor # Tells what is wrong.",
            "groupshot doctor --fix # Repairs it, asking before each repair.",
            "groupshot doctor --rebuild # Makes again what the database has lost.",
        ],
    )
    .also(&[
        (Failed, "a finding is an error or a warning."),
        UNASKED,
        UNANSWERED,
    ]),
    entry(
        "history",
        LOCAL,
        &[DATA, SOCKET],
        &["groupshot history --since 7d --failed # What went wrong in the last seven days."],
    )
    .also(&[UNANSWERED]),
    entry(
        "completions",
        ALONE,
        &[],
        &["groupshot completions bash # Prints the script for bash."],
    ),
    entry(
        "man",
        &[Failed, Usage, Busy],
        &[],
        &["groupshot man ./man # Writes the manual pages into ./man."],
    ),
];

/// Variables that the program reads. clap knows of those that stand for an option, and who has them.
const VARIABLES: &[(&str, &str)] = &[
    (
        "GROUPSHOT_DATA_DIR",
        "The data directory, in place of --data-dir.",
    ),
    (
        "XDG_STATE_HOME",
        "Holds the data directory `groupshot` of users other than root.",
    ),
    (
        "HOME",
        "Where XDG_STATE_HOME is not set, .local/state/groupshot below it.",
    ),
    ("GROUPSHOT_URL", "The server, in place of --url."),
    ("GROUPSHOT_USER", "The user, in place of --user."),
    ("GROUPSHOT_PASSWORD", "The password of that user."),
    (
        "GROUPSHOT_CA",
        "Whom to trust over https, in place of --ca.",
    ),
    (
        "GROUPSHOT_CERT",
        "The certificate to log on with, in place of --cert.",
    ),
    ("GROUPSHOT_KEY", "Its key, in place of --key."),
    ("GROUPSHOT_NEW_PASSWORD", "The password that the user gets."),
    (
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
        "Sockets that systemd hands over.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "Where systemd is told that the server is ready and lives.",
    ),
    (
        "NO_COLOR",
        "If it is set, nothing is coloured without --color.",
    ),
    (
        "TERM",
        "If it is `dumb`, nothing is coloured without --color.",
    ),
];

/// The sections of a command's page; a command with others below it has what those have.
pub(super) fn of(command: &Command) -> Roff {
    let name = command.get_bin_name().unwrap_or_default();
    let name = name.trim_start_matches("groupshot").trim_start();
    let is_below = |e: &&Entry| {
        let rest = e.command.strip_prefix(name);
        rest.is_some_and(|rest| name.is_empty() || rest.is_empty() || rest.starts_with(' '))
    };
    let entries: Vec<&Entry> = TABLE.iter().filter(is_below).collect();
    let mut page = Roff::new();
    exit_status(&mut page, &entries);
    page.control("SH", ["ENVIRONMENT"]);
    for (variable, text) in VARIABLES.iter().filter(|(v, _)| reads(command, name, v)) {
        item(&mut page, variable, text);
    }
    files(&mut page, &entries);
    page.control("SH", ["EXAMPLES"]);
    // A group shows one of each.
    let most = if entries.len() > 1 { 1 } else { usize::MAX };
    for example in entries.iter().flat_map(|e| e.examples.iter().take(most)) {
        let (line, text) = example.split_once(" # ").unwrap_or((example, ""));
        item(&mut page, line, text);
    }
    page
}

fn exit_status(page: &mut Roff, entries: &[&Entry]) {
    page.control("SH", ["EXIT STATUS"]);
    item(page, "0", DONE);
    for exit in Exit::ALL {
        if !entries.iter().any(|e| e.exits.contains(&exit)) {
            continue;
        }
        item(page, &exit.code().to_string(), exit.meaning());
        if let [only] = entries {
            for (_, text) in only.also.iter().filter(|(of, _)| *of == exit) {
                page.text([roman(format!("Also here: {text}"))]);
            }
        }
    }
}

fn files(page: &mut Roff, entries: &[&Entry]) {
    page.control("SH", ["FILES"]);
    let mut told: Vec<File> = Vec::new();
    for file in entries.iter().flat_map(|e| e.files) {
        if !told.contains(file) {
            told.push(*file);
        }
    }
    for (path, text) in &told {
        item(page, path, text);
    }
    if told.is_empty() {
        page.text([roman("None but those that are named.")]);
    }
}

/// Whether the command, or one below it, reads the variable.
fn reads(command: &Command, name: &str, variable: &str) -> bool {
    let stands_for_option = |known: &str| {
        let mut variables = command.get_arguments().filter_map(|a| a.get_env());
        variables.any(|v| v == known)
    };
    let here = match variable {
        "NO_COLOR" | "TERM" => true,
        "XDG_STATE_HOME" | "HOME" => stands_for_option("GROUPSHOT_DATA_DIR"),
        "GROUPSHOT_PASSWORD" => stands_for_option("GROUPSHOT_URL"),
        "GROUPSHOT_NEW_PASSWORD" => matches!(name, "user add" | "user password"),
        _ if !variable.starts_with("GROUPSHOT_") => name == "serve",
        other => stands_for_option(other),
    };
    here || command.get_subcommands().any(|below| {
        let name = format!("{name} {}", below.get_name());
        reads(below, name.trim_start(), variable)
    })
}

fn item(page: &mut Roff, what: &str, text: &str) {
    page.control("TP", []);
    page.text([bold(what)]);
    page.text([roman(text)]);
}
