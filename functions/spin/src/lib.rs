//! What stands in front of the stages under Spin.
//!
//! A component of a Spin application is one of two. The front of a **stage** ([`messages`], `stage.rs`) imports the
//! interface that the stage exports; Spin composes both. It answers `POST /stages/{stage}/invoke` as our own host does,
//! and, only to other components of the application, takes part in a pipeline. The front of a **pipeline**
//! (`pipeline.rs`) answers `POST /pipelines/{name}/events`: it hands the events from stage to stage and commits the state
//! of all of them at once (crate `tapeline-state`).
//!
//! Components of it are in `fronts/`, one for each thing that it can stand in front of, by features: `fetcher`, `stage`,
//! `writer` (the three worlds; a component must import just the interface of its own) and `pipeline`. Instances may be kept between requests
//! and may be thrown away after any: nothing here relies on either.

pub mod messages;

#[cfg(target_family = "wasm")]
mod bucket;
#[cfg(target_family = "wasm")]
pub mod http;
#[cfg(all(target_family = "wasm", feature = "pipeline"))]
pub mod pipeline;
#[cfg(all(target_family = "wasm", any(feature = "fetcher", feature = "stage", feature = "writer")))]
pub mod stage;
