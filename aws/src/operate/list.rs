//! What each stage is pointed to, and whether its partitions run that.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tapeline_state::{Scope, StateError};

use super::{Account, OperateError, Pointer, Segment, Stack};
use crate::{
    dynamo::DynamoBucket,
    position::{Position, Runs},
};

/// Requests under way.
const REQUESTS_MAX: usize = 16;

/// A stage, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is pointed.
    pub pointer: Pointer,
    /// Components that were taken back, since they failed on what the one before took.
    pub refused: Vec<Refused>,
}

/// A component that some partitions do not run any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its digest.
    pub digest: String,
    /// The partitions.
    pub partitions: Vec<u32>,
}

/// Looks at all stages of a stack, in the order of the data. Nothing is changed.
///
/// # Errors
/// When a service does not answer.
pub async fn list(account: &Account, stack: &Stack) -> Result<Vec<Listed>, OperateError> {
    let stages = stack.segments.iter().flat_map(|segment| segment.stages.iter().map(move |stage| (segment, stage)));
    let runs = stream::iter(stack.segments.iter().map(|segment| runs(account, stack, segment)));
    let runs: Vec<Vec<Position>> = runs.buffered(1).try_collect().await?;
    let pointers = stream::iter(stages.clone().map(|(_, stage)| Pointer::read(account, stack, stage)));
    let pointers: Vec<Pointer> = pointers.buffered(REQUESTS_MAX).try_collect().await?;
    let positions =
        stack.segments.iter().zip(&runs).flat_map(|(segment, runs)| segment.stages.iter().map(move |_| runs));
    Ok(pointers
        .into_iter()
        .zip(positions)
        .map(|(pointer, positions)| Listed { refused: refused(&pointer.stage, positions), pointer })
        .collect())
}

/// How far the partitions of a function have come.
async fn runs(account: &Account, stack: &Stack, segment: &Segment) -> Result<Vec<Position>, OperateError> {
    let bucket = DynamoBucket::new(account.dynamodb.clone(), stack.state_table.clone());
    let first = segment.stages.first().map(String::as_str).unwrap_or_default();
    let read = |partition| {
        let scope: Scope<'_, DynamoBucket, Position> = Scope::of_segment(&bucket, &stack.pipeline, first, partition);
        async move { scope.begin().await.map(|root| root.meta) }
    };
    let positions = stream::iter((0..stack.partitions).map(read)).buffered(REQUESTS_MAX).try_collect().await;
    positions.map_err(|error: StateError| {
        OperateError::service(
            format!("read the state of {} in table {}", segment.name(), stack.state_table),
            error.to_string(),
        )
    })
}

fn refused(stage: &str, positions: &[Position]) -> Vec<Refused> {
    let mut refused: Vec<Refused> = Vec::new();
    for (partition, position) in (0..).zip(positions) {
        let Some(Runs { refused: Some(digest), .. }) = position.runs.get(stage) else { continue };
        match refused.iter_mut().find(|known| known.digest == *digest) {
            Some(known) => known.partitions.push(partition),
            None => refused.push(Refused { digest: digest.clone(), partitions: vec![partition] }),
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_refuse_the_same_are_told_together() {
        let position = |refused: Option<&str>| {
            let runs = Runs { refused: refused.map(str::to_owned), ..Runs::default() };
            Position { runs: [("alarm".to_owned(), runs)].into(), ..Position::default() }
        };
        let positions =
            [position(Some("a")), position(None), Position::default(), position(Some("b")), position(Some("a"))];
        let told =
            |digest: &str, partitions: &[u32]| Refused { digest: digest.to_owned(), partitions: partitions.to_vec() };
        assert_eq!(refused("alarm", &positions), [told("a", &[0, 4]), told("b", &[3])]);
        assert!(refused("dedup", &positions).is_empty());
    }
}
