//! A record of arrivals over time, for pictures.
//!
//! One record per packet, as CSV (a file name ending in `.csv`) or as 32-byte little-endian binary
//! (`<IIQQQ`: flow, class, seq, sent, received), or one CSV row per time bucket. Packets stand in
//! the order they were read; class is 0 in order, 1 reordered, 2 duplicate, 3 unclassified.

use crate::error::{Error, Result};
use crate::sequence::Arrival;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
struct Bucket {
    received: u64,
    reordered: u64,
    duplicated: u64,
    delay_min: u64,
    delay_max: u64,
    delay_sum: u128,
}

#[derive(Debug)]
enum Form {
    PacketsCsv,
    PacketsBinary,
    Buckets {
        width: u64,
        zero: Option<u64>,
        rows: BTreeMap<u64, Bucket>,
    },
}

/// Writes a timeline file.
#[derive(Debug)]
pub struct Timeline {
    path: PathBuf,
    out: BufWriter<File>,
    form: Form,
}

impl Timeline {
    /// Create the file. With `bucket` (ns) rows are per bucket, otherwise per packet.
    pub fn create(path: &Path, bucket: Option<u64>) -> Result<Timeline> {
        let file = File::create(path).map_err(|e| refused(path, e))?;
        let form = match bucket {
            Some(0) => {
                return Err(Error::Usage(
                    "a timeline's buckets must be longer than nothing".into(),
                ));
            }
            Some(width) => Form::Buckets {
                width,
                zero: None,
                rows: BTreeMap::new(),
            },
            None if path.extension().is_some_and(|e| e == "csv") => Form::PacketsCsv,
            None => Form::PacketsBinary,
        };
        let mut timeline = Timeline {
            path: path.into(),
            out: BufWriter::with_capacity(1 << 20, file),
            form,
        };
        match timeline.form {
            Form::PacketsCsv => timeline.line("flow,class,seq,sent_ns,received_ns")?,
            Form::Buckets { .. } => {
                timeline.line(
                    "at_ns,received,reordered,duplicated,delay_min_ns,delay_mean_ns,delay_max_ns",
                )?;
            }
            Form::PacketsBinary => {}
        }
        Ok(timeline)
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").map_err(|e| refused(&self.path, e))
    }

    /// Add one packet.
    pub fn record(
        &mut self,
        flow: u32,
        seq: u64,
        sent: u64,
        received: u64,
        arrival: Arrival,
    ) -> Result<()> {
        let class: u32 = match arrival {
            Arrival::InOrder => 0,
            Arrival::Reordered { .. } => 1,
            Arrival::Duplicate => 2,
            Arrival::Unclassified => 3,
        };
        match &mut self.form {
            Form::PacketsCsv => self.line(&format!("{flow},{class},{seq},{sent},{received}")),
            Form::PacketsBinary => {
                let mut record = [0u8; 32];
                record[0..4].copy_from_slice(&flow.to_le_bytes());
                record[4..8].copy_from_slice(&class.to_le_bytes());
                record[8..16].copy_from_slice(&seq.to_le_bytes());
                record[16..24].copy_from_slice(&sent.to_le_bytes());
                record[24..32].copy_from_slice(&received.to_le_bytes());
                self.out
                    .write_all(&record)
                    .map_err(|e| refused(&self.path, e))
            }
            Form::Buckets { width, zero, rows } => {
                let zero = *zero.get_or_insert(received);
                let delay = received.saturating_sub(sent);
                let row = rows
                    .entry(received.saturating_sub(zero) / *width)
                    .or_default();
                row.delay_min = if row.received == 0 {
                    delay
                } else {
                    row.delay_min.min(delay)
                };
                row.delay_max = row.delay_max.max(delay);
                row.delay_sum += u128::from(delay);
                row.received += 1;
                row.reordered += u64::from(class == 1);
                row.duplicated += u64::from(class == 2);
                Ok(())
            }
        }
    }

    /// Write what is still in memory.
    pub fn finish(mut self) -> Result<()> {
        if let Form::Buckets { width, rows, .. } = &mut self.form {
            let (width, rows) = (*width, std::mem::take(rows));
            for (index, row) in rows {
                let mean = row.delay_sum / u128::from(row.received);
                self.line(&format!(
                    "{},{},{},{},{},{mean},{}",
                    index * width,
                    row.received,
                    row.reordered,
                    row.duplicated,
                    row.delay_min,
                    row.delay_max
                ))?;
            }
        }
        self.out.flush().map_err(|e| refused(&self.path, e))
    }
}

fn refused(path: &Path, source: std::io::Error) -> Error {
    Error::system(
        format!("cannot write {}", path.display()),
        source,
        "check the directory and the space left",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_arrived_in_them() {
        let path = std::env::temp_dir().join(format!("ff-timeline-{}.csv", std::process::id()));
        let mut timeline = Timeline::create(&path, Some(1_000_000)).unwrap();
        timeline.record(0, 0, 900, 1_000, Arrival::InOrder).unwrap();
        timeline.record(0, 1, 900, 1_200, Arrival::InOrder).unwrap();
        timeline
            .record(0, 1, 900, 2_500_000, Arrival::Duplicate)
            .unwrap();
        timeline.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                "0,2,0,0,100,200,300",
                "2000000,1,0,1,2499100,2499100,2499100"
            ]
        );
    }
}
