//! Files in S3, which knows no appending: each part of the work that appends to a file is an object of its own, named by
//! its place, below the file's name. And what entered the pipeline, before it is parsed.

use std::{collections::BTreeMap, io::Write as _};

use aws_sdk_s3::{Client, operation::put_object::builders::PutObjectFluentBuilder};
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tapeline_aws_protocol::RAW_OBJECTS;
use tapeline_invoke::contract::Append;

use super::{DIGITS, Part, REQUESTS_MAX, SinkError, fitted};

/// Bytes of a path: a key has at most 1024.
const PATH_BYTES_MAX: usize = 900;

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

    /// Stores what a message brought, byte for byte: `raw/<first stage>/<number>.gz`. Its format, and when it was received, ns
    /// since the epoch, are metadata of the object.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn put_raw(
        &self,
        stage: &str,
        number: u128,
        body: &[u8],
        (format, received): (&str, i64),
    ) -> Result<(), SinkError> {
        let failed = |error: std::io::Error| SinkError::new("gzip", error);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(body).map_err(failed)?;
        let put = self.put_object(format!("{RAW_OBJECTS}{stage}/{number:0DIGITS$}.gz"));
        let put = put.metadata("format", format).metadata("received", received.to_string());
        let put = put.body(gzip.finish().map_err(failed)?.into()).send().await;
        put.map(drop).map_err(|error| SinkError::new("S3", error))
    }

    async fn put_one(&self, key: String, bytes: Vec<u8>) -> Result<(), SinkError> {
        let put = self.put_object(key).body(bytes.into()).send().await;
        put.map(drop).map_err(|error| SinkError::new("S3", error))
    }

    fn put_object(&self, key: String) -> PutObjectFluentBuilder {
        // Without a condition: whoever writes it again writes the same, and two at once must not refuse each other.
        self.client.put_object().bucket(&self.bucket).key(key)
    }
}

fn key(path: &str, part: Part) -> String {
    let (name, path) = (part.name(), fitted(path, PATH_BYTES_MAX));
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
        let part = |step| Part { partition: 2, step };
        assert_eq!(key("a/b.csv", part(7)), "a/b.csv/002-00000000000000000007.csv");
        assert_eq!(key("a.b/c", part(7)), "a.b/c/002-00000000000000000007");
        assert!(key("f.csv", part(9)) < key("f.csv", part(10)));
        assert!(key(&"ä".repeat(1_000), part(1)).len() <= 1_024);
    }
}
