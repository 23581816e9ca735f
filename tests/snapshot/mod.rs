//! The cut: all or nothing, whatever fails, dies or cancels, and whoever comes at the same time.

mod apply;
mod at_every_step;
mod busy;
mod destroy;
mod flipped;
mod freed;
mod gone_on;
mod guarded;
mod hidden;
mod running;
mod table;
mod trouble;
mod unaudited;
mod unlocked;
mod world;
