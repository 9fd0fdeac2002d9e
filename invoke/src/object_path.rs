//! Where an append may go.

const PATH_BYTES_MAX: usize = 1024;
/// Of a part between slashes: what file systems take.
const SEGMENT_BYTES_MAX: usize = 255;

/// Whether an object can have this path: relative, with parts that are names.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_object_path(path: &str) -> Result<(), &'static str> {
    if path.len() > PATH_BYTES_MAX {
        Err("is longer than 1024 bytes")
    } else if path.contains(|c: char| c == '\\' || c.is_control()) {
        Err("has a backslash or a control character")
    } else if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        Err("is not relative, or has an empty segment, `.` or `..`")
    } else if path.split('/').any(|segment| segment.len() > SEGMENT_BYTES_MAX) {
        Err("has a segment of more than 255 bytes")
    } else {
        Ok(())
    }
}
