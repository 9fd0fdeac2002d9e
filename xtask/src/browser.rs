//! Sees to it that there is a browser for the tests of pages: Debian's Chromium, if none is there and we may.

use std::process::Command;

use crate::process;

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Installs Chromium as root on Debian. Where it cannot, the tests that need one are reported as skipped.
pub(crate) fn set_up() {
    let is_there = |name: &&str| process::succeeds(Command::new(name).arg("--version"));
    if BROWSERS.iter().any(is_there) {
        return;
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends", "chromium"]).env("DEBIAN_FRONTEND", "noninteractive");
    let installed = process::run(Command::new("apt-get").arg("update")).and_then(|()| process::run(&mut install));
    if let Err(error) = installed {
        eprintln!("no Chromium, which tests of pages need, and it could not be installed: {error:#}");
    }
}
