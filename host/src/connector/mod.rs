//! Where raw frames come from: recordings and the simulator. Nothing here looks into a frame.

mod recording;
mod simulator;

pub use recording::{Chunk, LINE_BYTES_MAX, Recording, TooLong, digest_file};
pub use simulator::{Frame, FrameKind, Simulator, SimulatorSettings, WrongSetting, write_recording};
