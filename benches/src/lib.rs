//! umcg beside its peers: the same work on each, in one run and, for each set, one process.
//!
//! [`system`] has the systems behind one trait, [`sets`] the work, [`runner`] what runs the one
//! on the other, [`targets`] what is to be reached. The program `umcg-benches` puts them together;
//! `benches/micro.rs` uses them with criterion. `README.md` beside the manifest says how to use
//! it and what makes the comparison fair.

pub mod check;
pub mod child;
pub mod clock;
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
