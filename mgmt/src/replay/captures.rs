//! `--pcap`: what came in and what the engines sent, as capture files.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use dataplane::bench::Capture;

/// The two files of a trace.
#[derive(Debug)]
pub struct Captures {
    received: Capture<BufWriter<File>>,
    sent: Capture<BufWriter<File>>,
}

impl Captures {
    /// Empty ones: `DIRECTORY/TRACE.in.pcap`, `DIRECTORY/TRACE.out.pcap`.
    ///
    /// # Errors
    /// A file that could not be made, by name.
    pub fn new(directory: &Path, trace: &str) -> Result<Self, String> {
        let file = |end: &str| {
            let path = directory.join(format!("{trace}.{end}.pcap"));
            let file = File::create(&path).and_then(|file| Capture::new(BufWriter::new(file)));
            file.map_err(|error| {
                format!("{}: {error}; --pcap wants a directory that is there", path.display())
            })
        };
        Ok(Self { received: file("in")?, sent: file("out")? })
    }

    /// A frame that came in.
    ///
    /// # Errors
    /// It could not be written.
    pub fn received(&mut self, at_ms: u32, frame: &[u8]) -> io::Result<()> {
        self.received.frame(at_ms, frame)
    }

    /// A frame that the engines sent.
    ///
    /// # Errors
    /// It could not be written.
    pub fn sent(&mut self, at_ms: u32, frame: &[u8]) -> io::Result<()> {
        self.sent.frame(at_ms, frame)
    }

    /// Hands everything to the files.
    ///
    /// # Errors
    /// It could not be written.
    pub fn end(&mut self) -> io::Result<()> {
        self.received.flush().and_then(|()| self.sent.flush())
    }
}
