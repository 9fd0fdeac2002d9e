use std::{io::Write, path::PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Frames with their receive times, and where lines were cut.
type Read = (Vec<(i64, String)>, Vec<(u64, u64)>);

fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    // No name tells how it is compressed.
    let path = folder.path().join("recording.dat");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn frames(chunk: &Chunk) -> Vec<(i64, String)> {
    assert_eq!(chunk.ends.len(), chunk.received.len());
    let starts = [0].into_iter().chain(chunk.ends.iter().copied());
    let spans = starts.zip(&chunk.ends).map(|(start, end)| start as usize..*end as usize);
    let texts = spans.map(|span| String::from_utf8(chunk.bytes[span].to_vec()).unwrap());
    chunk.received.iter().copied().zip(texts).collect()
}

fn rest(recording: &mut Recording, lines_max: usize) -> Result<Read> {
    let (mut all, mut cut) = (Vec::new(), Vec::new());
    let mut end = None;
    while let Some(chunk) = recording.next_chunk(lines_max, usize::MAX)? {
        assert!(end.is_none_or(|end| end == chunk.offset_start), "chunks follow each other");
        assert!(chunk.ends.len() <= lines_max);
        end = Some(chunk.offset_end);
        all.extend(frames(&chunk));
        cut.extend(chunk.too_long.iter().map(|line| (line.offset, line.length)));
    }
    Ok((all, cut))
}

fn read(bytes: &[u8]) -> Result<Vec<(i64, String)>> {
    let (_folder, path) = file(bytes);
    rest(&mut Recording::open(&path)?, 3).map(|(frames, _)| frames)
}

fn plain(frames: &[&str]) -> Vec<(i64, String)> {
    frames.iter().map(|frame| (i64::MIN, (*frame).to_owned())).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// With a checksum, as the program `zstd` writes.
fn zst(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Text that does not compress well, so that it is cut off in its middle.
fn long_text() -> String {
    let mut number = 1_u64;
    let line = |_| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{{\"n\":{number}}}\n")
    };
    (0..20_000).map(line).collect()
}

#[test]
fn every_compression_is_told_by_its_first_bytes() {
    let (head, tail) = ("1723161255342000000 {\"a\":1}\n{\"b\"", ":2}\n");
    let expected = [(1_723_161_255_342_000_000, "{\"a\":1}".to_owned()), (i64::MIN, "{\"b\":2}".to_owned())];
    assert_eq!(read(format!("{head}{tail}").as_bytes()).unwrap(), expected);
    for compress in [gzip, xz, zst] {
        // Two files put one behind the other, the cut within a line.
        let both = [compress(head.as_bytes()), compress(tail.as_bytes())].concat();
        assert_eq!(read(&both).unwrap(), expected);
        assert_eq!(read(&compress(b"")).unwrap(), []);
    }
}

#[test]
fn lines_as_people_and_other_systems_write_them() {
    assert_eq!(read(b"").unwrap(), []);
    assert_eq!(read(b"\n\r\n  \t\n").unwrap(), []);
    assert_eq!(read(b"{}").unwrap(), plain(&["{}"]));
    assert_eq!(read(b"\r\n{}\r\n  [1]\t\r\n\n{ }").unwrap(), plain(&["{}", "[1]", "{ }"]));
    assert_eq!(read(b"7 {}\r\n0 [1] \n").unwrap(), [(7, "{}".to_owned()), (0, "[1]".to_owned())]);
}

#[test]
fn what_is_no_receive_time_is_frame() {
    for frame in ["17", "-1 {}", "1.5 {}", "12\t{}", "99999999999999999999 {}", "9223372036854775808 {}", "12{}"] {
        assert_eq!(read(frame.as_bytes()).unwrap(), plain(&[frame]));
    }
    assert_eq!(read(b"9223372036854775807 {}").unwrap(), [(i64::MAX, "{}".to_owned())]);
    assert_eq!(read(b"5  {}").unwrap(), [(5, " {}".to_owned())]);
}

#[test]
fn a_line_that_is_too_long_is_cut_and_reading_goes_on() {
    let lengths = [(99, false), (100, false), (101, true), (300_000, true), (100, false)];
    let lines: Vec<String> = lengths.iter().map(|(length, _)| "x".repeat(*length)).collect();
    for end in ["", "\n"] {
        let (_folder, path) = file(format!("{}{end}", lines.join("\n")).as_bytes());
        let (found, cut) = rest(&mut Recording::open_with(&path, 100).unwrap(), 2).unwrap();
        let expected: Vec<&str> = lines.iter().map(|line| &line[..line.len().min(100)]).collect();
        assert_eq!(found, plain(&expected));
        assert_eq!(cut, [(99 + 1 + 100 + 1, 101), (99 + 1 + 100 + 1 + 101 + 1, 300_000)]);
    }
    let (_folder, path) = file(format!("{{}}\n8 {}", "x".repeat(2_000_000)).as_bytes());
    let chunk = Recording::open(&path).unwrap().next_chunk(10, 1000).unwrap().unwrap();
    assert_eq!(frames(&chunk)[1], (8, "x".repeat(198)));
    assert_eq!(chunk.too_long, [TooLong { frame: 1, offset: 3, length: 2_000_002 }]);
    assert_eq!(chunk.offset_end, 2_000_005);
}

#[test]
fn a_chunk_ends_where_it_is_told() {
    let (_folder, path) = file(b"{\"a\":1}\n\n{\"b\":2}\n{\"c\":3}\n\n");
    let mut recording = Recording::open(&path).unwrap();
    let chunk = recording.next_chunk(2, 1000).unwrap().unwrap();
    assert_eq!((chunk.ends.len(), chunk.offset_start, chunk.offset_end), (2, 0, 17));
    let mut recording = Recording::open(&path).unwrap();
    assert_eq!(recording.next_chunk(0, 0).unwrap().unwrap().ends, [7]);
    assert_eq!(recording.next_chunk(9, 8).unwrap().unwrap().ends, [7, 14]);
    assert_eq!(recording.next_chunk(9, 8).unwrap(), None);
    assert_eq!(recording.next_chunk(9, 8).unwrap(), None);
    assert_eq!((recording.bytes_read(), recording.size()), (26, Some(26)));
}

#[test]
fn what_is_left_of_a_file_that_was_cut_off_is_given_out_first() {
    let text = long_text();
    for compress in [gzip, xz, zst] {
        let whole = compress(text.as_bytes());
        let (_folder, path) = file(&whole[..whole.len() * 2 / 3]);
        let mut recording = Recording::open(&path).unwrap();
        let (mut given, mut end) = (String::new(), 0);
        let error = loop {
            match recording.next_chunk(1000, usize::MAX) {
                Ok(chunk) => {
                    let chunk = chunk.expect("it must not end well");
                    end = chunk.offset_end;
                    frames(&chunk).iter().for_each(|(_, frame)| given += &format!("{frame}\n"));
                }
                Err(error) => break error,
            }
        };
        assert!(given.len() > text.len() / 4, "{} of {}", given.len(), text.len());
        assert!(text.starts_with(given.trim_end()));
        assert_eq!(error.kind(), Kind::Corrupt);
        let said = format!("read recording {} behind byte {end}: ", path.display());
        assert!(error.to_string().starts_with(&said), "{error}");
        assert_eq!(recording.next_chunk(1, 1).unwrap_err().to_string(), error.to_string());
    }
}

#[test]
fn a_file_that_was_damaged_is_an_error() {
    for compress in [gzip, xz, zst] {
        let mut bytes = compress(long_text().as_bytes());
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0x55);
        for bytes in [&bytes, &bytes[..8]] {
            assert_eq!(read(bytes).map(|frames| frames.len()).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}

#[test]
fn going_on_behind_the_end_or_back_is_an_error() {
    let (_folder, path) = file(b"{}\n{}\n");
    let mut recording = Recording::open(&path).unwrap();
    recording.seek_to(6).unwrap();
    assert_eq!(recording.next_chunk(1, 1).unwrap(), None);
    assert_eq!(recording.seek_to(3).unwrap_err().kind(), Kind::Invalid);
    let error = Recording::open(&path).unwrap().seek_to(7).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    let said = format!("go on at byte 7 of recording {}: it ends at byte 6", path.display());
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_file_has_a_digest_or_is_not_there() {
    let (_folder, path) = file(b"abc");
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest_file(&path).unwrap(), expected);
    let missing = Path::new("/nowhere/x.gz");
    assert_eq!(digest_file(missing).unwrap_err().kind(), Kind::NotFound);
    let error = Recording::open(missing).map(|_| ()).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "open recording /nowhere/x.gz"));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("\r".to_owned()),
        "[0-9]{1,21} \\{[a-z]{0,30}\\}",
        "\\{[a-z]{0,60}\\}\r?",
        "x{0,200}",
    ]
}

proptest! {
    #[test]
    fn going_on_at_the_end_of_any_chunk_gives_the_same_rest(
        lines in proptest::collection::vec(line(), 0..40),
        lines_max in 1..8_usize,
        bytes_max in 1..300_usize,
        compression in 0..4_usize,
        has_end: bool,
    ) {
        let text = lines.join("\n") + if has_end { "\n" } else { "" };
        let compress = [<[u8]>::to_vec as fn(&[u8]) -> Vec<u8>, gzip, xz, zst][compression];
        let (_folder, path) = file(&compress(text.as_bytes()));
        let open = || Recording::open_with(&path, 80).unwrap();
        let (all, cut) = rest(&mut open(), usize::MAX).unwrap();
        let long = lines.iter().filter(|line| line.len() > 80).count();
        let blank = lines.iter().filter(|line| line.trim_ascii().is_empty()).count();
        prop_assert_eq!((all.len(), cut.len()), (lines.len() - blank, long));

        let (mut first, mut seen) = (open(), 0);
        while let Some(chunk) = first.next_chunk(lines_max, bytes_max).unwrap() {
            seen += chunk.ends.len();
            let mut second = open();
            second.seek_to(chunk.offset_end).unwrap();
            let (found, _) = rest(&mut second, 5).unwrap();
            prop_assert_eq!(&found[..], &all[seen..]);
        }
        prop_assert_eq!(seen, all.len());
    }
}
