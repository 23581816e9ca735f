//! Somebody who may rename in an image's folder puts something else in the place of a file: what the server holds is
//! what was recorded, and nobody's file is read, written, replaced or removed through a name. As root, with a second
//! user.

mod accept;
mod apply;
mod capture;
mod chain;
mod doctor;
mod export;
mod folder;
mod headers;
mod identity;
mod inode;
mod kill;
mod lain;
mod made;
mod merge;
mod moved;
mod neighbours;
mod own;
mod race;
mod roots;
mod scene;
mod seals;
mod taken;
