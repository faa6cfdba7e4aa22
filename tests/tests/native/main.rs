//! Clusters of real processes on loopback, and what happens to real machines.

mod catching_up;
mod commands;
mod crashes;
mod cycles;
mod disks;
mod observer;
mod pauses;
mod raw;
mod running;
mod strangers;
mod workload;
