//! Recorded series: one value for each time, read from CSV.

use std::io::Read;

use csv::StringRecord;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use thiserror::Error;

/// The column of times, unless said otherwise; without it, the first one.
const TIMESTAMP: &str = "timestamp";

/// Why a series cannot be read. Lines are counted from 1; the first is the header.
#[derive(Debug, Error)]
pub enum SeriesError {
    /// The file is no CSV, or cannot be read.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// A row that has fewer or more fields than the header.
    #[error("expected {expected} fields, as in the header, found {found}")]
    Fields {
        /// Where.
        line: u64,
        /// Fields of the header.
        expected: usize,
        /// Fields of the row.
        found: usize,
    },
    /// It does not even have a header.
    #[error("expected a header that names the columns, found nothing")]
    Empty,
    /// A column that it does not have.
    #[error("there is no column {name:?}; there are {}", .there.join(", "))]
    NoColumn {
        /// The column that was asked for.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// A value that is no number.
    #[error("column {column:?}: expected a number, found {found:?}")]
    Value {
        /// Where.
        line: u64,
        /// The column.
        column: String,
        /// What stands there.
        found: String,
    },
    /// A time that is none.
    #[error(
        "column {column:?}: expected a time (2014-04-01 00:00:00, 2014-04-01T00:00:00Z or seconds since 1970), \
         found {found:?}"
    )]
    Time {
        /// Where.
        line: u64,
        /// The column.
        column: String,
        /// What stands there.
        found: String,
    },
    /// Times that do not ascend.
    #[error("{found} is before {before} of the row above; sort the rows by time")]
    Unsorted {
        /// Where.
        line: u64,
        /// The time of the row.
        found: String,
        /// The time of the row before.
        before: String,
    },
}

impl SeriesError {
    /// The line that is wrong.
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::Csv(error) => error.position().map(csv::Position::line),
            Self::Empty | Self::NoColumn { .. } => Some(1),
            Self::Fields { line, .. }
            | Self::Value { line, .. }
            | Self::Time { line, .. }
            | Self::Unsorted { line, .. } => Some(*line),
        }
    }
}

/// A row of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its time in seconds since 1970 UTC.
    pub at: f64,
    /// Its time as it was written.
    pub timestamp: String,
    /// Its value.
    pub value: f64,
    /// Its value as it was written.
    pub text: String,
}

/// Reads a series row by row.
pub struct Series<R> {
    reader: csv::Reader<R>,
    record: StringRecord,
    fields: usize,
    time: Column,
    value: Column,
    before: Option<(f64, String)>,
}

struct Column {
    index: usize,
    name: String,
}

impl<R: Read> Series<R> {
    /// Begins to read: the header. Without the name of the column of times it is `timestamp`, or else the first.
    pub fn new(input: R, value: &str, timestamp: Option<&str>) -> Result<Self, SeriesError> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(input);
        let header: Vec<String> = reader
            .headers()?
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').to_owned())
            .collect();
        if header.iter().all(String::is_empty) {
            return Err(SeriesError::Empty);
        }
        let find = |name: &str| {
            let index = header.iter().position(|column| column == name);
            index
                .map(|index| Column {
                    index,
                    name: name.to_owned(),
                })
                .ok_or_else(|| SeriesError::NoColumn {
                    name: name.to_owned(),
                    there: header.clone(),
                })
        };
        let time = match timestamp {
            Some(name) => find(name)?,
            None => find(TIMESTAMP).unwrap_or_else(|_| Column {
                index: 0,
                name: header[0].clone(),
            }),
        };
        let value = find(value)?;
        Ok(Self {
            reader,
            record: StringRecord::new(),
            fields: header.len(),
            time,
            value,
            before: None,
        })
    }

    fn row(&mut self) -> Result<Option<Row>, SeriesError> {
        if !self.reader.read_record(&mut self.record)? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        if self.record.len() != self.fields {
            return Err(SeriesError::Fields {
                line,
                expected: self.fields,
                found: self.record.len(),
            });
        }
        let text = |column: &Column| self.record.get(column.index).unwrap_or_default().to_owned();
        let (timestamp, value) = (text(&self.time), text(&self.value));
        let Some(at) = time(&timestamp) else {
            return Err(SeriesError::Time {
                line,
                column: self.time.name.clone(),
                found: timestamp,
            });
        };
        let Some(number) = value.parse().ok().filter(|number: &f64| number.is_finite()) else {
            return Err(SeriesError::Value {
                line,
                column: self.value.name.clone(),
                found: value,
            });
        };
        if let Some((before, text)) = self.before.replace((at, timestamp.clone()))
            && before > at
        {
            return Err(SeriesError::Unsorted {
                line,
                found: timestamp,
                before: text,
            });
        }
        Ok(Some(Row {
            at,
            timestamp,
            value: number,
            text: value,
        }))
    }
}

