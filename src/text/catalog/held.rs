//! Texts of `held`: why what stands somewhere is not what was meant. They are causes in the sentences of others.

super::messages! {
    LINK = "held.link", "a symbolic link stands there";
    NOT_REGULAR = "held.not-regular", "what stands there is no regular file";
    OTHER = "held.other", "another file stands there (inode {found} instead of {expected})";
    LATER = "held.later", "another file stands there, made later, which was given the same inode number {inode}";
    NAMES = "held.names", "it has {count} names (hard links)";
    OWNER = "held.owner", "it belongs to user {found}, not to user {expected} any more";
    ASTRAY = "held.astray", "a symbolic link above it leads elsewhere";
    NOT_OURS = "held.not-ours", "the folder of that name holds nothing that the server makes";
    UNRECORDED = "held.unrecorded", "it lies under the image and was not there when the image was imported";
    UNKNOWN = "held.unknown", "nothing is recorded of an image there";
    UNBORN = "held.unborn", "an older version has recorded it, and it was not there as recorded when this one was started first";
    SHARED = "held.shared", "the folder belongs to user {owner} and has the mode {mode}: others could exchange what the server keeps in it";
    KEPT_BESIDE = "held.kept-beside", "somebody exchanged it meanwhile; what stood there (inode {found}) is kept in a folder {folder}-… beside it";
    KEPT_THERE = "held.kept-there", "somebody exchanged it meanwhile; what stood there (inode {found}) is kept in the server's own folder that it was moved to";
    TOO_LONG = "held.too-long", "it is longer than {most}, and no more is read of such a file";
    SILENT = "held.silent", "{place} does not answer: the server or process behind it, or the connection to it, hangs; repair or unmount it";
}
