//! The recordings that some tests need, and the reference that they are compared with.

use std::path::{Path, PathBuf};

/// The folder of recordings: `TAPELINE_RECORDINGS`, else `../shared/data` beside the project. `None` when it is not
/// there, as in a user's clone.
pub fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("TAPELINE_RECORDINGS").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    folder.join("binance/spot_btcusdt_20240808.gz").exists().then_some(folder)
}

/// The two files of the Bitcoin recording: 99,574 lines, 19,904 of them trades.
pub fn bitcoin(folder: &Path) -> [PathBuf; 2] {
    ["20240808", "20240809"].map(|day| folder.join(format!("binance/spot_btcusdt_{day}.gz")))
}
