//! The body of an HTTP/1 answer: where it ends, and whether it ended there.

use bytes::{Buf, Bytes, BytesMut};

use super::head::{Head, HeadError};

/// The longest line of a chunk's size or of a trailer; longer ones are an attack.
const MAX_LINE_BYTES: usize = 4096;

/// The most bytes of trailers that are skipped.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// So many bytes are copied out of the buffer, more are split off it.
const COPIED_BYTES: usize = 4096;

/// Why a body cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection was closed before the announced end.
    #[error("the body ended early{}", .missing.map(|bytes| format!(", {bytes} bytes are missing")).unwrap_or_default())]
    Short {
        /// How many bytes are missing, where a length was announced.
        missing: Option<u64>,
    },
    /// The chunks are not what RFC 9112, section 7.1, describes.
    #[error("the body's chunks are malformed")]
    Chunk,
}

/// What [`BodyDecoder::decode`] found in the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Bytes of the body, at least one.
    Data(Bytes),
    /// More has to be read from the connection.
    NeedMore,
    /// The body is complete.
    End,
}

/// Takes a body out of a connection's bytes.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length { left: u64 },
    UntilClose,
    ChunkSize,
    ChunkData { left: u64 },
    ChunkDataEnd,
    Trailers { read: usize },
    End,
}

impl BodyDecoder {
    /// The decoder for the answer with this head (RFC 9112, section 6.3).
    ///
    /// Answers to HEAD, and those whose status allows no body, end with their head.
    pub fn new(head: &Head, answer_to: AnswerTo) -> Result<Self, HeadError> {
        let bodiless = answer_to == AnswerTo::Head || matches!(head.status, 100..=199 | 204 | 304);
        let state = if bodiless {
            State::End
        } else if head.is_chunked()? {
            State::ChunkSize
        } else {
            match head.content_length()? {
                Some(0) => State::End,
                Some(left) => State::Length { left },
                None => State::UntilClose,
            }
        };
        Ok(Self { state })
    }

    /// Whether the end of the connection is the only mark of the body's end.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Whether the whole body has been taken.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Takes what it can off the front of `buffer`.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BodyError> {
        loop {
            match self.state {
                State::End => return Ok(Decoded::End),
                _ if buffer.is_empty() => return Ok(Decoded::NeedMore),
                State::UntilClose => return Ok(Decoded::Data(buffer.split().freeze())),
                State::Length { left } => {
                    let (data, left) = take_up_to(buffer, left);
                    self.state = if left == 0 { State::End } else { State::Length { left } };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkData { left } => {
                    let (data, left) = take_up_to(buffer, left);
                    self.state = if left == 0 { State::ChunkDataEnd } else { State::ChunkData { left } };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkDataEnd => match take_line(buffer)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(line) if line.is_empty() => self.state = State::ChunkSize,
                    Some(_) => return Err(BodyError::Chunk),
                },
                State::ChunkSize => match take_line(buffer)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(line) => {
                        let left = chunk_size(&line)?;
                        self.state =
                            if left == 0 { State::Trailers { read: 0 } } else { State::ChunkData { left } };
                    }
                },
                State::Trailers { read } => match take_line(buffer)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(line) if line.is_empty() => self.state = State::End,
                    Some(line) => {
                        let read = read.saturating_add(line.len());
                        if read > MAX_TRAILER_BYTES {
                            return Err(BodyError::Chunk);
                        }
                        self.state = State::Trailers { read };
                    }
                },
            }
        }
    }

    /// What it means that the connection was closed now.
    pub fn closed(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::End | State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            State::Length { left } => Err(BodyError::Short { missing: Some(left) }),
            _ => Err(BodyError::Short { missing: None }),
        }
    }
}

/// The kind of request that an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerTo {
    /// GET: the answer has a body.
    Get,
    /// HEAD: it has none, whatever its head says.
    Head,
}

fn take_up_to(buffer: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    // A few bytes would hold a whole buffer for as long as they are kept; copied, they leave it to the next answer.
    let data = if size <= COPIED_BYTES { buffer.copy_to_bytes(size) } else { buffer.split_to(size).freeze() };
    (data, left.saturating_sub(size as u64))
}

/// A line without its end; a bare line feed ends one too.
fn take_line(buffer: &mut BytesMut) -> Result<Option<Bytes>, BodyError> {
    match memchr::memchr(b'\n', buffer) {
        Some(at) if at <= MAX_LINE_BYTES => {
            let mut line = buffer.split_to(at).freeze();
            buffer.advance(1);
            if line.last() == Some(&b'\r') {
                line.truncate(line.len().saturating_sub(1));
            }
            Ok(Some(line))
        }
        None if buffer.len() <= MAX_LINE_BYTES => Ok(None),
        _ => Err(BodyError::Chunk),
    }
}

/// The size at the start of a chunk's line; extensions after it are ignored.
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(BodyError::Chunk);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| BodyError::Chunk)?;
    u64::from_str_radix(digits, 16).map_err(|_| BodyError::Chunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoder(headers: &str) -> BodyDecoder {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
        let head = Head::take(&mut BytesMut::from(text.as_str())).unwrap().unwrap();
        BodyDecoder::new(&head, AnswerTo::Get).unwrap()
    }

    /// Feeds `wire` in pieces and closes the connection; what came out, and how it ended.
    fn read(headers: &str, wire: &[u8], piece: usize) -> (Vec<u8>, Result<(), BodyError>) {
        let mut decoder = decoder(headers);
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        for part in wire.chunks(piece.max(1)) {
            buffer.extend_from_slice(part);
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Decoded::Data(data)) => body.extend_from_slice(&data),
                    Ok(Decoded::NeedMore) => break,
                    Ok(Decoded::End) => return (body, Ok(())),
                    Err(error) => return (body, Err(error)),
                }
            }
        }
        (body, decoder.closed())
    }

    #[test]
    fn a_short_body_is_an_error_whatever_its_framing() {
        let (body, end) = read("Content-Length: 10\r\n", b"12345", 3);
        assert_eq!((body.as_slice(), end), (&b"12345"[..], Err(BodyError::Short { missing: Some(5) })));
        let (body, end) = read("Transfer-Encoding: chunked\r\n", b"5\r\n12345\r\n", 4);
        assert_eq!((body.as_slice(), end), (&b"12345"[..], Err(BodyError::Short { missing: None })));
        assert_eq!(read("", b"12345", 2), (b"12345".to_vec(), Ok(())));
    }

    #[test]
    fn impossible_chunks_are_refused() {
        for wire in ["-5\r\n", "11111111111111111\r\n", "\r\n", "5\r\n123456\r\n", "g\r\n"] {
            let (_, end) = read("Transfer-Encoding: chunked\r\n", wire.as_bytes(), 64);
            assert_eq!(end, Err(BodyError::Chunk), "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_give_back_what_was_put_in(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            piece in 1_usize..40,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x};note=1\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nTrailer: yes\r\n\r\n");
            prop_assert_eq!(read("Transfer-Encoding: chunked\r\n", &wire, piece), (chunks.concat(), Ok(())));
        }

        #[test]
        fn garbage_never_panics(wire in prop::collection::vec(any::<u8>(), 0..200), piece in 1_usize..40) {
            let _ = read("Transfer-Encoding: chunked\r\n", &wire, piece);
            let _ = read("Content-Length: 77\r\n", &wire, piece);
        }
    }
}
