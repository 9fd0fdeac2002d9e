//! Settings of fetch.

use serde::Deserialize;

/// There are none yet; the format comes with the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {}
