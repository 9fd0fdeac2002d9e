//! Frames: the length in bytes (u32, the lowest byte first), and so many bytes of postcard.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a frame: far more than a worker gathers before it commits.
const BYTES_MAX: usize = 1 << 30;

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side is gone, or there is no way to it.
    #[error("the connection is broken")]
    Broken(#[from] io::Error),
    /// It says something else.
    #[error("what was said is no frame: {0}")]
    Unfit(String),
}

/// Says something.
///
/// # Errors
/// When the other side does not hear it.
pub fn write(to: &mut impl Write, what: &impl Serialize) -> Result<(), FrameError> {
    let unfit = |reason: String| FrameError::Unfit(reason);
    let mut bytes = postcard::to_extend(what, vec![0; size_of::<u32>()]).map_err(|error| unfit(error.to_string()))?;
    let length = bytes.len() - size_of::<u32>();
    let sized = u32::try_from(length).ok().filter(|_| length <= BYTES_MAX);
    let sized = sized.ok_or_else(|| unfit(format!("{length} bytes; {BYTES_MAX} are the most")))?;
    bytes[..size_of::<u32>()].copy_from_slice(&sized.to_le_bytes());
    to.write_all(&bytes)?;
    Ok(to.flush()?)
}

/// Hears what is said next; `None` when the other side has ended between two frames.
///
/// # Errors
/// When it is broken off, or is no frame.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut length = [0; size_of::<u32>()];
    match from.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut length[1..])?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > BYTES_MAX {
        return Err(FrameError::Unfit(format!("{length} bytes; {BYTES_MAX} are the most")));
    }
    let mut bytes = Vec::new();
    // As it comes, so that a length alone takes no memory.
    if from.take(length as u64).read_to_end(&mut bytes)? < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    postcard::from_bytes(&bytes).map(Some).map_err(|error| FrameError::Unfit(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Asked, Commit, Request};

    #[test]
    fn what_is_said_is_heard() {
        let commit = Commit { progress: vec![1, 2], ..Commit::default() };
        let said = [
            Asked { id: 1, session: 3, partition: 7, request: Request::Open },
            Asked { id: 2, session: 3, partition: 7, request: Request::Commit(Box::new(commit)) },
        ];
        let mut bytes = Vec::new();
        said.iter().for_each(|asked| write(&mut bytes, asked).unwrap());
        let mut rest = &bytes[..];
        for asked in said {
            assert_eq!(read(&mut rest).unwrap(), Some(asked));
        }
        assert_eq!(read::<Asked>(&mut rest).unwrap(), None);
        for cut in 1..bytes.len() {
            let mut rest = &bytes[..cut];
            // The first frame may be whole.
            let is_broken = |found| matches!(found, Err(FrameError::Broken(_)));
            let first = read::<Asked>(&mut rest);
            assert!(is_broken(first) || rest.is_empty() || is_broken(read::<Asked>(&mut rest)), "{cut}");
        }
        let long = [u32::MAX.to_le_bytes().as_slice(), &[0; 9]].concat();
        assert!(matches!(read::<Asked>(&mut &long[..]), Err(FrameError::Unfit(_))));
        assert!(matches!(read::<Asked>(&mut &[3, 0, 0, 0, 9, 9, 9][..]), Err(FrameError::Unfit(_))));
    }
}
