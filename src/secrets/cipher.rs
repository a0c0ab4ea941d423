//! AES-256-GCM (NIST SP 800-38D) on keys and texts that leave no copy behind.

use std::hint::black_box;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use zeroize::Zeroize;

use super::secret::Secret;
use crate::{Code, CoreError, Result};

/// Bytes of a key.
pub(super) const KEY: usize = 32;
/// Bytes of a nonce.
pub(super) const NONCE: usize = 12;
/// Bytes of a tag.
pub(super) const TAG: usize = 16;

/// The ciphertext of `plain`, and the tag behind it.
pub(super) fn seal(key: &Secret, nonce: [u8; NONCE], aad: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
    let mut sealed = Vec::with_capacity(plain.len() + TAG);
    // Encrypted where it lies: what is left in the vector is ciphertext.
    sealed.extend_from_slice(plain);
    let tag = with_cipher(key, |cipher| {
        cipher.encrypt_inout_detached(&Nonce::from(nonce), aad, InOutBuf::from(sealed.as_mut_slice())).ok()
    });
    let Some(tag) = tag else {
        sealed.zeroize();
        return Err(CoreError::new(
            Code::Crypto,
            "the key or the text is not of a size that AES-256-GCM takes",
        ));
    };
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// The text that was sealed; `None` unless key, nonce, `aad`, ciphertext and tag are those of [`seal`].
pub(super) fn open(key: &Secret, nonce: [u8; NONCE], aad: &[u8], sealed: &[u8]) -> Option<Secret> {
    let (text, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;
    let tag = Tag::try_from(tag).ok()?;
    let opened = Secret::filled(text.len(), |plain| {
        plain.copy_from_slice(text);
        with_cipher(key, |cipher| {
            cipher.decrypt_inout_detached(&Nonce::from(nonce), aad, InOutBuf::from(plain), &tag).ok()
        })
        .ok_or_else(|| CoreError::new(Code::Crypto, "not authentic"))
    });
    opened.ok()
}

/// `None` also if the key has another size.
fn with_cipher<T>(key: &Secret, work: impl FnOnce(&Aes256Gcm) -> Option<T>) -> Option<T> {
    on_wiped_stack(|| work(&Aes256Gcm::new_from_slice(key.expose()).ok()?))
}

/// Runs `work` and then overwrites the stack that it had: round keys and the like are wiped where they were last,
/// but not where they were moved from.
pub(super) fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = called(work);
    wipe_stack();
    result
}

#[inline(never)]
fn called<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_stack() {
    let mut stack = [0_u64; 2048];
    stack.zeroize();
    black_box(&stack);
}
