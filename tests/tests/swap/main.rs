//! Versions of stages come and go while data flows, and whoever reads what comes out cannot tell.

mod admission;
mod agreement;
mod job;
mod probation;
mod shadow;
mod thousand;
mod tokens;
