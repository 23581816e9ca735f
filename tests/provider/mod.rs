//! Providers over simulated machines and a store in memory: what a client sees of each class, as CIM values.

mod associations;
mod collections;
mod create_snapshot;
mod destroy_snapshot;
mod jobs;
mod objects;
mod roles;
mod traversal;
mod world;
