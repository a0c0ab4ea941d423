//! The event store, as the link sees it.

use tokio::sync::watch;

use super::super::derived::read;
use super::super::log::StoreMeta;
use super::super::lookup::find_by_origin;
use super::super::store::WeakStore;
use super::super::{keys, merge};
use super::{Held, Own, Page, Replicated};
use crate::Result;
use crate::events::event::MAX_EVENT_BYTES;

/// What an event's names and numbers add to its data, at most.
const AROUND_DATA: usize = 16 << 10;

// The store closes when its last holder lets go, and the link is not one.
impl Replicated for WeakStore {
    fn replica(&self) -> String {
        self.shared.replica.to_string()
    }

    fn durable(&self) -> watch::Receiver<u64> {
        self.shared.flushed.subscribe()
    }

    fn own(&self, after: u64, to: u64, max_bytes: usize) -> Result<Page> {
        self.shared.reading(|storage| {
            let (mut page, mut bytes) = (Page { events: Vec::new(), through: to }, 0);
            for n in after.saturating_add(1)..=to {
                // Events that were deleted or pruned are gone; nobody needs them any more.
                let Some(event) = find_by_origin(storage, &self.shared.replica, n)? else { continue };
                let changes = merge::change(&event)?;
                bytes += changes.len();
                page.events.push(Own { n, session_key: event.session_key, hash: event.hash, changes });
                if bytes >= max_bytes {
                    page.through = n;
                    break;
                }
            }
            Ok(page)
        })
    }

    fn held(&self, n: u64) -> Result<Held> {
        self.shared.reading(|storage| {
            if let Some(event) = find_by_origin(storage, &self.shared.replica, n)? {
                return Ok(Held::Event(event.hash));
            }
            let store: StoreMeta = read(storage, keys::STORE)?.unwrap_or_default();
            Ok(if store.version.contains(&self.shared.replica, n) { Held::Gone } else { Held::Never })
        })
    }

    async fn merge(&self, changes: &[Vec<u8>]) -> Result<()> {
        self.upgrade()?.merge_all(changes).await?;
        Ok(())
    }

    fn max_changes_bytes(&self) -> usize {
        MAX_EVENT_BYTES + AROUND_DATA
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.upgrade()?.note(name)
    }

    async fn set_note(&self, name: &str, value: Vec<u8>) -> Result<()> {
        self.upgrade()?.set_note(name, value).await
    }
}
