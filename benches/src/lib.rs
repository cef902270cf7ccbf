//! The same work on umcg and on its peers, in one run, with a process for each set.
//!
//! [`system`] has the systems behind one trait, [`sets`] has the work, [`runner`] runs the work on
//! the systems, and [`targets`] judges the results. The program `umcg-benches` puts them together,
//! and `benches/micro.rs` uses them with criterion. `README.md` beside the manifest says how to use
//! the program and how it measures.

pub mod check;
pub mod child;
pub mod clock;
mod cpu;
pub mod machine;
pub mod neighbour;
pub mod paths;
pub mod probe;
pub mod report;
pub mod runner;
pub mod sets;
pub mod system;
pub mod targets;
pub mod usage;