impl<R: Read> Iterator for Series<R> {
    type Item = Result<Row, SeriesError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.row().transpose()
    }
}

/// A time: RFC 3339, the same without an offset (UTC, with a space or a T), or seconds since 1970.
pub fn time(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some(seconds);
    }
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| {
        let civil = text.parse::<DateTime>().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(timestamp.as_duration().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, value: &str, timestamp: Option<&str>) -> Result<Vec<Row>, SeriesError> {
        Series::new(text.as_bytes(), value, timestamp)?.collect()
    }

    fn complaint(text: &str) -> String {
        match read(text, "value", None) {
            Ok(rows) => panic!("{rows:?}"),
            Err(error) => format!("{}: {error}", error.line().unwrap_or(0)),
        }
    }

    #[test]
    fn every_form_of_time_is_the_same_moment() {
        for text in [
            "1396310400",
            "1396310400.0",
            "2014-04-01 00:00:00",
            "2014-04-01 00:00:00.000000",
            "2014-04-01T00:00:00",
            "2014-04-01T00:00:00Z",
            "2014-04-01T02:00:00+02:00",
        ] {
            assert_eq!(time(text), Some(1_396_310_400.0), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2014-13-01 00:00:00",
            "nan",
            "inf",
            "2014-04-01 25:00:00",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn columns_are_found_by_name() {
        let rows = read("a,when,n\nx,10,1.5\ny,20,-2\n", "n", Some("when")).unwrap();
        assert_eq!(
            rows.iter().map(|row| (row.at, row.value)).collect::<Vec<_>>(),
            [(10.0, 1.5), (20.0, -2.0)]
        );
        // Without a name: `timestamp`, wherever it stands, else the first column.
        assert!((read("value,timestamp\n1,5\n", "value", None).unwrap()[0].at - 5.0).abs() < 1e-9);
        let marked = read("\u{feff}period,value\n5,1\n", "value", None).unwrap();
        assert!((marked[0].at - 5.0).abs() < 1e-9);
        assert!(read("timestamp,value\n", "value", None).unwrap().is_empty());
    }

    #[test]
    fn faults_are_told_with_their_line() {
        assert_eq!(
            complaint(""),
            "1: expected a header that names the columns, found nothing"
        );
        assert_eq!(
            complaint("timestamp,count\n1,2\n"),
            "1: there is no column \"value\"; there are timestamp, count"
        );
        assert_eq!(
            complaint("timestamp,value\n1,2\n2,many\n"),
            "3: column \"value\": expected a number, found \"many\""
        );
        assert!(complaint("timestamp,value\n1,NaN\n").starts_with("2: column \"value\""));
        assert!(
            complaint("timestamp,value\nsoon,2\n").starts_with("2: column \"timestamp\": expected a time")
        );
        assert_eq!(
            complaint("timestamp,value\n2,1\n2,1\n1,1\n"),
            "4: 1 is before 2 of the row above; sort the rows by time"
        );
        assert_eq!(
            complaint("timestamp,value\n1,2\n3\n"),
            "3: expected 2 fields, as in the header, found 1"
        );
    }
}
