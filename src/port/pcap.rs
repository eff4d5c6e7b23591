//! A port made of capture files: frames come from one and go to another.
//!
//! For debugging and tests: whatever was captured on a real port walks through the same loop. Both
//! files are classic pcap with Ethernet frames. A broken file ends the input, with the reason kept
//! in [`PcapQueue::error`]; it never stops the worker.

use super::{Burst, Queue};
use crate::packet::Frame;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest frame written, bytes.
const SNAPLEN: u32 = 65_535;
/// Header of a frame in the file, bytes.
const RECORD_HEADER: u64 = 16;

/// A frame from a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcapFrame(pub Vec<u8>);

impl From<Vec<u8>> for PcapFrame {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Frame for PcapFrame {
    fn data(&self) -> &[u8] {
        &self.0
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A capture file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PcapPortError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: not a capture in pcap format: {error} (pcapng: convert it with `editcap -F pcap`)", path.display())]
    NotPcap { path: PathBuf, error: PcapError },
    #[error("{}: its frames are {datalink:?}, not Ethernet", path.display())]
    NotEthernet { path: PathBuf, datalink: DataLink },
}

/// Reads frames from one file and appends what is sent to another. Generic over the frame so that
/// it can stand beside other memory-backed ports in one worker.
pub struct PcapQueue<F = PcapFrame> {
    input: Option<PcapReader<File>>,
    output: Option<PcapWriter<BufWriter<File>>>,
    /// Bytes the output may still grow by.
    room: u64,
    error: Option<String>,
    frame: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for PcapQueue<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapQueue")
            .field("input", &self.input.is_some())
            .field("output", &self.output.is_some())
            .field("room", &self.room)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<F> PcapQueue<F> {
    /// `input`: where frames come from; `None`: none come. `output`: where they go, truncated
    /// first; `None`: sent frames are let go. The output takes at most `limit` bytes of frames,
    /// then it is full like any transmit queue.
    pub fn open(
        input: Option<&Path>,
        output: Option<&Path>,
        limit: u64,
    ) -> Result<Self, PcapPortError> {
        Ok(Self {
            input: input.map(open_input).transpose()?,
            output: output.map(open_output).transpose()?,
            room: limit,
            error: None,
            frame: PhantomData,
        })
    }

    /// No frame will come any more.
    pub fn is_drained(&self) -> bool {
        self.input.is_none()
    }

    /// What went wrong with either file since it was opened.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Put everything sent so far into the file. Dropping the queue does it too, but cannot tell
    /// of errors.
    pub fn finish(self) -> io::Result<()> {
        match self.output {
            Some(output) => output.into_writer().flush(),
            None => Ok(()),
        }
    }

    fn next_frame(&mut self) -> Option<Vec<u8>> {
        match self.input.as_mut()?.next_packet() {
            Some(Ok(packet)) => return Some(packet.data.into_owned()),
            Some(Err(error)) => self.error = Some(format!("reading: {error}: {}", cause(&error))),
            None => {}
        }
        self.input = None;
        None
    }

    /// Whether the output took it.
    fn write(&mut self, frame: &impl Frame) -> bool {
        let Some(output) = &mut self.output else {
            return true;
        };
        let data = frame.data();
        let data = &data[..data.len().min(SNAPLEN as usize)];
        let size = data.len() as u64 + RECORD_HEADER;
        if size > self.room {
            return false;
        }
        let whole = frame.total_len().clamp(data.len(), SNAPLEN as usize) as u32;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match output.write_packet(&PcapPacket::new(now, whole, data)) {
            Ok(_) => {
                self.room -= size;
                true
            }
            Err(error) => {
                // Half a record would spoil all that follow: nothing more is written.
                self.error = Some(format!("writing: {error}: {}", cause(&error)));
                self.room = 0;
                false
            }
        }
    }
}

impl<F: Frame + From<Vec<u8>>> Queue for PcapQueue<F> {
    type Frame = F;

    fn rx_burst(&mut self, burst: &mut Burst<F>) -> usize {
        let before = burst.len();
        while !burst.is_full() {
            let Some(frame) = self.next_frame() else {
                break;
            };
            burst.push(F::from(frame));
        }
        burst.len() - before
    }

