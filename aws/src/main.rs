//! The program of Tapeline's Lambda functions.

use std::process::ExitCode;

fn main() -> ExitCode {
    match tapeline_aws::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
