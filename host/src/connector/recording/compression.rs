//! How a file is compressed, by its first bytes.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::{
    bufread::XzDecoder,
    stream::{CONCATENATED, Stream},
};

use super::READ_BYTES;

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Length of the longest of them.
const MAGIC_BYTES: u64 = 6;
/// What `xz -9` needs is a quarter of this; zstd has about the same limit by itself.
const XZ_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The uncompressed bytes of a file. Compressed files that were put one behind the other are read as one.
pub(super) fn open(mut input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::new();
    input.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic)?;
    let is = |prefix: &[u8]| magic.starts_with(prefix);
    let (is_gzip, is_xz, is_zstd) = (is(GZIP), is(XZ), is(ZSTD));
    let input = Cursor::new(magic).chain(input);
    if !is_gzip && !is_xz && !is_zstd {
        return Ok(Box::new(input));
    }
    let input = BufReader::with_capacity(READ_BYTES, input);
    if is_gzip {
        return Ok(Box::new(MultiGzDecoder::new(input)));
    }
    if is_xz {
        return open_xz(input);
    }
    Ok(Box::new(zstd::Decoder::with_buffer(input)?))
}

fn open_xz(input: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, CONCATENATED)?;
    Ok(Box::new(XzDecoder::new_stream(input, stream)))
}

/// Whether an error comes from what is in the file, not from the machine.
pub(super) fn is_damage(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}
