//! What AWS asks for a million events: what was counted, times its prices.

use std::collections::BTreeMap;

use super::phases::Phase;

/// Prices in US dollars, us-east-1, as AWS lists them (November 2026), without what is free in an account.
mod price {
    /// A call, <https://aws.amazon.com/lambda/pricing/>.
    pub(super) const CALL: f64 = 0.20 / MILLION;
    /// A second with a GB on x86_64, the same page,
    pub(super) const GB_SECOND: f64 = 0.000_016_666_7;
    /// and on arm64.
    pub(super) const GB_SECOND_ARM64: f64 = 0.000_013_333_4;
    /// A request to a FIFO queue, <https://aws.amazon.com/sqs/pricing/>.
    pub(super) const QUEUE_REQUEST: f64 = 0.50 / MILLION;
    /// A read unit on demand, <https://aws.amazon.com/dynamodb/pricing/on-demand/>,
    pub(super) const READ_UNIT: f64 = 0.125 / MILLION;
    /// and a write unit.
    pub(super) const WRITE_UNIT: f64 = 0.625 / MILLION;
    /// Putting an object, <https://aws.amazon.com/s3/pricing/>,
    pub(super) const PUT: f64 = 5.00 / MILLION;
    /// and getting one.
    pub(super) const GET: f64 = 0.40 / MILLION;
    /// A step of 512 KB of a request, <https://aws.amazon.com/api-gateway/pricing/>.
    pub(super) const HTTP_STEP: f64 = 1.00 / MILLION;
    /// A GB of logs, <https://aws.amazon.com/cloudwatch/pricing/>,
    pub(super) const LOG_GB: f64 = 0.50;
    /// and a metric for a month, by the hour.
    pub(super) const METRIC: f64 = 0.30;
    /// A message to a topic, <https://aws.amazon.com/sns/pricing/>,
    pub(super) const TOLD: f64 = 0.50 / MILLION;
    /// and the use of its key, <https://aws.amazon.com/kms/pricing/>.
    pub(super) const KEY_USE: f64 = 3.00 / MILLION;
    /// A call by a schedule, <https://aws.amazon.com/eventbridge/pricing/>.
    pub(super) const SCHEDULED: f64 = 1.00 / MILLION;
    const MILLION: f64 = 1e6;
}

/// Memory of a function, by default, MB and GB.
pub const MEMORY_MB: f64 = 512.0;
const MEMORY_GB: f64 = 0.5;
/// With so much memory a function has one processor, with less a part of it
/// (<https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>).
pub const MEMORY_MB_OF_A_PROCESSOR: f64 = 1_769.0;
/// KB that the API logs of a request.
const ACCESS_LOG_KB: f64 = 0.4;
const HOURS_A_MONTH: f64 = 730.0;
/// As in what is paid at rest.
const MINUTES_A_MONTH: f64 = 43_800.0;
/// What the tables are about.
const EVENTS: f64 = 1e6;

/// What the costs depend on, for a million events: by its letter, what it is, and decimals that it is written with.
pub const INPUTS: [(char, &str, usize); 15] = [
    ('H', "requests over HTTP", 0),
    ('s', "steps of 512 KB in a request, rounded up", 2),
    ('M', "messages, all hops", 0),
    ('k', "chunks of 64 KB in a message, rounded up", 2),
    ('B', "messages a call, 1 to 10", 1),
    ('t', "milliseconds of a message in its function", 1),
    ('h', "milliseconds of a request in the first function", 1),
    ('r', "read units of state a message; 4 KB, strongly consistent, are 1", 1),
    ('w', "write units of state a message; 1 KB is 1", 1),
    ('R', "write units of rows and dead letters", 0),
    ('L', "write units of the ledger: a symbol and day of a stage in a message is 1", 0),
    ('P', "objects put: records as they came, parts of files", 0),
    ('l', "KB of log a call, with the lines of Lambda", 2),
    ('A', "messages to the topic, with all alarms that come at once", 0),
    ('d', "hours: an event a second, or a thousand", 0),
];

/// Values of [`INPUTS`], as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs(BTreeMap<char, f64>);

impl Inputs {
    /// Of events that were counted, of which so many come in a second.
    pub fn of(phase: &Phase, events_per_second: f64) -> Self {
        let (events, messages) = (phase.events as f64, phase.taken.messages as f64);
        let (requests, calls) = (phase.requests.count as f64, phase.taken.calls.count as f64);
        let million = EVENTS / events;
        let value = |letter| match letter {
            'H' => requests * million,
            's' => phase.steps as f64 / requests,
            'M' => messages * million,
            'k' => phase.taken.chunks as f64 / messages,
            'B' => messages / calls,
            't' => phase.taken.calls.lambda_ms as f64 / messages,
            'h' => phase.requests.lambda_ms as f64 / requests,
            'r' => phase.state.read as f64 / messages,
            'w' => phase.state.written as f64 / messages,
            'R' => phase.rows.written as f64 * million,
            'L' => phase.ledger.written as f64 * million,
            'P' => phase.counted.objects_put as f64 * million,
            'l' => phase.log_bytes as f64 / 1e3 / (requests + calls),
            'A' => phase.counted.told_chunks as f64 * million,
            _ => (EVENTS / events_per_second / 3_600.0).ceil(),
        };
        Self(INPUTS.into_iter().map(|(letter, _, decimals)| (letter, rounded(value(letter), decimals))).collect())
    }

    /// Of what is written.
    pub fn set(&mut self, letter: char, value: f64) {
        self.0.insert(letter, value);
    }

