//! Texts of `engine`.

super::messages! {
    FILE_MISSING = "engine.file-missing", "machine {machine}, disk {disk}: file {file} is not there";
    FILE_FULL = "engine.file-full", "machine {machine}, disk {disk}: no space left to write {file}";
    FILE_DENIED = "engine.file-denied", "machine {machine}, disk {disk}: access to {file} is not permitted ({cause})";
    FILE_FAILED = "engine.file-failed", "machine {machine}, disk {disk}: {file}: {cause}";
    FILE_SILENT = "engine.file-silent", "machine {machine}, disk {disk}: {file} does not answer: the server or process behind it, or the connection to it, hangs; repair or unmount it";
    FILE_SWAPPED = "engine.file-swapped", "machine {machine}, disk {disk}: {file} is not the file that it was: {cause}; nothing was done to it";
    IMAGE_NOT_SHOWN = "engine.image-not-shown", "machine {machine}, disk {disk}: what stands at {file} is not what was shown any more; nothing was recorded; look who may rename there, then run the command again";
    IMAGE_SWAPPED = "engine.image-swapped", "machine {machine}, disk {disk}: {file} is not the image that was imported: {cause}; nothing was done to it; if it is meant, say so: groupshot vm set {machine} --accept-image";
    IMAGE_CLOSED = "engine.image-closed", "machine {machine}, disk {disk}: {file} lies under the image, and user {owner}, whom the image belongs to, could not read it by the modes of the file and of the folders above it: he has named it in the header of his image, and sets would hold what is in it; if it is meant, say so: groupshot vm import --accept-image";
    FOLDER_SWAPPED = "engine.folder-swapped", "machine {machine}, disk {disk}: {folder} is not the folder that {file} lies in: {cause}; nothing was done in it; put the folder back and try again";
    OURS_FULL = "engine.ours-full", "machine {machine}, disk {disk}: no space left for the snapshot of {file}";
    OURS_DENIED = "engine.ours-denied", "machine {machine}, disk {disk}: the folder for the snapshot of {file} cannot be written ({cause})";
    OURS_FAILED = "engine.ours-failed", "machine {machine}, disk {disk}: the snapshot of {file}: {cause}";
    NOT_REGULAR = "engine.not-regular", "machine {machine}, disk {disk}: {file} is not a regular file";
    NOT_STORED = "engine.not-stored", "machine {machine}, disk {disk}: {file} lies on a file system of the kernel (such as /proc or /sys) and is no disk image";
    LOCKED = "engine.locked", "machine {machine}, disk {disk}: {file} is in use by another process";
    LOCKED_HERE = "engine.locked-here", "machine {machine}, disk {disk}: {file} is held by another operation of this server";
    LOCKED_OURS = "engine.locked-ours", "machine {machine}, disk {disk}: {file} is held by another Groupshot server or command";
    LOCK_UNAVAILABLE = "engine.lock-unavailable", "machine {machine}, disk {disk}: the file system of {file} has no locks ({cause})";
    WRITTEN_SINCE = "engine.written-since", "machine {machine}, disk {disk}: {file} was written to after it was captured for the snapshot set, while no server kept it so";
    CHANGED = "engine.changed", "machine {machine}, disk {disk}: {file} changed while the snapshot set was being prepared";
    REVERT_FAILED = "engine.revert-failed", "machine {machine}, disk {disk}: the new content of {file}: {cause}";
    REPLACED = "engine.replaced", "machine {machine}, disk {disk}: {file} was replaced by another file meanwhile";
    REVERT_MOVES = "engine.revert-moves", "machine {machine}, disk {disk}: what the set keeps cannot take the place of {file}: the way of capture does not allow it, or another machine or set needs this file or may need it; another file would become the active one, which only `groupshot vm set {word} --overlay-ok`, or [qemu] overlay_ok = true in {definition}, allows: the machine is then started from {link}, which leads to its active file";
    FOREIGN_FILE = "engine.foreign-file", "machine {machine}, disk {disk}: {file} is in the way and was not made for this snapshot set";
    NO_DRIVER = "engine.no-driver", "machine {machine}, disk {disk}: no storage driver can capture {file} (tried: {drivers})";
    OVERLAY_NOT_OK = "engine.overlay-not-ok", "machine {machine}, disk {disk}: {file} cannot be cloned where it lies, or is in more pieces than clone_extents, and its definition does not allow an overlay to become the active file; `groupshot vm set {word} --overlay-ok`, or [qemu] overlay_ok = true in {definition}, allows it: the machine is then started from {link}, which leads to its active file, and as qcow2 once a set is taken, also if the image is raw";
    CLONE_DENIED = "engine.clone-denied", "machine {machine}, disk {disk}: {file} cannot be cloned where it lies: {cause}; and its definition does not allow an overlay to become the active file; `groupshot vm set {word} --overlay-ok`, or [qemu] overlay_ok = true in {definition}, allows it: the machine is then started from {link}, which leads to its active file, and as qcow2 once a set is taken, also if the image is raw";
    /// A cause.
    FILE_CAUSE = "engine.file-cause", "{file}: {cause}";
    /// A cause.
    MAY_NOT_MAKE = "engine.may-not-make", "files cannot be made in {folder}: {cause}";
    /// A cause.
    MAY_NOT_GIVE = "engine.may-not-give", "it belongs to user {user} and group {group}, and the server, which runs as user {own}, may not give them to another file: {cause}";
    OWNER_DENIED = "engine.owner-denied", "machine {machine}, disk {disk}: {file} cannot be captured: {cause}; run the server as root or as that user, or give the image to its user";
    UNKNOWN_DRIVER = "engine.unknown-driver", "machine {machine}, disk {disk}: storage driver {driver} is not part of this program";
    NOT_PREPARED = "engine.not-prepared", "machine {machine}, disk {disk}: the snapshot of {file} was not prepared";
    NOT_STOPPED = "engine.not-stopped", "machine {machine}, disk {disk}: {file} cannot be captured while the machine runs";
    MAY_NOT_PASS = "engine.may-not-pass", "machine {machine}, disk {disk}: the machine runs as user {user}, who cannot be let through the folder {file} to its new file by an access control list ({cause}): keep the data directory on a file system with such lists, as a directory of the user that the server runs as, or power the machine off";
    CLONE_DAMAGED = "engine.clone-damaged", "machine {machine}, disk {disk}: what was captured of {file} is not a whole disk ({cause}); the machine goes on, take the set again";
    NO_AGENT = "engine.no-agent", "machine {machine}: its definition names no socket of a guest agent";
    ATTACH_FAILED = "engine.attach-failed", "machine {machine}, disk {disk}: its QEMU cannot open {file}: {cause}";
    ATTACHED_OTHER = "engine.attached-other", "machine {machine}, disk {disk}: its QEMU has not opened the file that is {file} here: it sees another one by that name";
    AWAY = "engine.away", "machine {machine}, disk {disk}: {file} is not at its place, and the machine may go on with it under another name; put it back there";
    STILL_USED = "engine.still-used", "machine {machine}, disk {disk}: its QEMU still uses {file}";
    MONITOR_TAKEN = "engine.monitor-taken", "machine {machine}: somebody else is connected to a monitor of its QEMU ({others}) and may manage it; have them disconnect, or write unmanaged_ok = true into section [qemu] of its definition: its disks are captured by clones only then";
    JOB_BEGUN = "engine.job-begun", "machine {machine}: the job {job} has begun to work on its disks";
    EXPORTED = "engine.exported", "machine {machine}: its QEMU exports disks ({exports}), which somebody may write; end that first";
    NO_FLUSH = "engine.no-flush", "machine {machine}: its QEMU has {device} ({file}) open with cache.no-flush=on (cache=unsafe), so that nobody knows what is written; start it with another cache, or write no_flush_ok = true into section [qemu] of its definition";
    NO_MONITOR = "engine.no-monitor", "machine {machine} does not answer on its monitor";
    FROZEN_BEFORE = "engine.frozen-before", "machine {machine}: somebody else has frozen its file systems";
    NOT_HELD = "engine.not-held", "machine {machine}: its file systems did not stay frozen: {cause}";
    AGENT_FAILED = "engine.agent-failed", "machine {machine}: the guest agent at {file} {cause}";
    /// What is wrong with an agent.
    AGENT_NOBODY = "engine.agent-nobody", "is not there: nobody listens at the socket; see that the QEMU of the machine makes it";
    /// What is wrong with an agent.
    AGENT_SOCKET = "engine.agent-socket", "cannot be reached: {cause}";
    /// What is wrong with an agent.
    AGENT_LATE = "engine.agent-late", "does not answer {command}: see that it runs in the guest, that the guest runs, and that no other client has the socket";
    /// What is wrong with an agent.
    AGENT_CLOSED = "engine.agent-closed", "has lost its connection: its QEMU has ended, or was told to close it";
    /// What is wrong with an agent.
    AGENT_FOREIGN = "engine.agent-foreign", "answers {command} with something else than an agent of QEMU; see that this is its socket";
    /// What is wrong with an agent.
    AGENT_OTHER = "engine.agent-other", "process {pid} has made that socket, which is not the one at the monitor";
    AGENT_FLOOD = "engine.agent-flood", "says more than anybody has asked for; see that this is its socket, and what runs in the guest";
    /// What is wrong with an agent.
    AGENT_REFUSED = "engine.agent-refused", "refuses {command}: {cause}";
    NOT_CUT = "engine.not-cut", "machine {machine}, disk {disk}: the snapshot of {file} was not captured";
    DATA_DIRECTORY = "engine.data-directory", "the data directory";
    SPACE_LOW = "engine.space-low", "machine {machine}, disk {disk}: the file system of {file} has {free:size} free, {needed:size} must stay free";
    SPACE_UNKNOWN = "engine.space-unknown", "machine {machine}, disk {disk}: the free space of the file system of {file} cannot be read ({cause})";

    NOT_QCOW2 = "engine.not-qcow2", "machine {machine}, disk {disk}: {file} is not a qcow2 image";
    BAD_HEADER = "engine.bad-header", "machine {machine}, disk {disk}: {file} has a damaged qcow2 header";
    BAD_VERSION = "engine.bad-version", "machine {machine}, disk {disk}: {file} is a qcow2 image of a version other than 2 and 3";
    ENCRYPTED = "engine.encrypted", "machine {machine}, disk {disk}: {file} is encrypted (LUKS or AES), which is not supported";
    EXTERNAL_DATA = "engine.external-data", "machine {machine}, disk {disk}: {file} keeps its data in an external data file, which is not supported";
    INTERNAL_SNAPSHOTS = "engine.internal-snapshots", "machine {machine}, disk {disk}: {file} holds internal snapshots; remove them first (qemu-img snapshot -d)";
    DIRTY = "engine.dirty", "machine {machine}, disk {disk}: {file} was not closed cleanly (dirty bit); repair it first (qemu-img check -r all)";
    CORRUPT = "engine.corrupt", "machine {machine}, disk {disk}: {file} is marked corrupt; repair it first (qemu-img check -r all)";
    UNKNOWN_FEATURE = "engine.unknown-feature", "machine {machine}, disk {disk}: {file} uses a qcow2 feature that this version does not know";
    BITMAP_IN_USE = "engine.bitmap-in-use", "machine {machine}, disk {disk}: {file} holds a dirty bitmap, {bitmap}, that is marked in use: whoever wrote it last did not close the image, and the bitmap is of no use any more; remove it first (qemu-img bitmap --remove {file} {bitmap})";
    NOT_WHOLE = "engine.not-whole", "machine {machine}, disk {disk}: {file} cannot be read to its end ({cause}); put back the whole file";
    NOT_SILENT = "engine.not-silent", "machine {machine}: {target} is neither one of its disks nor an image under one whose header names a backing file without its format";
    SHRUNK = "engine.shrunk", "machine {machine}, disk {disk}: {file} has {size:size} and had {was:size} when it was recorded: it was cut off, or not copied whole; put back the whole file, or say that it is so on purpose (groupshot vm set {machine} --accept-size {disk})";
    DISK_TOO_LARGE = "engine.disk-too-large", "machine {machine}, disk {disk}: the disk of {file} has {size:size}; an image that this program makes holds at most {limit:size}";
    BACKING_NAME_LONG = "engine.backing-name-long", "machine {machine}, disk {disk}: the path {file} has {length} bytes, and qcow2 has room for {limit} in the name of a backing file: no overlay can be made over it; move the image to a shorter path (groupshot relocate)";
    MERGE_BITMAPS = "engine.merge-bitmaps", "machine {machine}, disk {disk}: {file} holds dirty bitmaps, which a merge would make wrong; remove them first (qemu-img bitmap --remove)";
    MERGE_NOT_CHILD = "engine.merge-not-child", "machine {machine}, disk {disk}: {file} does not name {parent} as its backing file";
    MERGE_SPACE = "engine.merge-space", "machine {machine}, disk {disk}: merging into {file} may need {needed:size}, {free:size} are free";
    HEADER_FULL = "engine.header-full", "machine {machine}, disk {disk}: the header of {file} has no room for the absolute path of its backing file";

    BACKING_MISSING = "engine.backing-missing", "machine {machine}, disk {disk}: backing file {file} (named by {by}) is not there";
    BACKING_PROTOCOL = "engine.backing-protocol", "machine {machine}, disk {disk}: {file} names its backing file by json: or a protocol ({backing}); only plain paths are supported";
    BACKING_FORMAT = "engine.backing-format", "machine {machine}, disk {disk}: {file} names a backing file of format {format}; only qcow2 and raw are supported";
    BACKING_FORMAT_UNKNOWN = "engine.backing-format-unknown", "machine {machine}, disk {disk}: {file} does not record the format of its backing file {backing}, and neither its suffix nor its beginning tells it for sure; say it (groupshot vm set {machine} --backing-format {file}=FORMAT; before an import qemu-img rebase -u -F FORMAT -b {backing} {file})";
    CHAIN_LOOP = "engine.chain-loop", "machine {machine}, disk {disk}: the backing chain comes back to {file}";
    CHAIN_CAP = "engine.chain-cap", "machine {machine}, disk {disk}: a snapshot would make its chain of files deeper than {limit} (chain_cap in the configuration)";
    CHAIN_DEEP = "engine.chain-deep", "machine {machine}, disk {disk}: the backing chain of {file} is deeper than {limit} files";
    LIES_OUTSIDE = "engine.lies-outside", "it lies outside the configured image folders ({roots})";
    OUTSIDE_ROOTS = "engine.outside-roots", "machine {machine}, disk {disk}: {file} lies outside the configured image folders ({roots})";

    NAME_EMPTY = "engine.name-empty", "a machine needs a name";
    NAME_BLANK = "engine.name-blank", "the name of a machine has only characters that nobody sees";
    NAME_TOO_LONG = "engine.name-too-long", "the name of a machine must have at most {limit} characters";
    NO_DISKS = "engine.no-disks", "machine {machine} needs at least one disk";
    ATTRIBUTE_LOST = "engine.attribute-lost", "extended attribute {name} ({cause})";
    PROJECT_LOST = "engine.project-lost", "project id {id} ({cause})";
    EXTENT_SIZE_LOST = "engine.extent-size-lost", "extent size hint of {bytes} bytes ({cause})";
    COW_EXTENT_SIZE_LOST = "engine.cow-extent-size-lost", "copy-on-write extent size hint of {bytes} bytes ({cause})";
    NO_DEFRAG_LOST = "engine.no-defrag-lost", "flag that keeps it from being defragmented ({cause})";
    MODE_LOST = "engine.mode-lost", "mode {mode}";
    FLAG_SECURE = "engine.flag-secure", "flag s (secure deletion)";
    FLAG_UNDELETABLE = "engine.flag-undeletable", "flag u (undeletable)";
    FLAG_COMPRESSED = "engine.flag-compressed", "flag c (compressed)";
    FLAG_SYNCHRONOUS = "engine.flag-synchronous", "flag S (synchronous)";
    FLAG_NO_DUMP = "engine.flag-no-dump", "flag d (no dump)";
    FLAG_NO_ATIME = "engine.flag-no-atime", "flag A (no atime)";
    FLAG_NOT_COMPRESSED = "engine.flag-not-compressed", "flag m (not compressed)";
    FLAG_DATA_JOURNAL = "engine.flag-data-journal", "flag j (data journal)";
    FLAG_NO_TAIL = "engine.flag-no-tail", "flag t (no tail-merging)";
    FLAG_NO_COW = "engine.flag-no-cow", "flag C (no copy-on-write)";
    FLAG_DAX = "engine.flag-dax", "flag x (direct access)";
    DEFINITION_UNWRITTEN = "engine.definition-unwritten", "it cannot be written as TOML: {cause}";
    NAMES_NO_DISKS = "engine.names-no-disks", "it names no disks";
    NAMES_NO_DISK = "engine.names-no-disk", "it has no disk {disk}";
    PATH_NOT_UTF8 = "engine.path-not-utf8", "the path is not UTF-8";
    NO_SECTION = "engine.no-section", "{key} is no section";
    DISK_ID = "engine.disk-id", "machine {machine}: disk id {disk} must be 1 to 64 letters, digits, -, _ or . and not begin with .";
    DISK_TWICE = "engine.disk-twice", "machine {machine}: disk id {disk} stands twice";
    FORMAT_NEEDED = "engine.format-needed", "machine {machine}, disk {disk}: the name {file} does not tell the format; say qcow2 or raw (raw is never guessed)";
    FORMAT_SUFFIX = "engine.format-suffix", "machine {machine}, disk {disk}: {file} is named as {suffix} but was said to be {format}";
    FORMAT_MAGIC = "engine.format-magic", "machine {machine}, disk {disk}: {file} was said to be raw but begins as a qcow2 image";
    PATH_FORM = "engine.path-form", "machine {machine}, disk {disk}: path {file} must be absolute UTF-8 text";
    PATH_XML = "engine.path-xml", "machine {machine}, disk {disk}: the path {file} has the character {character}, which XML cannot hold, and no client could be told it: rename the file";
    NAME_XML = "engine.name-xml", "the name of a machine has the character {character}, which XML cannot hold";
    IMAGES_UNKNOWN = "engine.images-unknown", "machine {machine} cannot be used as it is, and what is recorded of its images cannot be read ({file}: {cause}): nobody knows whether these are its own; put that file back from a copy, or have `groupshot doctor --fix` make it anew, then import again";
    IMAGE_USED = "engine.image-used", "machine {machine}, disk {disk}: {file} already belongs to machine {other}";
    IMAGE_KEPT = "engine.image-kept", "machine {machine}, disk {disk}: {file} is a file that snapshot sets keep";
    MACHINE_UNKNOWN = "engine.machine-unknown", "there is no machine {machine}";
    ACTIVE_UNREAD = "engine.active-unread", "machine {machine} stays in the library: {file} cannot be read ({cause}), so nobody knows where its newest content is; `groupshot doctor --fix` makes that file anew, or says why not; then remove the machine";
    ACTIVE_STRANDED = "engine.active-stranded", "machine {machine}, disk {disk}: its newest content is in {file} and not in the image, and would be left to nobody: where the image can be written, `groupshot doctor --fix` merges it into that; else keep a copy of it (`qemu-img convert`) and move it away; then remove the machine";
    MACHINE_REFERRED = "engine.machine-referred", "machine {machine} is needed by {holders}: first delete such snapshot sets (`groupshot snapshot delete`), and take it out of such collections (`groupshot collection remove`)";

    DIRECTORY_FAILED = "engine.directory-failed", "machine directory {file}: {cause}";
    DEFINITION_CHANGED = "engine.definition-changed", "{file} was written by somebody else at the same moment; nothing was changed: try again";
    DEFINITION_READ = "engine.definition-read", "{file}: {cause}";
    TOPS_MISSING = "engine.tops-missing", "{file} is not there, and nobody knows the active files of the machine without it: put it back, or have `groupshot doctor --fix` make it anew";
    PATH_IDLE = "engine.path-idle", "machine {machine}, disk {disk}: the path {path} in {file} has no effect: the machine runs on {active}, which does not lie on it, and no snapshot set is taken until that is put right; write the old path again, move images with `groupshot relocate`, or import {path} as a machine of its own";
    FORMAT_IDLE = "engine.format-idle", "machine {machine}, disk {disk}: format = {format} of {path} in {file} has no effect: the machine runs on {active}, recorded with another format, and no snapshot set is taken until that is put right; write the old format again, or import a converted image as a machine of its own";
    DEFINITION_QEMU = "engine.definition-qemu", "{file}: key {key} of section [qemu] is not known to this version";
    QEMU_MONITORS = "engine.qemu-monitors", "section [qemu]: qmp names {count} sockets; a machine has at most {limit}";
    SOCKET_FORM = "engine.socket-form", "section [qemu]: the path of socket {file} must be absolute UTF-8 text";
    SOCKET_TWICE = "engine.socket-twice", "section [qemu] names the socket {file} twice";
    AGENT_ALONE = "engine.agent-alone", "section [qemu]: agent needs qmp, by which it is known whether the machine runs";
    UNMANAGED_OVERLAY = "engine.unmanaged-overlay", "section [qemu]: overlay_ok and unmanaged_ok exclude each other: whoever manages the machine would start it from the stale base of an overlay";
    SOCKET_MANAGED = "engine.socket-managed", "machine {machine}: {file} is a socket of {manager}, which needs it for itself; give the QEMU of the machine a QMP monitor of its own for Groupshot";
    SOCKET_USED = "engine.socket-used", "machine {machine}: {file} is the socket of machine {other}";
    MONITOR_FAILED = "engine.monitor-failed", "machine {machine}: monitor {file}: {cause}";
    MONITOR_APART = "engine.monitor-apart", "machine {machine}: {file} is no socket of the QEMU that answers at the first monitor";
    MONITOR_SHARED = "engine.monitor-shared", "machine {machine}: somebody else is connected to a monitor of its QEMU ({others}) and may manage it; if it is to be taken in all the same, say --unmanaged-ok: its disks are captured by clones only then";
    MONITOR_JOBS = "engine.monitor-jobs", "machine {machine}: jobs are at work on the disks of its QEMU ({jobs}); take it in once they have ended";
    DISK_STRANGE = "engine.disk-strange", "machine {machine}: its QEMU also writes {device} ({file}), which is no disk of the machine: all that it writes have to be named";
    DISK_UNTOLD = "engine.disk-untold", "machine {machine}: which file the disk {device} of its QEMU is ({file}) cannot be told: {cause}";
    DISK_NOT_OPEN = "engine.disk-not-open", "machine {machine}, disk {disk}: the QEMU behind the monitor does not write {file} as a disk; it writes {others}";
    DISK_FORMAT = "engine.disk-format", "machine {machine}, disk {disk}: QEMU has {file} open as {found}, and it was said to be {format}";
    DISK_SIZE = "engine.disk-size", "machine {machine}, disk {disk}: {file} holds a disk of {size} bytes, and QEMU shows its guest one of {found}";
    FOUND_BY_NAME = "engine.found-by-name", "machine {machine}: this process may not see which files its QEMU has open (that takes CAP_SYS_PTRACE, or the same user); the images were compared by their names alone";
    RUNS_UNASKED = "engine.runs-unasked", "machine {machine}, disk {disk}: something has {file} open for writing; power the machine off, or name the QMP monitors of its QEMU (--qmp)";
    RUNS_ELSEWHERE = "engine.runs-elsewhere", "machine {machine}, disk {disk}: something has {file} open for writing, and nobody listens at {socket}; start the machine with that monitor, or name the socket that it has";
    DEFINITION_FORMAT = "engine.definition-format", "{file}: format = {format}; this version reads format = 1";
    DEFINITION_ID = "engine.definition-id", "{file}: id {id} is not the GUID of its folder";
    DEFINITION_DISK = "engine.definition-disk", "{file}: disk {disk}: {cause}";
    TOPS_DAMAGED = "engine.tops-damaged", "{file} {cause}, and nobody knows the active files of the machine without it: put it back from a copy, or have `groupshot doctor --fix` make it anew";
    TOPS_DOUBTFUL = "engine.tops-doubtful", "{file} is an older copy or that of another machine: {cause}; nobody knows the active files of the machine by it: put the right one back, or have `groupshot doctor --fix` make it anew";
    LINK_UNMADE = "engine.link-unmade", "no machine can be started by {link}, which cannot be made: {cause}";
    TOPS_WRITE = "engine.tops-write", "machine {machine}: its active files cannot be recorded: {cause}";

    ORDERED = "engine.ordered", "machine {machine}, disk {disk}: the simulation was ordered to fail at {step}";
}
