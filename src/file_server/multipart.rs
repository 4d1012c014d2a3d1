//! Multiple parts of a file in one answer: `multipart/byteranges` (RFC 9110, section 14.6). Pure.

use std::collections::VecDeque;

use actix_http::header::HeaderValue;
use actix_web::mime::Mime;
use bytes::{Bytes, BytesMut};

use super::range::FilePart;

/// A piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text between the parts of the file.
    Text(Bytes),
    /// A part of the file.
    File(FilePart),
}

impl Piece {
    /// The length in bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(part) => part.length(),
        }
    }
}

/// The content type and the pieces of an answer with these parts of a file of `length` bytes.
pub(super) fn pieces(parts: &[FilePart], media_type: &Mime, length: u64) -> (HeaderValue, VecDeque<Piece>) {
    // 128 random bits: no file contains the boundary by chance, and the client cannot choose it.
    let boundary = format!("{:032x}", rand::random::<u128>());
    let mut pieces = VecDeque::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {}-{}/{length}\r\n\r\n",
            part.start,
            part.end.saturating_sub(1),
        );
        pieces.push_back(Piece::Text(head.into()));
        pieces.push_back(Piece::File(*part));
    }
    pieces.push_back(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    let kind = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"));
    (kind.unwrap_or(HeaderValue::from_static("multipart/byteranges")), pieces)
}

/// Joins the pieces of a file that is in memory. A single part is not copied.
pub(super) fn gather(pieces: VecDeque<Piece>, file: &Bytes) -> Bytes {
    let slice = |part: FilePart| {
        let end = (part.end as usize).min(file.len());
        file.slice((part.start as usize).min(end)..end)
    };
    let mut pieces = pieces.into_iter();
    match (pieces.next(), pieces.next()) {
        (Some(Piece::File(part)), None) => slice(part),
        (first, second) => {
            let mut body = BytesMut::new();
            for piece in first.into_iter().chain(second).chain(pieces) {
                match piece {
                    Piece::Text(text) => body.extend_from_slice(&text),
                    Piece::File(part) => body.extend_from_slice(&slice(part)),
                }
            }
            body.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_separated_by_boundaries() {
        let parts = [FilePart { start: 0, end: 2 }, FilePart { start: 7, end: 10 }];
        let (kind, pieces) = pieces(&parts, &actix_web::mime::TEXT_PLAIN, 10);
        let boundary =
            kind.to_str().unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap().to_owned();
        let length: u64 = pieces.iter().map(Piece::length).sum();
        let body = gather(pieces, &Bytes::from_static(b"0123456789"));
        assert_eq!(body.len() as u64, length);
        assert_eq!(
            String::from_utf8(body.to_vec()).unwrap(),
            format!(
                "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
                 \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789\
                 \r\n--{boundary}--\r\n"
            ),
        );
    }

    #[test]
    fn one_part_is_not_copied() {
        let file = Bytes::from_static(b"0123456789");
        let body = gather(VecDeque::from([Piece::File(FilePart { start: 2, end: 5 })]), &file);
        assert_eq!(body, "234");
        assert_eq!(body.as_ptr(), file.slice(2..).as_ptr());
    }
}
