//! `weir detect`: the volume axis over a recorded series. Needs neither a controller nor rights.

use std::{
    fs::File,
    io::{self, BufWriter, LineWriter, Read, Write},
    process::ExitCode,
};

use gateway_detect::volume::{Recorded, Scored};
use jiff::Timestamp;
use serde::Serialize;
use weir::{
    api::types::{SCHEMA, code},
    series::{Row, Series, SeriesError},
};

use super::{Context, args::FileOrInput, output::Failure};

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
    let stdout = io::stdout().lock();
    match &args.csv {
        // What comes through a pipe may come slowly: each row is answered at once.
        FileOrInput::Input => detect(
            io::stdin().lock(),
            "standard input",
            args,
            context,
            LineWriter::new(stdout),
        ),
        FileOrInput::File(path) => {
            let name = path.display().to_string();
            let file = File::open(path)
                .map_err(|error| Failure::new(code::NOT_FOUND, format!("cannot read {name}: {error}")))?;
            detect(file, &name, args, context, BufWriter::new(stdout))
        }
    }
}

fn detect(
    input: impl Read,
    name: &str,
    args: &Args,
    context: &Context,
    mut output: impl Write,
) -> Result<ExitCode, Failure> {
    let wrong = |error: SeriesError| fault(&error, name);
    let rows = Series::new(input, &args.column, args.timestamp.as_deref()).map_err(wrong)?;
    let mut recorded = Recorded::default();
    let mut scored = rows.map(|row| {
        let row = row.map_err(wrong)?;
        let (scored, score) = recorded.look(row.at, row.value);
        Ok((row, scored, score))
    });
    let written = if context.json {
        let rows = scored
            .map(|row| row.map(|(row, scored, score)| Answered::new(&row, scored, score)))
            .collect::<Result<_, Failure>>()?;
        let answer = Answer {
            schema: SCHEMA,
            column: args.column.clone(),
            rows,
        };
        serde_json::to_writer(&mut output, &answer)
            .map_err(io::Error::from)
            .and_then(|()| output.write_all(b"\n"))
            .and_then(|()| output.flush())
            .map(|()| None)
    } else {
        write(&mut scored, &mut output)
    };
    match written {
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
    output: &mut dyn Write,
) -> io::Result<Option<Failure>> {
    writeln!(output, "timestamp,value,score")?;
    let mut failed = None;
    for row in rows {
        match row {
            // As they were read; a number has no comma, a time may have one before its fraction.
            Ok((row, _, score)) if row.timestamp.contains(',') => {
                writeln!(output, "\"{}\",{},{score:.6}", row.timestamp, row.text)?;
            }
            Ok((row, _, score)) => writeln!(output, "{},{},{score:.6}", row.timestamp, row.text)?,
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    output.flush()?;
    Ok(failed)
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

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn run_on(input: &str, json: bool) -> Result<String, Failure> {
        let args = Args {
            csv: FileOrInput::Input,
            column: "value".to_owned(),
            timestamp: None,
        };
        let context = Context {
            socket: "/nowhere".into(),
            bpffs: "/nowhere".into(),
            json,
        };
        let mut output = Vec::new();
        detect(input.as_bytes(), "series.csv", &args, &context, &mut output)
            .map(|_| String::from_utf8(output).unwrap())
    }

    /// A series of a week at five-minute steps with a surge in a row, and that row.
    fn series() -> (String, usize) {
        let mut text = String::from("timestamp,value\n");
        for row in 0..2016_u32 {
            let wave = 100.0 + 50.0 * (f64::from(row % 288) / 288.0 * std::f64::consts::TAU).sin();
            // Noise that is the same everywhere.
            let noise = f64::from(row.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
            let surge = if row == 1800 { 5.0 } else { 1.0 };
            let _ = writeln!(
                text,
                "{},{:.3}",
                1_700_000_000 + row * 300,
                surge * (wave + 10.0 * noise)
            );
        }
        (text, 1800)
    }

    #[test]
    fn every_row_is_answered_and_the_surge_scores_highest() {
        let (text, surge) = series();
        let answer = run_on(&text, false).unwrap();
        let lines: Vec<&str> = answer.lines().collect();
        assert_eq!(lines[0], "timestamp,value,score");
        assert_eq!(lines.len(), 1 + 2016);
        let score = |line: &str| line.rsplit(',').next().unwrap().parse::<f64>().unwrap();
        let highest = (1..lines.len()).max_by(|&a, &b| score(lines[a]).total_cmp(&score(lines[b])));
        assert_eq!(highest, Some(surge + 1));
        assert!(lines[1].ends_with(",0.000000"), "{}", lines[1]);
        // Times and values stand there as they were written.
        for (read, written) in text.lines().zip(&lines).skip(1) {
            assert!(written.starts_with(&format!("{read},")), "{read} {written}");
        }
    }

    #[test]
    fn json_is_one_object() {
        let answer = run_on("timestamp,value\n2014-04-01 00:00:00,20\n", true).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["schema"], 1);
        assert_eq!(answer["rows"][0]["timestamp"], "2014-04-01T00:00:00Z");
        assert_eq!(answer["rows"][0]["value"], 20.0);
        assert_eq!(answer["rows"][0]["score"], 0.0);
    }

    #[test]
    fn faults_name_file_and_line() {
        let failure = run_on("timestamp,value\n1,2\n2,x\n", false).unwrap_err();
        assert_eq!(
            failure.message(),
            "series.csv:3: column \"value\": expected a number, found \"x\""
        );
        assert_eq!(failure.exit_code(), 2);
        let failure = run_on("timestamp,count\n1,2\n", false).unwrap_err();
        assert_eq!(
            failure.message(),
            "series.csv:1: there is no column \"value\"; there are timestamp, count"
        );
        let failure = run_on("timestamp,value\n2,2\n1,2\n", true).unwrap_err();
        assert!(failure.message().starts_with("series.csv:3: 1 is before 2"));
    }
}
