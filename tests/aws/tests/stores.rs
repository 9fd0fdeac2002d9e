//! Each store of ours against a local AWS (ministack), by AWS' own clients: state passes the suite of every key-value store;
//! rows, files and dead letters are what was written last, however often and late it is written. Reported as ignored, by
//! name, where there is no ministack.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aws_sdk_dynamodb::{
    Client,
    types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};
use aws_sdk_s3::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeDeserializationInterceptorContextRef},
    error::BoxError,
};
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_aws::{
    Components, DynamoBucket, KEY,
    sink::{AT, DeadLetters, EXPIRES, Objects, Part, ROW, Rows, TABLE_SYMBOL},
};
use tapeline_aws_tests::local_aws::LocalAws;
use tapeline_harness::program;
use tapeline_invoke::contract::{self, Append, Cells, Column, Texts, TimeUnit};
use tapeline_state::{Bucket as _, StateError, testsuite};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What all tests share.
struct Shared {
    aws: LocalAws,
    runtime: Runtime,
}

/// A test.
type Test = fn(&Shared) -> Result<()>;
/// Made when it is first needed, or why it cannot be.
type Lazy = LazyLock<Result<Shared, String>>;

fn main() {
    let arguments = Arguments::from_args();
    let shared: Arc<Lazy> = Arc::new(LazyLock::new(|| start().map_err(|error| format!("{error:#}"))));
    let tests: [(&str, Test); 7] = [
        ("a_table_is_a_bucket", a_table_is_a_bucket),
        ("a_value_has_a_limit", a_value_has_a_limit),
        ("a_row_is_what_the_last_commit_wrote", a_row_is_what_the_last_commit_wrote),
        ("what_a_stage_names_fits_into_keys", what_a_stage_names_fits_into_keys),
        ("files_and_dead_letters_may_be_written_again", files_and_dead_letters_may_be_written_again),
        ("a_pointer_that_was_not_moved_is_not_read_again", a_pointer_that_was_not_moved_is_not_read_again),
        ("what_compile_puts_into_a_package_can_be_run", what_compile_puts_into_a_package_can_be_run),
    ];
    let is_missing = !LocalAws::is_there();
    let trial = |(name, test): (&str, Test)| {
        let shared = Arc::clone(&shared);
        let run = move || test(shared.as_ref().as_ref().map_err(|error| anyhow!("{error}"))?);
        Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
            .with_ignored_flag(is_missing)
    };
    let trials = tests.map(trial).into();
    // The last test takes it along.
    drop(shared);
    libtest_mimic::run(&arguments, trials).exit();
}

fn start() -> Result<Shared> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(Shared { aws: LocalAws::start()?, runtime })
}

impl Shared {
    fn dynamodb(&self) -> Client {
        Client::from_conf(self.aws.dynamodb())
    }

    /// A table with these keys, all of them texts.
    fn table(&self, name: &str, keys: &[&str]) -> Result<Client> {
        let client = self.dynamodb();
        let mut table = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
        for (key, kind) in keys.iter().zip([KeyType::Hash, KeyType::Range]) {
            table = table.key_schema(KeySchemaElement::builder().attribute_name(*key).key_type(kind).build()?);
            let text = AttributeDefinition::builder().attribute_name(*key).attribute_type(ScalarAttributeType::S);
            table = table.attribute_definitions(text.build()?);
        }
        self.runtime.block_on(table.send()).context("make a table")?;
        Ok(client)
    }

    fn items(&self, table: &str) -> Result<Vec<HashMap<String, AttributeValue>>> {
        let scan = self.dynamodb().scan().table_name(table).consistent_read(true).send();
        Ok(self.runtime.block_on(scan)?.items.unwrap_or_default())
    }
}

fn a_table_is_a_bucket(shared: &Shared) -> Result<()> {
    let client = shared.table("state", &[KEY])?;
    shared.runtime.block_on(async {
        testsuite::check(&DynamoBucket::new(client.clone(), "state".to_owned()), "suite").await;
        // One that is not there says so.
        let missing = DynamoBucket::new(client, "nothing".to_owned());
        let said = missing.increment("x", 1).await.err().map(|error| error.to_string());
        ensure!(said.as_ref().is_some_and(|said| said.contains("ResourceNotFound")), "{said:?}");
        Ok(())
    })
}

fn a_value_has_a_limit(shared: &Shared) -> Result<()> {
    use tapeline_invoke::contract::Entry;
    use tapeline_state::{Changes, Next, Scope};

    let bucket = DynamoBucket::new(shared.table("limit", &[KEY])?, "limit".to_owned());
    let scope: Scope<'_, _, u64> = Scope::named(&bucket, "limit");
    let commit = |bytes: usize| {
        let value = Some(vec![1; bytes]);
        let entry = Entry { key: "k".to_owned(), part: 0, version: 1, value, wake_at: None, expires_at: None };
        let changes = Changes { area: "a".to_owned(), entries: vec![entry], looked: 0, watermark: 0, called: 0 };
        let next = Next { changes: vec![changes], ..Next::default() };
        shared.runtime.block_on(async { scope.commit(&scope.begin().await?, next).await })
    };
    ensure!(commit(256 << 10).is_ok(), "the largest entry of the contract was refused");
    let refused = commit(400_000).err();
    ensure!(matches!(refused, Some(StateError::Full { .. })), "{refused:?}");
    Ok(())
}

