//! The process that keeps the store of a host: what it commits to a stack of stores alone is what people read with `--aws`.

use std::{
    io::BufReader,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use crate::operate::run;
use anyhow::{Context as _, Result, ensure};
use tapeline_aws_protocol::{Answer, Answered, Asked, Commit, Counted, Hello, RefusalKind, Request, VERSION, frame};
use tapeline_aws_tests::{operator, stack::Stack, stored};
use tapeline_invoke::{
    Counts,
    contract::{Append, Cells, Column, Rows, Texts, TimeUnit},
};

/// When the row was traded, s since the epoch.
const TIME: i64 = 1_723_075_200;

/// The process of a store.
struct Keeper {
    process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Keeper {
    fn start(stack: &Stack, pipeline: &str) -> Result<Self> {
        let words = ["store", &stack.name, "--pipeline", pipeline, "--stages", "write", "--partitions", "2"];
        let mut command = operator::command(&stack.account.aws.endpoint(), &words);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = (process.stdin.take(), process.stdout.take().context("its output")?);
        Ok(Self { process, to, from: BufReader::new(from) })
    }

    fn hello(&mut self) -> Result<Hello> {
        frame::read(&mut self.from)?.context("it says nothing")
    }

    fn ask(&mut self, id: u64, request: Request) -> Result<Answer> {
        frame::write(self.to.as_mut().context("its input")?, &Asked { id, session: 1, partition: 1, request })?;
        let answered: Answered = frame::read(&mut self.from)?.context("it answers nothing")?;
        ensure!(answered.id == id, "{answered:?}");
        Ok(answered.answer)
    }

    /// Lets it end, as it does when its host does.
    fn end(mut self) -> Result<()> {
        self.to = None;
        let status = self.process.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

fn commit(number: u8) -> Commit {
    let texts = |text: &str| Cells::Texts(Texts { ends: vec![text.len() as u32], bytes: text.as_bytes().to_vec() });
    let column = |name: &str, cells| Column { name: name.to_owned(), cells };
    let columns = vec![
        column("symbol", texts("A")),
        column("time", Cells::Times((vec![(TIME + i64::from(number)) * 1_000_000_000], TimeUnit::Seconds))),
        column("price", Cells::Numbers(vec![1.5])),
    ];
    let append = Append { path: "a/b.csv".to_owned(), header: b"price\n".to_vec(), bytes: b"1.5\n".to_vec() };
    Commit {
        progress: vec![number],
        rows: vec![Rows { table: "trades".to_owned(), key_columns: 2, columns }],
        appends: vec![append],
        ledger: vec![Counted {
            stage: "write".to_owned(),
            symbol: "A".to_owned(),
            day: Some(19_943),
            counts: Counts { entered: 2, out: 1, dead: 1, ..Counts::default() },
        }],
        // Two of one stage: each has a place of its own.
        aside: vec![
            ("write".to_owned(), r#"{"fate":"dead","reason":"why","record":"1","format":"events"}"#.to_owned()),
            ("write".to_owned(), r#"{"fate":"late","reason":"why","record":"2","format":"events"}"#.to_owned()),
        ],
        ..Commit::default()
    }
}

/// Commits as two hosts of a pipeline do, one of which takes over from the other.
pub(crate) fn what_hosts_commit_is_read(stack: &Stack, pipeline: &str) -> Result<()> {
    let mut keeper = Keeper::start(stack, pipeline)?;
    ensure!(keeper.hello()? == Hello { version: VERSION, refused: None }, "it is refused");
    let nothing = Answer::Committed { progress: None, state: Vec::new() };
    ensure!(keeper.ask(1, Request::Open)? == nothing, "there is something");
    for number in 1..=3 {
        let done = keeper.ask(u64::from(number), Request::Commit(Box::new(commit(number))))?;
        ensure!(done == Answer::Done, "{done:?}");
    }
    // What cannot be stored is refused before anything has happened, and the next one is taken.
    let mut unfit = commit(4);
    unfit.appends[0].path = "raw/b.csv".to_owned();
    let refused = keeper.ask(5, Request::Commit(Box::new(unfit)))?;
    ensure!(matches!(&refused, Answer::Refused(refusal) if refusal.kind == RefusalKind::Invalid), "{refused:?}");
    ensure!(keeper.ask(6, Request::IsCurrent)? == Answer::Current(true), "somebody has committed");
    let mut other = Keeper::start(stack, pipeline)?;
    other.hello()?;
    let committed = other.ask(1, Request::Open)?;
    ensure!(
        matches!(&committed, Answer::Committed { progress: Some(progress), .. } if *progress == [3]),
        "{committed:?}"
    );
    ensure!(other.ask(2, Request::Commit(Box::new(commit(4))))? == Answer::Done, "it is not done");
    ensure!(keeper.ask(7, Request::IsCurrent)? == Answer::Current(false), "it does not see the other one");
    let late = keeper.ask(8, Request::Commit(Box::new(commit(5))))?;
    ensure!(matches!(&late, Answer::Refused(refusal) if refusal.kind == RefusalKind::Conflict), "{late:?}");
    other.end()?;
    keeper.end()?;

    let said = |words: &[&str]| {
        let run = run(stack, words)?;
        ensure!(run.code == 0, "{run:?}");
        anyhow::Ok(run.said)
    };
    let rows = said(&["rows", &stack.name, "trades", "--symbol", "A"])?;
    ensure!(rows.lines().count() == 4 && rows.contains("2024-08-08T00:00:04Z"), "{rows}");
    let ledger = said(&["ledger", &stack.name])?;
    ensure!(ledger.contains("\"day\":\"2024-08-08\"") && ledger.contains("\"entered\":8"), "{ledger}");
    let letters = stored::dead_letters(stack)?;
    let formats: Vec<_> = letters.iter().filter_map(|letter| letter.get("format")).collect();
    ensure!(formats == ["events"; 8], "{letters:?}");
    ensure!(stored::objects(stack)?.values().eq([b"price\n1.5\n1.5\n1.5\n1.5\n"]), "{:?}", stored::objects(stack)?);

    let refused = Keeper::start(stack, "another")?.hello()?.refused.context("it is of another pipeline")?;
    ensure!(refused.message.contains(&format!("of pipeline {pipeline}, not of another")), "{refused:?}");
    Ok(())
}
