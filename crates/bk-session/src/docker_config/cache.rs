//! What credential helpers said, for a short while: a build asks for one host several times, and a helper may be slow.

use std::{
    collections::HashMap,
    ffi::OsStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use bk_build::Credential;
use tokio::sync::Semaphore;

use super::{ask, file::HelperCall, helper::HelperError};
use crate::limits::{EXPIRY_MARGIN, HELPER_ANSWERS, HELPER_MEMORY, HELPERS_AT_ONCE};

/// The helper and the server.
type Key = (String, String);
/// The last answer. Its lock is held while the helper runs: others who ask for the same wait for that answer.
type Slot = tokio::sync::Mutex<Option<Kept>>;

struct Kept {
    credential: Option<Credential>,
    at: Instant,
}

impl Kept {
    fn is_good(&self) -> bool {
        let expires = self.credential.as_ref().and_then(|c| c.expires_at);
        self.at.elapsed() < HELPER_MEMORY && expires.is_none_or(|t| t > SystemTime::now() + EXPIRY_MARGIN)
    }
}

pub(super) struct HelperCache {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    running: Semaphore,
}

impl Default for HelperCache {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            running: Semaphore::new(HELPERS_AT_ONCE),
        }
    }
}

impl HelperCache {
    /// What the helper says; `refused` means that its last answer was of no use.
    pub(super) async fn get(
        &self,
        call: &HelperCall,
        refused: bool,
        path: Option<&OsStr>,
    ) -> Result<Option<Credential>, HelperError> {
        let asked = Instant::now();
        let slot = self.slot(call);
        let mut kept = slot.lock().await;
        if let Some(kept) = kept
            .as_ref()
            .filter(|k| k.is_good() && (!refused || k.at > asked))
        {
            return Ok(kept.credential.clone());
        }
        *kept = None;
        // Never closed, so this cannot fail.
        let _running = self.running.acquire().await.ok();
        let credential = ask(call, path).await?;
        *kept = Some(Kept {
            credential: credential.clone(),
            at: Instant::now(),
        });
        Ok(credential)
    }

    fn slot(&self, call: &HelperCall) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= HELPER_ANSWERS {
            // A daemon may ask for any number of hosts. Those in use stay.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1
                    || slot
                        .try_lock()
                        .is_ok_and(|kept| kept.as_ref().is_some_and(Kept::is_good))
            });
            if slots.len() >= HELPER_ANSWERS {
                slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
        }
        Arc::clone(
            slots
                .entry((call.helper.clone(), call.server.clone()))
                .or_default(),
        )
    }
}
