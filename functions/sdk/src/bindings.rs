//! What `wit/` means in Rust, on the guest's side: generated, plus rows over the generated columns.

/// The types that all worlds share.
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/")]
mod shared {
    wit_bindgen::generate!({
        inline: "package tapeline:shared; world shared {
            import tapeline:pipeline/events@0.1.0;
            import tapeline:pipeline/state@0.1.0;
        }",
        path: "../../wit",
        generate_all,
    });
}

pub use shared::tapeline::pipeline::{events, state};

macro_rules! world {
    ($module:ident, $world:literal) => {
        #[doc = concat!("World `", $world, "`.")]
        #[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/")]
        pub mod $module {
            wit_bindgen::generate!({
                world: $world,
                path: "../../wit",
                pub_export_macro: true,
                with: {
                    "tapeline:pipeline/events@0.1.0": crate::bindings::events,
                    "tapeline:pipeline/state@0.1.0": crate::bindings::state,
                },
            });
        }
    };
}

world!(stage, "stage");
world!(fetcher, "fetcher");
world!(writer, "writer");

mod glue {
    use super::events::*;

    tapeline_events::column_glue!();
}

impl From<crate::SettingError> for state::SettingError {
    fn from(error: crate::SettingError) -> Self {
        Self { key: error.key, value: error.value, expected: error.expected }
    }
}

impl From<crate::StateError> for state::StateError {
    fn from(error: crate::StateError) -> Self {
        match error {
            crate::StateError::Version(version) => Self::Version(version),
            crate::StateError::Corrupt(reason) => Self::Corrupt(reason),
        }
    }
}
