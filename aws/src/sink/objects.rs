//! Files in S3, which knows no appending: each part of the work that appends to a file is an object of its own, named by
//! its place, below the file's name. And what entered the pipeline, before it is parsed.

use std::{collections::BTreeMap, io::Write as _};

use aws_sdk_s3::{
    Client,
    error::SdkError,
    operation::put_object::{PutObjectError, PutObjectOutput, builders::PutObjectFluentBuilder},
};
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tapeline_invoke::contract::Append;

use super::{DIGITS, Part, REQUESTS_MAX, SinkError};

/// A bucket.
#[derive(Clone, Debug)]
pub struct Objects {
    client: Client,
    bucket: String,
}

impl Objects {
    /// A bucket that is there.
    pub const fn new(client: Client, bucket: String) -> Self {
        Self { client, bucket }
    }

    /// Puts appends into objects: `<path>/<place of the part>.<what the path ends in>`, each with the header of its file.
    ///
    /// # Errors
    /// When one was not taken.
    pub async fn put(&self, appends: &[Append], part: Part) -> Result<(), SinkError> {
        let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for append in appends {
            files.entry(&append.path).or_insert_with(|| append.header.clone()).extend_from_slice(&append.bytes);
        }
        let puts: Vec<_> = files.into_iter().map(|(path, bytes)| self.put_one(key(path, part), bytes)).collect();
        stream::iter(puts).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    /// Stores records that entered, byte for byte, one a line, as `raw/<first stage>/<number>.gz`; their format, and when
    /// they were received, ns since the epoch, are its metadata.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn put_raw(
        &self,
        stage: &str,
        number: u128,
        records: &[Vec<u8>],
        (format, received): (&str, i64),
    ) -> Result<(), SinkError> {
        let failed = |error: std::io::Error| SinkError::new("gzip", error);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        for record in records {
            gzip.write_all(record).and_then(|()| gzip.write_all(b"\n")).map_err(failed)?;
        }
        let put = self.put_object(format!("raw/{stage}/{number:0DIGITS$}.gz"));
        let put = put.metadata("format", format).metadata("received", received.to_string());
        taken(put.body(gzip.finish().map_err(failed)?.into()).send().await)
    }

    async fn put_one(&self, key: String, bytes: Vec<u8>) -> Result<(), SinkError> {
        taken(self.put_object(key).body(bytes.into()).send().await)
    }

    fn put_object(&self, key: String) -> PutObjectFluentBuilder {
        self.client.put_object().bucket(&self.bucket).key(key).if_none_match("*")
    }
}

fn taken(answer: Result<PutObjectOutput, SdkError<PutObjectError>>) -> Result<(), SinkError> {
    match answer {
        Ok(_) => Ok(()),
        // Somebody has done this work before: what is there is the same.
        Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 412) => Ok(()),
        Err(error) => Err(SinkError::new("S3", error)),
    }
}

fn key(path: &str, part: Part) -> String {
    let name = part.name().replace('/', "-");
    match path.rsplit_once('.').filter(|(_, end)| !end.contains('/')) {
        Some((_, end)) => format!("{path}/{name}.{end}"),
        None => format!("{path}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_below_their_file_and_in_order() {
        let part = |number, from| Part { partition: 2, number, from };
        assert_eq!(key("a/b.csv", part(7, 0)), "a/b.csv/002-00000000000000000007-000000.csv");
        assert_eq!(key("a.b/c", part(7, 0)), "a.b/c/002-00000000000000000007-000000");
        assert!(key("f.csv", part(7, 9)) < key("f.csv", part(7, 10)));
        assert!(key("f.csv", part(9, 10)) < key("f.csv", part(10, 0)));
    }
}
