//! What several tests share: the real program as a child process, clients, real disks.

pub(crate) mod disk;
pub(crate) mod gate;
pub(crate) mod guest;
pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod pages;
pub(crate) mod pki;
pub(crate) mod qemu;
pub(crate) mod remote;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod tools;
pub(crate) mod wire;
