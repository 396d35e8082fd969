//! A record of every frame a function handled: proof that it saw each packet once.
//!
//! 32 bytes per record, little-endian `<QQIIIBBH`: time (CLOCK_MONOTONIC, ns), sequence number or
//! digest, flow, run, frame length, side (0 a, 1 b), kind (0 no probe packet, 1 data, 2 reply, 3
//! greeting or END), 0.

use crate::fault::Side;
use crate::frame::{Vnet, digest, probe_headers};
use flowferry_probe::error::{Error, Result};
use flowferry_probe::packet::Kind;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Length of a record in bytes.
pub const RECORD: usize = 32;

/// Writes the records of both directions to one file.
pub struct SeenFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl SeenFile {
    /// Create the file.
    pub fn create(path: &Path) -> Result<SeenFile> {
        let file = File::create(path).map_err(|e| refused(path, e))?;
        Ok(SeenFile {
            path: path.into(),
            out: BufWriter::with_capacity(1 << 20, file),
        })
    }

    /// Record a frame that came in `at` that time on `side`: one record per probe packet in it, or one.
    pub fn record(&mut self, at: u64, side: Side, vnet: &Vnet, frame: &[u8]) -> Result<()> {
        let mut any = false;
        for header in probe_headers(frame, vnet) {
            let kind = match header.kind {
                Kind::Data => 1,
                Kind::Reply => 2,
                _ => 3,
            };
            self.write(
                at,
                header.seq,
                header.flow,
                header.run,
                frame.len(),
                side,
                kind,
            )?;
            any = true;
        }
        if !any {
            self.write(at, digest(frame), 0, 0, frame.len(), side, 0)?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the fields of one record, in order
    fn write(
        &mut self,
        at: u64,
        seq: u64,
        flow: u32,
        run: u32,
        len: usize,
        side: Side,
        kind: u8,
    ) -> Result<()> {
        let mut record = [0; RECORD];
        record[0..8].copy_from_slice(&at.to_le_bytes());
        record[8..16].copy_from_slice(&seq.to_le_bytes());
        record[16..20].copy_from_slice(&flow.to_le_bytes());
        record[20..24].copy_from_slice(&run.to_le_bytes());
        record[24..28].copy_from_slice(&(len as u32).to_le_bytes());
        record[28] = u8::from(side == Side::B);
        record[29] = kind;
        self.out
            .write_all(&record)
            .map_err(|e| refused(&self.path, e))
    }

    /// Bring everything to the file.
    pub fn flush(&mut self) -> Result<()> {
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
