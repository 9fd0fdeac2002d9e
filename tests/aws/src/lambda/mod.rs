//! What stands for AWS Lambda, which cannot run here: it starts the real `bootstrap` of the package, calls it with what is
//! in real queues (of ministack), and lets what happens in a data centre happen on the way: the tests of faults. And what
//! functions ask of AWS on that way can be counted: the bench.

pub mod faults;
pub mod instance;
pub mod mapping;
pub mod meter;
pub mod pipeline;
pub mod way;

use std::net::{Ipv4Addr, SocketAddr};

/// A port of this machine.
fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
