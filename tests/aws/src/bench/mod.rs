//! What the functions take: from the start of a process to its first answer, memory, the package's size; and what AWS asks
//! for a million events, by what was counted on the way to a local AWS. The tables of `infra/README.md` are made here.

pub mod cost;
pub mod hop;
pub mod market;
pub mod package;
pub mod phases;
pub mod readme;
