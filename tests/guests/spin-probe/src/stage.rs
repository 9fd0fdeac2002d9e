//! A stage, as a dependency: which one it is, the manifest says.

#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/")]
mod bindings {
    use spin_sdk::wit_bindgen;

    wit_bindgen::generate!({
        inline: "package tapeline:probe; world probe { import tapeline:pipeline/process@0.1.0; }",
        path: "../../../wit",
        runtime_path: "::spin_sdk::wit_bindgen::rt",
        generate_all,
    });
}

use bindings::tapeline::pipeline::process;

/// Configures the stage and asks it who it is. Fails when the instance has done so before: a stage is configured once.
pub(crate) fn describe() -> Result<String, String> {
    process::configure("{}").map_err(|error| format!("{error:?}"))?;
    let description = process::describe();
    Ok(format!("{} {}", description.name, description.version))
}
