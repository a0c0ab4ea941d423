//! What a file is, by its first bytes: what its name or its sender says may be anything.

use super::message::OutboundFile;

/// First bytes, from an offset on, and what they say.
const MAGIC: [(usize, &[u8], &str); 16] = [
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
];

/// The type that the first bytes say.
pub fn sniff(data: &[u8]) -> Option<&'static str> {
    MAGIC
        .iter()
        .find(|(at, bytes, _)| data.get(*at..).is_some_and(|rest| rest.starts_with(bytes)))
        .map(|m| m.2)
}

/// The type of a file to send: by its first bytes, else what the caller says.
pub fn mime(file: &OutboundFile) -> String {
    let given = || file.mime_type.clone().filter(|mime| mime.bytes().all(|b| b.is_ascii_graphic()));
    sniff(&file.data).map(str::to_owned).or_else(given).unwrap_or_else(|| "application/octet-stream".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_and_names_do_not() {
        let file = |data: &'static [u8], mime: Option<&str>| OutboundFile {
            data: data.into(),
            name: "a.exe".into(),
            mime_type: mime.map(Into::into),
        };
        assert_eq!(mime(&file(b"\x89PNG\r\n\x1a\nxx", Some("text/plain"))), "image/png");
        assert_eq!(mime(&file(b"hello", Some("text/plain"))), "text/plain");
        assert_eq!(mime(&file(b"hello", Some("text/plain\r\nX-Evil: 1"))), "application/octet-stream");
        assert_eq!(mime(&file(b"", None)), "application/octet-stream");
        assert_eq!(sniff(b"RIFF....WEBPVP8 "), Some("image/webp"));
    }
}
