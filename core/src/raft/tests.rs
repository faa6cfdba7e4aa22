//! Several nodes that exchange messages in memory.

mod cluster;
mod elections;
mod logs;
mod peers;
mod random;
mod reads;
mod snapshots;
mod writes;
