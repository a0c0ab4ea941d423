//! What a command prints, within bounds.

use std::collections::VecDeque;

/// The first and the last half of what comes, and how much went between them.
pub(crate) struct HeadAndTail {
    most: usize,
    pub(crate) head: Vec<u8>,
    tail: VecDeque<u8>,
    pub(crate) dropped: u64,
}

impl HeadAndTail {
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, head: Vec::new(), tail: VecDeque::new(), dropped: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let half = self.most - self.most / 2;
        let (first, rest) = bytes.split_at(bytes.len().min(half.saturating_sub(self.head.len())));
        self.head.extend_from_slice(first);
        let room = self.most / 2;
        let skipped = rest.len().saturating_sub(room);
        let rest = rest.get(skipped..).unwrap_or_default();
        let over = (self.tail.len() + rest.len()).saturating_sub(room);
        self.tail.drain(..over);
        self.tail.extend(rest);
        self.dropped += (skipped + over) as u64;
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.head.extend(self.tail);
        self.head
    }

    /// As text; what is no UTF-8, also where it was cut, is shown as U+FFFD.
    pub(crate) fn into_text(self) -> String {
        let (mut head, mut tail) = (self.head, Vec::from(self.tail));
        if self.dropped == 0 {
            head.append(&mut tail);
            return String::from_utf8_lossy(&head).into_owned();
        }
        // A character that was cut apart is no nonsense of the command's.
        let mut dropped = self.dropped;
        while let Some(&byte) = head.last()
            && let Err(error) = std::str::from_utf8(&head)
            && error.error_len().is_none()
        {
            head.pop();
            dropped += 1;
            if byte >= 0xC0 {
                break;
            }
        }
        let broken = tail.iter().take(3).take_while(|byte| (0x80..0xC0).contains(*byte)).count();
        tail.drain(..broken);
        dropped += broken as u64;
        let (head, tail) = (String::from_utf8_lossy(&head), String::from_utf8_lossy(&tail));
        format!("{head}\n[… {dropped} bytes left out …]\n{tail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn output_keeps_its_head_and_its_tail(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            most in 0_usize..100,
        ) {
            let mut kept = HeadAndTail::new(most);
            for chunk in &chunks {
                kept.push(chunk);
            }
            let all: Vec<u8> = chunks.concat();
            let dropped = kept.dropped;
            let bytes = kept.into_bytes();
            prop_assert_eq!(dropped, all.len().saturating_sub(most) as u64);
            if all.len() <= most {
                prop_assert_eq!(bytes, all);
            } else {
                let head = most - most / 2;
                prop_assert_eq!(&bytes[..head], &all[..head]);
                prop_assert_eq!(&bytes[head..], &all[all.len() - most / 2..]);
            }
        }
    }
}