/// Rows of one symbol, a key and a price each.
fn rows(symbol: &str, prices: &[(i64, f64)]) -> contract::Rows {
    let texts = |text: &str| {
        let ends = (1..=prices.len()).map(|count| (count * text.len()) as u32).collect();
        Cells::Texts(Texts { ends, bytes: text.repeat(prices.len()).into_bytes() })
    };
    let column = |name: &str, cells| Column { name: name.to_owned(), cells };
    let times = prices.iter().map(|(time, _)| *time).collect();
    contract::Rows {
        table: "bars".to_owned(),
        key_columns: 3,
        columns: vec![
            column("symbol", texts(symbol)),
            column("start", Cells::Times((times, TimeUnit::Seconds))),
            column("text", texts(symbol)),
            column("close", Cells::Numbers(prices.iter().map(|(_, price)| *price).collect())),
        ],
    }
}

fn a_row_is_what_the_last_commit_wrote(shared: &Shared) -> Result<()> {
    const MINUTE: i64 = 60_000_000_000;
    let client = shared.table("rows", &[TABLE_SYMBOL, AT])?;
    let table = Rows::new(client, "rows".to_owned(), Some(Duration::from_secs(3_600)));
    let put = |step, prices: &[(i64, f64)]| {
        shared.runtime.block_on(table.put(&[rows("BTC", prices)], Part { partition: 0, step }))
    };
    let closes = || {
        let mut items = shared.items("rows")?;
        items.sort_by_key(|item| item[AT].as_s().cloned().unwrap_or_default());
        let close = |item: &HashMap<String, AttributeValue>| Some(item[ROW].as_m().ok()?["close"].as_n().ok()?.clone());
        items.iter().map(close).collect::<Option<Vec<String>>>().context("a price in each row")
    };
    put(1, &[(0, 1.0), (MINUTE, 2.0), (0, 1.5)])?;
    ensure!(closes()? == ["1.5", "2"], "of those with one key the last does not stay: {:?}", closes()?);
    put(2, &[(0, 3.0)])?;
    // Somebody is late with what was before.
    put(1, &[(0, 1.5), (MINUTE, 2.0)])?;
    ensure!(closes()? == ["3", "2"], "what was before is back: {:?}", closes()?);
    put(2, &[(0, 3.0)])?;
    ensure!(closes()? == ["3", "2"], "the same is not the same: {:?}", closes()?);

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    for item in shared.items("rows")? {
        let expires: u64 = item[EXPIRES].as_n().map_err(|_| anyhow!("no number"))?.parse()?;
        ensure!((now + 3_000..=now + 3_600).contains(&expires), "it goes at {expires}");
    }
    Ok(())
}

fn what_a_stage_names_fits_into_keys(shared: &Shared) -> Result<()> {
    let table = Rows::new(shared.table("keys", &[TABLE_SYMBOL, AT])?, "keys".to_owned(), None);
    let part = Part { partition: 0, step: 1 };
    let long = "x".repeat(5_000);
    let other = format!("{long}y");
    let all = [&long, &other, "", "a/b", "a%2Fb"].map(|symbol| rows(symbol, &[(0, 1e-300), (1, f64::NAN)]));
    shared.runtime.block_on(table.put(&all, part))?;
    let items = shared.items("keys")?;
    ensure!(items.len() == 10, "{} rows of 10", items.len());
    ensure!(items.iter().all(|item| !item.contains_key(EXPIRES)), "a row goes that was to stay");
    Ok(())
}

