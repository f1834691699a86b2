//! `weir detect`: the volume axis over a recorded series. Needs neither a controller nor rights.

use std::{
    fs::File,
    io::{self, Read},
    process::ExitCode,
};

use gateway_detect::volume::{Recorded, Scored};
use jiff::Timestamp;
use serde::Serialize;
use weir::{
    api::types::{SCHEMA, code},
    series::{Row, Series, SeriesError},
};

use super::{
    Context,
    args::FileOrInput,
    output::{Failure, print_json},
};

/// Score how unusual each value of a recorded series is
///
/// Runs the detector of the volume over it, row by row: a value is scored by what came before it, then learned. Writes
/// timestamp,value,score. The score is s/(s+3), with s = -log10 of how often normal values go that far, up or down: 0.5 is
/// once in a thousand rows, 0.67 once in a million; it is 0 while the last hours had something more unusual. The first
/// hundred rows score 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "\\
Examples:
  weir detect --csv requests.csv --column count                   scores on standard output
  weir detect --csv cpu.csv --column value --timestamp time --json
  tail -n +1 -f live.csv | weir detect --csv - --column value      row by row, as they come

Times are 2014-04-01 00:00:00 (UTC), RFC 3339, or seconds since 1970, in ascending order.")]
pub(crate) struct Args {
    /// The series: CSV with a header; - reads standard input
    #[arg(long, value_name = "FILE")]
    csv: FileOrInput,
    /// The column of the values
    #[arg(long, value_name = "NAME")]
    column: String,
    /// The column of the times [default: timestamp, or the first column]
    #[arg(long, value_name = "NAME")]
    timestamp: Option<String>,
}

/// A row of the answer.
#[derive(Debug, Serialize)]
struct Answered {
    timestamp: String,
    value: f64,
    score: f64,
    exceedance: f64,
    expected: f64,
    deviation: f64,
    ramp: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: u32,
    column: String,
    rows: Vec<Answered>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    match &args.csv {
        FileOrInput::Input => detect(io::stdin().lock(), "standard input", args, context),
        FileOrInput::File(path) => {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| {
                Failure::new(code::INVALID_REQUEST, format!("cannot read {name}: {error}"))
            })?;
            detect(file, &name, args, context)
        }
    }
}

fn detect(input: impl Read, name: &str, args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let wrong = |error: SeriesError| fault(&error, name);
    let rows = Series::new(input, &args.column, args.timestamp.as_deref()).map_err(wrong)?;
    let mut recorded = Recorded::default();
    let mut scored = rows.map(|row| {
        let row = row.map_err(wrong)?;
        let (scored, score) = recorded.look(row.at, row.value);
        Ok((row, scored, score))
    });
    if context.json {
        let rows = scored
            .map(|row| row.map(|(row, scored, score)| Answered::new(&row, scored, score)))
            .collect::<Result<_, Failure>>()?;
        let answer = Answer {
            schema: SCHEMA,
            column: args.column.clone(),
            rows,
        };
        return print_json(&answer).map(|()| ExitCode::SUCCESS);
    }
    // What comes through a pipe may come slowly: each row is answered at once.
    let at_once = args.csv == FileOrInput::Input;
    match write(&mut scored, at_once) {
        Ok(None) => Ok(ExitCode::SUCCESS),
        Ok(Some(failure)) => Err(failure),
        // A reader that has gone away is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(
            code::INTERNAL,
            format!("cannot write to standard output: {error}"),
        )),
    }
}

/// Writes rows until they end or one is wrong, which is returned.
fn write(
    rows: &mut dyn Iterator<Item = Result<(Row, Scored, f64), Failure>>,
    at_once: bool,
) -> io::Result<Option<Failure>> {
    let mut output = csv::Writer::from_writer(io::stdout().lock());
    output.write_record(["timestamp", "value", "score"])?;
    for row in rows {
        match row {
            Ok((row, _, score)) => {
                output.write_record([row.timestamp.as_str(), row.text.as_str(), &format!("{score:.6}")])?;
            }
            Err(failure) => {
                output.flush()?;
                return Ok(Some(failure));
            }
        }
        if at_once {
            output.flush()?;
        }
    }
    output.flush()?;
    Ok(None)
}

/// What is wrong with the file, as `file:line: what`.
fn fault(error: &SeriesError, name: &str) -> Failure {
    let place = error.line().map_or(String::new(), |line| format!(":{line}"));
    let failure = Failure::new(code::INVALID_REQUEST, format!("{name}{place}: {error}"));
    match error {
        SeriesError::NoColumn { .. } => {
            failure.hint("--column names the values, --timestamp the times, as the header does")
        }
        SeriesError::Unsorted { .. } => {
            failure.hint("sort the rows by time: what came later must not be used earlier")
        }
        SeriesError::Value { .. } => failure.hint("leave rows without a value out"),
        SeriesError::Csv(_) | SeriesError::Fields { .. } | SeriesError::Empty | SeriesError::Time { .. } => {
            failure
        }
    }
}

impl Answered {
    fn new(row: &Row, scored: Scored, score: f64) -> Self {
        let timestamp = Timestamp::from_nanosecond((row.at * 1e9) as i128)
            .map_or_else(|_| row.timestamp.clone(), |time| time.to_string());
        Self {
            timestamp,
            value: row.value,
            score,
            exceedance: scored.exceedance,
            expected: scored.expected,
            deviation: scored.deviation,
            ramp: scored.ramp,
        }
    }
}
