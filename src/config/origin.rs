//! The files that were read, and places in them.

use std::path::{Path, PathBuf};

use super::json5;
use super::value::Origin;

/// A file that was read.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// The path by which it was asked for, absolute, links not followed.
    pub(crate) path: PathBuf,
    /// Where that led once links were followed.
    pub(crate) real_path: PathBuf,
    /// Its text; bytes that were not UTF-8 stand as U+FFFD.
    pub(crate) text: String,
    /// The offset in `text` of the first U+FFFD that stands for such bytes.
    pub(crate) first_invalid: Option<usize>,
}

impl SourceFile {
    /// Decodes as Node's `readFileSync(path, "utf-8")` does: a byte order mark stays, bad bytes are replaced.
    pub(crate) fn decode(path: PathBuf, real_path: PathBuf, bytes: Vec<u8>) -> Self {
        let (text, first_invalid) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(at))
            }
        };
        Self { path, real_path, text, first_invalid }
    }

    /// The 1-based line and column of a byte offset.
    pub(crate) fn line_and_column(&self, offset: usize) -> (u32, u32) {
        json5::line_and_column(self.text.as_bytes(), offset)
    }
}

/// What a file is to hold, while another text is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// The file, links followed.
    pub(crate) real_path: PathBuf,
    /// Its next text.
    pub(crate) text: String,
}

impl Draft {
    /// Puts the draft in the place of the text that was read, if it is for that file.
    pub(crate) fn replace(draft: Option<&Self>, file: &mut SourceFile) {
        if let Some(draft) = draft.filter(|draft| draft.real_path == file.real_path) {
            file.text.clone_from(&draft.text);
            file.first_invalid = None;
        }
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// 1-based.
    pub line: u32,
    /// 1-based, in UTF-16 code units.
    pub column: u32,
}

/// Every file that was read, in the order of reading: the numbers in [`Origin::file`] count here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Vec<SourceFile>);

impl Sources {
    /// Adds a file and returns its number.
    pub(crate) fn add(&mut self, file: SourceFile) -> u32 {
        self.0.push(file);
        u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&SourceFile> {
        self.0.get(usize::try_from(number).ok()?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SourceFile> {
        self.0.iter()
    }

    /// Where a value begins.
    pub(crate) fn place(&self, origin: Origin) -> Option<Place> {
        let file = self.get(origin.file)?;
        let (line, column) = file.line_and_column(usize::try_from(origin.start).ok()?);
        Some(Place { file: file.path.clone(), line, column })
    }

    /// Each path once, in the order of reading.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        let mut paths: Vec<&Path> = Vec::new();
        for file in &self.0 {
            if !paths.contains(&file.path.as_path()) {
                paths.push(&file.path);
            }
        }
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_remembered() {
        let file = SourceFile::decode("/c".into(), "/c".into(), b"{a:'\xff\xed\xa0\x80'}".to_vec());
        assert_eq!(file.text, "{a:'\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}'}");
        assert_eq!(file.first_invalid, Some(4));
    }
}