    /// The value of a letter.
    pub fn get(&self, letter: char) -> f64 {
        self.0.get(&letter).copied().unwrap_or(f64::NAN)
    }
}

/// What is paid for.
pub struct Line {
    /// The service.
    pub name: &'static str,
    /// How much of it.
    pub amount: &'static str,
    /// For how much.
    pub price: &'static str,
    dollars: fn(&dyn Fn(char) -> f64) -> f64,
    /// It comes in the place of another one.
    pub is_instead: bool,
}

impl Line {
    const fn new(
        name: &'static str,
        amount: &'static str,
        price: &'static str,
        dollars: fn(&dyn Fn(char) -> f64) -> f64,
    ) -> Self {
        Self { name, amount, price, dollars, is_instead: false }
    }

    /// Dollars for a million events.
    pub fn dollars(&self, inputs: &Inputs) -> f64 {
        (self.dollars)(&|letter| inputs.get(letter))
    }
}

/// All that is paid for.
pub const LINES: [Line; 14] = [
    Line::new("Lambda, calls", "M / B + H", "$0.20/M", |of| (of('M') / of('B') + of('H')) * price::CALL),
    Line::new("Lambda, time, x86_64", "(M × t + H × h) / 1000 × 0.5 GB, in GB-s", "$0.0000166667", |of| {
        gb_seconds(of) * price::GB_SECOND
    }),
    Line {
        is_instead: true,
        ..Line::new("(arm64 instead)", "the same", "$0.0000133334", |of| gb_seconds(of) * price::GB_SECOND_ARM64)
    },
    Line::new("SQS FIFO", "M × (k sent + k received + 1 / B deleted)", "$0.50/M", |of| {
        of('M') * (2.0 * of('k') + 1.0 / of('B')) * price::QUEUE_REQUEST
    }),
    Line::new("DynamoDB, state read", "M × r", "$0.125/M", |of| of('M') * of('r') * price::READ_UNIT),
    Line::new("DynamoDB, state written", "M × w", "$0.625/M", |of| of('M') * of('w') * price::WRITE_UNIT),
    Line::new("DynamoDB, rows", "R", "$0.625/M", |of| of('R') * price::WRITE_UNIT),
    Line::new("DynamoDB, ledger", "L", "$0.625/M", |of| of('L') * price::WRITE_UNIT),
    Line::new("S3, objects put", "P", "$5.00/M", |of| of('P') * price::PUT),
    Line::new("S3, which component is current", "M / B", "$0.40/M", |of| of('M') / of('B') * price::GET),
    Line::new("HTTP API", "H × s", "$1.00/M", |of| of('H') * of('s') * price::HTTP_STEP),
    Line::new("CloudWatch, logs", "((M / B + H) × l + H × 0.4 KB) / 1,000,000, in GB", "$0.50", |of| {
        ((of('M') / of('B') + of('H')) * of('l') + of('H') * ACCESS_LOG_KB) / 1e6 * price::LOG_GB
    }),
    Line::new("CloudWatch, the lag as a metric", "d / 730", "$0.30", |of| of('d') / HOURS_A_MONTH * price::METRIC),
    Line::new("SNS and its key", "A", "$0.50/M + $3.00/M", |of| of('A') * (price::TOLD + price::KEY_USE)),
];

fn gb_seconds(of: &dyn Fn(char) -> f64) -> f64 {
    (of('M') * of('t') + of('H') * of('h')) / 1e3 * MEMORY_GB
}

/// Dollars for a million events, all together.
pub fn sum(inputs: &Inputs) -> f64 {
    LINES.iter().filter(|line| !line.is_instead).map(|line| line.dollars(inputs)).sum()
}

/// Dollars a month for a schedule of a minute, with ms and read units of a call.
pub fn of_schedule(ms: f64, read_units: f64) -> f64 {
    let time = ms / 1e3 * MEMORY_GB * price::GB_SECOND;
    MINUTES_A_MONTH * (price::SCHEDULED + price::CALL + time + read_units * price::READ_UNIT)
}

/// A number as it is written with so many decimals.
pub fn rounded(value: f64, decimals: usize) -> f64 {
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_what_their_formulas_say() {
        let mut inputs = Inputs::default();
        let values = [
            ('H', 1e6),
            ('s', 1.0),
            ('M', 6e6),
            ('k', 1.0),
            ('B', 2.0),
            ('t', 10.0),
            ('h', 5.0),
            ('r', 2.0),
            ('w', 4.0),
            ('R', 5e6),
            ('L', 4e6),
            ('P', 1e6),
            ('l', 0.5),
            ('A', 1e3),
            ('d', 73.0),
        ];
        values.into_iter().for_each(|(letter, value)| inputs.set(letter, value));
        let expected =
            [0.80, 0.541_667_75, 0.433_335_5, 7.50, 1.50, 15.0, 3.125, 2.5, 5.0, 1.20, 1.0, 1.20, 0.03, 0.003_5];
        for (line, expected) in LINES.iter().zip(expected) {
            let dollars = line.dollars(&inputs);
            assert!((dollars - expected).abs() < 1e-6, "{}: {dollars} instead of {expected}", line.name);
        }
        let all: f64 = expected.iter().sum::<f64>() - 0.433_335_5;
        assert!((sum(&inputs) - all).abs() < 1e-6);
        assert!((of_schedule(10.0, 2.0) - 0.067_16).abs() < 1e-5, "{}", of_schedule(10.0, 2.0));
    }
}