    fn tx_burst(&mut self, burst: &mut Burst<F>) -> usize {
        let taken = burst.iter().take_while(|frame| self.write(*frame)).count();
        burst.drain(..taken);
        taken
    }
}

fn open_input(path: &Path) -> Result<PcapReader<File>, PcapPortError> {
    let file = File::open(path).map_err(|error| io_error(path, error))?;
    let reader = PcapReader::new(file)
        .map_err(|error| PcapPortError::NotPcap { path: path.to_owned(), error })?;
    match reader.header().datalink {
        DataLink::ETHERNET => Ok(reader),
        datalink => Err(PcapPortError::NotEthernet { path: path.to_owned(), datalink }),
    }
}

fn open_output(path: &Path) -> Result<PcapWriter<BufWriter<File>>, PcapPortError> {
    let file = File::create(path).map_err(|error| io_error(path, error))?;
    let header = PcapHeader {
        snaplen: SNAPLEN,
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        ..PcapHeader::default()
    };
    PcapWriter::with_header(BufWriter::new(file), header).map_err(|error| match error {
        PcapError::IoError(error) => io_error(path, error),
        error => PcapPortError::NotPcap { path: path.to_owned(), error },
    })
}

fn io_error(path: &Path, error: io::Error) -> PcapPortError {
    PcapPortError::Io { path: path.to_owned(), error }
}

/// The crate's errors say little; the one below says more.
fn cause(error: &PcapError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::BURST;
    use proptest::prelude::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir()
                .join(format!("dunlin-pcap-port-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).expect("scratch directory");
            Self(dir)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn open(input: Option<&Path>, output: Option<&Path>, limit: u64) -> PcapQueue {
        PcapQueue::open(input, output, limit).expect("opens")
    }

    fn send_all(path: &Path, frames: &[Vec<u8>], limit: u64) -> usize {
        let mut queue = open(None, Some(path), limit);
        let mut sent = 0;
        for chunk in frames.chunks(BURST) {
            let mut burst: Burst<PcapFrame> = chunk.iter().cloned().map(PcapFrame).collect();
            sent += queue.tx_burst(&mut burst);
        }
        queue.finish().expect("written");
        sent
    }

    fn receive_all(queue: &mut PcapQueue) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while !queue.is_drained() {
            let mut burst = Burst::new();
            queue.rx_burst(&mut burst);
            frames.extend(burst.into_iter().map(|frame| frame.0));
        }
        frames
    }

    #[test]
    fn what_is_sent_is_read_back_in_order() {
        let scratch = Scratch::new("order");
        let frames: Vec<Vec<u8>> = (0..150u8).map(|n| vec![n; 60 + usize::from(n)]).collect();
        assert_eq!(send_all(&scratch.file("a"), &frames, u64::MAX), 150);
        let mut queue = open(Some(&scratch.file("a")), None, 0);
        assert_eq!(receive_all(&mut queue), frames);
        assert_eq!(queue.error(), None);
    }

    #[test]
    fn a_full_output_leaves_the_rest_to_the_caller() {
        let scratch = Scratch::new("full");
        let mut queue = open(None, Some(&scratch.file("a")), 2 * (60 + 16) + 10);
        let mut burst: Burst<PcapFrame> = (0..3u8).map(|n| PcapFrame(vec![n; 60])).collect();
        assert_eq!(queue.tx_burst(&mut burst), 2);
        assert_eq!(burst.as_slice(), [PcapFrame(vec![2; 60])]);
    }

    #[test]
    fn a_truncated_capture_gives_what_it_has_and_says_why_it_ended() {
        let scratch = Scratch::new("truncated");
        send_all(&scratch.file("a"), &[vec![1; 60], vec![2; 60]], u64::MAX);
        let bytes = std::fs::read(scratch.file("a")).unwrap();
        std::fs::write(scratch.file("b"), &bytes[..bytes.len() - 1]).unwrap();
        let mut queue = open(Some(&scratch.file("b")), None, 0);
        assert_eq!(receive_all(&mut queue), [vec![1; 60]]);
        assert!(queue.error().is_some_and(|e| e.contains("reading")), "{queue:?}");
    }

    #[test]
    fn files_that_are_no_captures_are_refused_by_name() {
        let scratch = Scratch::new("refused");
        std::fs::write(scratch.file("text"), "not a capture, but long enough for one").unwrap();
        let mut header = Vec::new();
        PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() }
            .write_to(&mut header)
            .unwrap();
        std::fs::write(scratch.file("raw"), header).unwrap();
        let cases = [("text", "not a capture"), ("raw", "not Ethernet"), ("none", "No such file")];
        for (name, expected) in cases {
            let error = PcapQueue::<PcapFrame>::open(Some(&scratch.file(name)), None, 0)
                .expect_err(name)
                .to_string();
            assert!(error.contains(expected) && error.contains(name), "{error}");
        }
    }

    proptest! {
        /// Any bytes behind a valid header: no panic, and an end.
        #[test]
        fn garbage_ends(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
            let scratch = Scratch::new("garbage");
            send_all(&scratch.file("a"), &[], u64::MAX);
            let mut bytes = std::fs::read(scratch.file("a")).unwrap();
            bytes.extend(garbage);
            std::fs::write(scratch.file("a"), bytes).unwrap();
            let mut queue = open(Some(&scratch.file("a")), None, 0);
            receive_all(&mut queue);
            prop_assert!(queue.is_drained());
        }
    }
}
