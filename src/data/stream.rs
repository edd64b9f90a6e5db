//! Reading files that cannot be trusted: unpacked as they are read, and never more than a stated number of bytes.
//!
//! What a file is packed by is told from its contents, not from its name. Nothing that a file says is believed before it
//! is seen: memory is taken as bytes arrive, and unpackers get no more of it than [`WINDOW`].

use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// Most bytes of a data set that are read into memory, 4 GiB.
pub(super) const MOST_BYTES: u64 = 4 << 30;

/// Memory that an unpacker may take for what it refers back to, 256 MiB (xz -9 takes 64; zstd as
/// much as the file is long, where that is in the header and below 8 MiB or so).
const WINDOW: u64 = 256 << 20;

/// Bytes that anything may unpack to, whatever its size, and how many times its size beyond: photographs shrink to a
/// half, drawings and tables of zeros to a hundredth; bombs to a thousandth and less.
const FREE: u64 = 256 << 20;
const RATIO: u64 = 200;

/// Bytes that a file of so many may unpack to.
pub(super) fn limit(size: u64) -> u64 {
    MOST_BYTES.min(size.saturating_mul(RATIO).saturating_add(FREE))
}

/// The bytes of a file, unpacked.
pub(super) struct Stream<'a> {
    path: &'a Path,
    source: Box<dyn Read + 'a>,
    /// What it is packed by.
    packing: Option<&'static str>,
    /// Bytes it may still give.
    left: u64,
}

impl<'a> Stream<'a> {
    /// The contents of the file `path`.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened or read, [`Error::File`] where its first bytes say that it is packed, but
    /// it is not.
    pub(super) fn open(path: &'a Path) -> Result<Stream<'a>> {
        let refuse = |error| Error::io(path, "could not open the data file", error);
        let file = File::open(path).map_err(refuse)?;
        let about = file.metadata().map_err(refuse)?;
        if !about.is_file() {
            return Err(Error::file(
                path,
                "could not read it: it is no file, but a folder or a device; give a file of data",
            ));
        }
        Stream::of(BufReader::with_capacity(1 << 16, file), about.len(), path)
    }

    /// The contents of `source`, which is `size` bytes long; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub(super) fn of(mut source: impl BufRead + 'a, size: u64, path: &'a Path) -> Result<Stream<'a>> {
        let start = source.fill_buf().map_err(|e| Error::io(path, "could not read the data file", e))?;
        let most = limit(size);
        let (packing, source): (_, Box<dyn Read + 'a>) = match start {
            [0x1f, 0x8b, ..] => (Some("gzip"), Box::new(MultiGzDecoder::new(source))),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                (Some("xz"), Box::new(XzReader::new_mem_limit(source, true, (WINDOW >> 10) as u32)))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => (Some("zstd"), Box::new(Zstd::of(source))),
            _ => (None, Box::new(source)),
        };
        Ok(Stream { path, source, packing, left: most })
    }

    /// What it is packed by: "gzip", "xz" or "zstd".
    pub(super) fn packing(&self) -> Option<&'static str> {
        self.packing
    }

    /// Up to `most` bytes, fewer where it ends before.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::File`] where it cannot be unpacked or unpacks to more than the
    /// limits of this module.
    pub(super) fn take(&mut self, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(most.min(1 << 16) as usize);
        // One more than is left, to know whether it goes on.
        let limit = most.min(self.left.saturating_add(1));
        let result = (&mut self.source).take(limit).read_to_end(&mut bytes);
        let read = result.map_err(|error| refusal(self.path, self.packing, bytes.len(), error))? as u64;
        if read > self.left {
            let why = match self.packing {
                Some(packing) => format!(
                    "unpacks to more than {RATIO} times its size (and {} MiB), or to more than {} GiB: no data set \
                     does, so it is not read any further. Unpack it yourself ({packing}) if you know it to be good",
                    FREE >> 20,
                    MOST_BYTES >> 30
                ),
                None => format!("is larger than the {} GiB that are taken", MOST_BYTES >> 30),
            };
            return Err(Error::file(self.path, why));
        }
        self.left -= read;
        Ok(bytes)
    }

    /// All that is left.
    ///
    /// # Errors
    /// As [`Stream::take`].
    pub(super) fn rest(&mut self) -> Result<Vec<u8>> {
        self.take(u64::MAX)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left.saturating_add(1).min(usize::MAX as u64) as usize);
        let read = self.source.read(&mut buffer[..most])?;
        if read as u64 > self.left {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "it unpacks to more than {RATIO} times its size, or to more than {} GiB",
                    MOST_BYTES >> 30
                ),
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Why `path`, which is packed by `packing`, could not be read any further after so many bytes.
pub(super) fn refusal(path: &Path, packing: Option<&str>, bytes: usize, error: io::Error) -> Error {
    let again = "download or copy it again";
    match (error.kind(), packing) {
        (ErrorKind::OutOfMemory, _) => Error::file(path, "needs more memory to unpack than is given for it"),
        (ErrorKind::UnexpectedEof, Some(packing)) => Error::file(
            path,
            format!(
                "is cut short: its {packing} stream ends in the middle, {bytes} bytes into this part: {again}"
            ),
        ),
        // What the system refuses has a number; what an unpacker refuses has none.
        (_, Some(packing)) if error.raw_os_error().is_none() => Error::file(
            path,
            format!("is damaged or cut short: its {packing} stream cannot be unpacked ({error}): {again}"),
        ),
        _ => Error::io(path, "could not read the data file", error),
    }
}

/// The frames of a zstd file one after the other, each held against its checksum.
struct Zstd<R: BufRead> {
    source: R,
    decoder: FrameDecoder,
    /// A frame was begun and is not over.
    inside: bool,
}

impl<R: BufRead> Zstd<R> {
    fn of(source: R) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Zstd { source, decoder, inside: false }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let damaged = |why: String| io::Error::new(ErrorKind::InvalidData, why);
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if self.source.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.decoder.init(&mut self.source).map_err(|e| damaged(e.to_string()))?;
                self.inside = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(|e| damaged(e.to_string()))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let sums = (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
            if let (Some(said), Some(found)) = sums
                && said != found
            {
                return Err(damaged("its checksum is wrong".into()));
            }
            self.inside = false;
        }
    }
}
