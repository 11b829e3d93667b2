//! The rules, and what they know: who may announce, who is there, how often. Plain functions and tables in
//! memory, without I/O or a clock of their own.

pub mod access;
pub mod announce;
pub mod heard;
pub mod limits;
pub mod swarm;
