//! Does what a host asks for over standard input and output.

use std::{collections::HashMap, io, sync::Arc, thread, time::Duration};

use tapeline_aws_protocol::{
    Answered, Asked, Hello, Request, VERSION,
    frame::{self, FrameError},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::Shared;

/// Requests that are not begun. A host has one under way in each session.
const WAITING_MAX: usize = 1_024;
/// What is under way when the host has ended may take so long.
const END_TIME_MAX: Duration = Duration::from_secs(60);

/// Answers requests until the host ends, and then finishes what is under way.
///
/// # Errors
/// When the host says something else, or does not listen any more.
pub async fn serve(shared: &Arc<Shared>) -> Result<(), FrameError> {
    frame::write(&mut io::stdout().lock(), &Hello { version: VERSION, refused: None })?;
    let (ask, mut asked) = mpsc::channel(WAITING_MAX);
    // Not a task: what waits for a pipe cannot be told to end, and would keep the program from it.
    thread::spawn(move || {
        loop {
            let next = frame::read::<Asked>(&mut io::stdin().lock()).transpose();
            let Some(next) = next else { return };
            let is_over = next.is_err();
            if ask.blocking_send(next).is_err() || is_over {
                return;
            }
        }
    });
    let (answer, mut answers) = mpsc::channel::<Answered>(WAITING_MAX);
    let mut sessions: HashMap<u64, mpsc::Sender<(u64, Request)>> = HashMap::new();
    let mut workers = JoinSet::new();
    loop {
        tokio::select! {
            Some(answered) = answers.recv() => frame::write(&mut io::stdout().lock(), &answered)?,
            Some(_) = workers.join_next() => {}
            next = asked.recv() => {
                let Some(Asked { id, session, partition, request }) = next.transpose()? else { break };
                let is_last = request == Request::Close;
                let worker = sessions.entry(session).or_insert_with(|| {
                    let (give, given) = mpsc::channel(WAITING_MAX);
                    workers.spawn(work(Arc::clone(shared), partition, given, answer.clone()));
                    give
                });
                // A worker ends only when it is let go here.
                let _ = worker.send((id, request)).await;
                if is_last {
                    sessions.remove(&session);
                }
            }
        }
    }
    drop((sessions, answer));
    // Nobody reads the answers; what was asked for is done all the same, or by whoever opens the partition next.
    let finish = async {
        while answers.recv().await.is_some() {}
        while workers.join_next().await.is_some() {}
    };
    let _ = tokio::time::timeout(END_TIME_MAX, finish).await;
    Ok(())
}

async fn work(
    shared: Arc<Shared>,
    partition: u32,
    mut given: mpsc::Receiver<(u64, Request)>,
    answer: mpsc::Sender<Answered>,
) {
    let mut partition = shared.partition(partition);
    while let Some((id, request)) = given.recv().await {
        let answered = Answered { id, answer: partition.answer(request).await };
        if answer.send(answered).await.is_err() {
            return;
        }
    }
}
