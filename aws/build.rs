//! Tells the linker of the functions' program to keep one of equal functions: it is loaded whenever a function starts.

#![allow(clippy::print_stdout, reason = "this is how cargo is told")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Where the compiler comes with a linker that can.
    let target = ["CARGO_CFG_TARGET_ARCH", "CARGO_CFG_TARGET_ENV"].map(|name| std::env::var(name).unwrap_or_default());
    if target == ["x86_64", "gnu"] {
        println!("cargo::rustc-link-arg-bin=bootstrap=-Wl,--icf=all");
    }
}