fn files_and_dead_letters_may_be_written_again(shared: &Shared) -> Result<()> {
    let client = aws_sdk_s3::Client::from_conf(shared.aws.s3());
    shared.runtime.block_on(client.create_bucket().bucket("files").send())?;
    let objects = Objects::new(client.clone(), "files".to_owned());
    let append = |bytes: &[u8]| Append { path: "a/b.csv".to_owned(), header: b"h\n".to_vec(), bytes: bytes.to_vec() };
    let part = Part { partition: 3, step: 7 };
    for _ in 0..2 {
        shared.runtime.block_on(objects.put(&[append(b"1\n"), append(b"2\n")], part))?;
        shared.runtime.block_on(objects.put_raw("fetch", 12, b"\xff raw ", ("binance", 5)))?;
    }
    let get = |key: &str| {
        let get = client.get_object().bucket("files").key(key).send();
        shared.runtime.block_on(async { Ok::<_, anyhow::Error>(get.await?) }).with_context(|| key.to_owned())
    };
    let bytes = |key: &str| {
        let body = get(key)?.body.collect();
        Ok::<_, anyhow::Error>(shared.runtime.block_on(body)?.to_vec())
    };
    ensure!(bytes("a/b.csv/003-00000000000000000007.csv")? == b"h\n1\n2\n", "a part of a file is another");
    let raw = "raw/fetch/00000000000000000012.gz";
    let mut came = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes(raw)?.as_slice()), &mut came)?;
    ensure!(came == b"\xff raw ", "what came is not what is kept: {came:?}");
    let metadata = get(raw)?.metadata.unwrap_or_default();
    ensure!(metadata["format"] == "binance" && metadata["received"] == "5", "{metadata:?}");

    let letters = DeadLetters::new(shared.table("letters", &["stage", AT])?, "letters".to_owned());
    let line = |id: u32| format!(r#"{{"kind":"reject","fate":"late","reason":"r","event":{{"id":{id}}}}}"#);
    let aside = [("dedup".to_owned(), format!("{}\n{}\n", line(1), line(2)).into_bytes())];
    for _ in 0..2 {
        shared.runtime.block_on(letters.put(&aside, part))?;
    }
    let found = shared.items("letters")?;
    ensure!(found.len() == 2 && found.iter().all(|letter| letter["fate"].as_s().is_ok_and(|fate| fate == "late")));
    Ok(())
}

/// Notes how S3 has answered: the status, and the bytes behind it.
#[derive(Clone, Debug, Default)]
struct Answers(Arc<Mutex<Vec<(u16, usize)>>>);

impl Answers {
    fn take(&self) -> Vec<(u16, usize)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Intercept for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let bytes = answer.headers().get("content-length").and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((answer.status().as_u16(), bytes));
        Ok(())
    }
}

fn a_pointer_that_was_not_moved_is_not_read_again(shared: &Shared) -> Result<()> {
    /// A pointer may be as old as this when it is used.
    const POINTER_AGE_MAX: Duration = Duration::from_secs(1);
    let (package, answers) = (TempDir::new()?, Answers::default());
    fs::create_dir(package.path().join("components"))?;
    fs::write(package.path().join("components/engines"), "0123")?;
    let client = aws_sdk_s3::Client::from_conf(shared.aws.s3());
    let noted = aws_sdk_s3::Client::from_conf(shared.aws.s3().to_builder().interceptor(answers.clone()).build());
    shared.runtime.block_on(async {
        client.create_bucket().bucket("components").send().await?;
        let components = Components::open(package.path(), noted, "components".to_owned())?;
        let turn = |digest: &str| {
            let body = digest.to_owned().into_bytes().into();
            client.put_object().bucket("components").key("stages/alarm/current").body(body).send()
        };
        let [one, other] = ["a", "b"].map(|letter| letter.repeat(64));
        turn(&one).await?;
        // Each time: what the stage is to run, and how S3 has answered.
        for (wait, wanted, expected) in [
            (Duration::ZERO, &one, &[(200, 64)][..]),
            (Duration::ZERO, &one, &[]),
            (POINTER_AGE_MAX, &one, &[(304, 0)]),
            (POINTER_AGE_MAX, &one, &[(304, 0)]),
            (POINTER_AGE_MAX, &other, &[(200, 64)]),
            (POINTER_AGE_MAX, &other, &[(304, 0)]),
        ] {
            if *wanted == other {
                turn(&other).await?;
            }
            tokio::time::sleep(wait).await;
            let found = components.wanted("alarm", "alarm").await?;
            ensure!(found.as_deref() == Some(wanted.as_str()), "{found:?} instead of {wanted}");
            let answered = answers.take();
            ensure!(answered == expected, "{answered:?} instead of {expected:?}");
        }
        Ok(())
    })
}

/// As the help of `tapeline compile` says; `cargo xtask lambda` leaves the digest in front out.
fn what_compile_puts_into_a_package_can_be_run(shared: &Shared) -> Result<()> {
    let package = TempDir::new()?;
    let into = package.path().join("components");
    let alarm = program::components().join("alarm.wasm");
    program::output(&["compile", "--into", text(&into)?, text(&alarm)?])?;
    let client = aws_sdk_s3::Client::from_conf(shared.aws.s3());
    let components = Components::open(package.path(), client, "nowhere".to_owned())?;
    let digest = components.packaged_digest("alarm")?;
    let load = || shared.runtime.block_on(components.load(&digest, "alarm"));
    ensure!(load()?.digest == digest, "another one was loaded");
    // What is damaged is not run.
    let file = fs::read_dir(into.join("alarm"))?.next().context("a compiled component")??.path();
    let mut bytes = fs::read(&file)?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes)?;
    let again = Components::open(package.path(), aws_sdk_s3::Client::from_conf(shared.aws.s3()), "nowhere".to_owned())?;
    let damaged = shared.runtime.block_on(again.load(&digest, "alarm")).map(drop);
    ensure!(damaged.is_err(), "a damaged component was loaded");
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}
