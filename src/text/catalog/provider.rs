//! Texts of `provider`.

super::messages! {
    PAUSED = "provider.paused", "the turn of this evaluation is over";
    NOT_A_SNAPSHOT_SET = "provider.not-a-snapshot-set", "parameter {parameter}: must refer to a Msvm_SnapshotCollection";
    METHOD_NOT_AVAILABLE = "provider.method-not-available", "method {method} cannot be called on this object";
    INSTANCE_NOT_BUILT = "provider.instance-not-built", "the object cannot be shown: {reason}";
    NOT_FOUND = "provider.not-found", "there is no {class} with {keys}";
    NO_INSTANCE_OF = "provider.no-instance-of", "there is no instance of {class}";
    KEYS_DO_NOT_FIT = "provider.keys-do-not-fit", "the selectors are not the keys of {class} or of a class derived from it";
    KEYS_ARE_NEEDED = "provider.keys-are-needed", "no selector tells which {class} is meant; its keys are needed";
    KEYS_FIT_SEVERAL = "provider.keys-fit-several", "several instances of {class} have {keys}; one is named by further keys: {missing}";
    NO_ASSOCIATION = "provider.no-association", "{class} is no association";
    ROLE_TOO_LOW = "provider.role-too-low", "user {user} has the role {role}; {method} needs the role {needed}";
    NOT_OWN_JOB = "provider.not-own-job", "job {job} belongs to another user; only an administrator may end it, and {user} is none";

    STATUS_OK = "provider.status-ok", "Operating normally";
    STATUS_DEGRADED = "provider.status-degraded", "A disk image is missing or cannot be used";
    STATUS_TROUBLED = "provider.status-troubled", "The machine stands still: {trouble}";
    STATUS_CREATING_SNAPSHOT = "provider.status-creating-snapshot", "Creating snapshot";
    STATUS_APPLYING_SNAPSHOT = "provider.status-applying-snapshot", "Applying snapshot";
    STATUS_DELETING_SNAPSHOT = "provider.status-deleting-snapshot", "Deleting snapshot";
    TITLE_SNAPSHOT_SERVICE = "provider.title.snapshot-service", "Collection Snapshot Service";
    TITLE_MANAGEMENT_SERVICE = "provider.title.management-service", "Collection Management Service";
    TITLE_VM_SNAPSHOT_SERVICE = "provider.title.vm-snapshot-service", "Hyper-V Virtual System Snapshot Service";
    ABOUT_VM_SNAPSHOT_SERVICE = "provider.about.vm-snapshot-service", "Service for creating, destroying, and applying virtual machine snapshots";

    NOTE_APPLICATION_CONSISTENT = "provider.note.application-consistent", "consistency: application";
    NOTE_CRASH_CONSISTENT = "provider.note.crash-consistent", "consistency: crash";
    NOTE_DISK_LEFT_OUT = "provider.note.disk-left-out", "not captured: {disk}";
    NOTE_DAMAGED = "provider.note.damaged", "damaged: {disk}: {file}";
    NOTE_LIES_ON = "provider.note.lies-on", "lies on: {disk}: {file}";
    SET_LEFT_OUT = "provider.set.left-out", "{description}; disks left out: {count} ({disks})";
    GROUP_GONE = "provider.group.gone", "members that no longer exist: {ids}";
    SET_DAMAGED = "provider.set.damaged", "{description}; damaged members: {count}";
    SET_OF_STANDARD_SNAPSHOTS = "provider.set.standard", "{members} standard snapshots, first to last capture {micros} microseconds";
    SET_OF_RECOVERY_SNAPSHOTS = "provider.set.recovery", "{members} recovery snapshots, first to last capture {micros} microseconds";
    SET_NOT_YET_MADE = "provider.set.not-yet-made", "snapshot collection {set} is still being made by job {job}";
    SET_NOT_MADE = "provider.set.not-made", "snapshot collection {set} was not made; job {job} tells why";
    SET_GONE = "provider.set.gone", "snapshot collection {set}, which job {job} made, has been destroyed";

    TITLE_SNAPSHOT_CHECK = "provider.title.snapshot-check", "Snapshot Check of Groupshot";
    TITLE_CREATE_SNAPSHOT = "provider.title.create-snapshot", "Create Snapshot of a Collection";
    TITLE_APPLY_SNAPSHOT = "provider.title.apply-snapshot", "Apply Snapshot of a Collection";
    TITLE_DESTROY_SNAPSHOT = "provider.title.destroy-snapshot", "Destroy Snapshot of a Collection";
    TITLE_EXPORT_SNAPSHOT = "provider.title.export-snapshot", "Export Snapshot of a Collection";
    TITLE_DEFINE_COLLECTION = "provider.title.define-collection", "Define Collection";
    TITLE_DESTROY_COLLECTION = "provider.title.destroy-collection", "Destroy Collection";
    TITLE_RENAME_COLLECTION = "provider.title.rename-collection", "Rename Collection";
    TITLE_ADD_MEMBER = "provider.title.add-member", "Add Member to Collection";
    TITLE_REMOVE_MEMBER = "provider.title.remove-member", "Remove Member from Collection";
    TITLE_OTHER = "provider.title.other", "Request";
    SUMMARY_FAILED = "provider.summary.failed", "{job}: failed";
    SUMMARY_TERMINATED = "provider.summary.terminated", "{job}: terminated on request";
    SUMMARY_KILLED = "provider.summary.killed", "{job}: killed on request";
    JOB_REFUSED = "provider.job.refused", "Refused";
    JOB_GONE = "provider.job.gone", "there is no job {job}; a job is removed some time after its end";

    NOT_SUPPORTED = "provider.not-supported", "{method} is not supported";
    NOTHING_TO_CHANGE = "provider.nothing-to-change", "it was so already";
    STORE_FAILED = "provider.store-failed", "nothing was changed, because it could not be recorded: {reason}";
    PARAMETER_NULL = "provider.parameter-null", "parameter {parameter} has no value";
    REFERENCE_TO_NOTHING = "provider.reference-to-nothing", "parameter {parameter} must refer to an existing {class} on this host; {path} is none";
    SNAPSHOT_TYPE_NOT_OFFERED = "provider.snapshot-type", "SnapshotType {type} is not offered; 1 (standard) and 2 (recovery) are";
    NO_REFERENCE_POINT_OF_STANDARD = "provider.reference-point-of-standard", "a collection of standard snapshots cannot become reference points; only recovery snapshots can";
    SETTINGS_UNREADABLE = "provider.settings.unreadable", "parameter {parameter}: {reason}";
    NO_TEXT = "provider.no-text", "no text";
    SETTINGS_OF_ANOTHER_CLASS = "provider.settings.class", "parameter {parameter} holds an instance of {class}; {expected} is expected";
    GUEST_BACKUP_TYPE = "provider.settings.guest-backup-type", "SnapshotSettings: GuestBackupType is {value}; 0, 1 and 2 are known";
    CONSISTENCY_LEVEL = "provider.settings.consistency-level", "SnapshotSettings: ConsistencyLevel is {value}; 1 (application) and 2 (crash) are known";
    ELEMENT_NAME_TOO_LONG = "provider.settings.element-name", "parameter SnapshotSettings: ElementName must have at most {limit} characters";
    NO_SNAPSHOT = "provider.parameter.no-snapshot", "{parameter} is not the settings of a snapshot";
    NO_COLLECTION = "provider.no-collection", "parameter {parameter}: it refers to no collection";
    NO_SNAPSHOT_SET = "provider.no-snapshot-set", "parameter {parameter}: it refers to no snapshot set";
    BACKUP_INTENT = "provider.backup-intent", "parameter ExportSettingData: BackupIntent is 1 (preserve chain) or 2 (merge), not {value}";
    DIFFERENTIAL_BACKUP_BASE = "provider.differential-backup-base", "parameter ExportSettingData: DifferentialBackupBase is not supported yet; leave it out to export everything";

    NAME_EMPTY = "provider.collection.name-empty", "parameter {parameter} must not be empty";
    NAME_BLANK = "provider.name-blank", "parameter {parameter} has only characters that nobody sees";
    NAME_TOO_LONG = "provider.name-too-long", "parameter {parameter} must have at most {limit} characters";
    COLLECTION_TYPE = "provider.collection.type", "Type is {value}; 0 (virtual machines) and 1 (collections) are known";
    ID_IS_NO_GUID = "provider.collection.id", "parameter {parameter} must be a GUID; `{value}` is none";
    COLLECTION_EXISTS = "provider.collection.exists", "there is already a collection {collection}";
    NO_SUCH_COLLECTION = "provider.collection.none", "there is no collection {collection}";
    COLLECTION_IN_USE = "provider.collection.in-use", "an operation is working on collection {collection}; it stays as it is until that has ended";
    NOT_COLLECTABLE = "provider.collection.not-collectable", "parameter Member must refer to a virtual machine or a collection, not to this {class}";
    ONLY_MACHINES = "provider.collection.only-machines", "collection {collection} collects virtual machines, not collections";
    ONLY_COLLECTIONS = "provider.collection.only-collections", "collection {collection} collects collections, not virtual machines";
    NO_MEMBER = "provider.collection.no-member", "the object that parameter Member refers to is not a member of collection {collection}";
    CYCLE = "provider.collection.cycle", "collection {member} cannot go into {collection}, which is the same collection or below it";
}
