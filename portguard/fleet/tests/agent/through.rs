//! A store as one sees it who may be cut off from it, or die.

use std::sync::atomic::Ordering;

use super::*;

/// A store, as long as one gets through to it.
#[derive(Clone)]
pub(super) struct Through<S> {
    store: S,
    pass: Arc<dyn Fn() -> bool + Send + Sync>,
    fuse: Arc<Fuse>,
}

impl<S> Through<S> {
    /// As a host sees it through its own kernel.
    pub(super) fn kernel(store: S, kernel: &Simulated) -> Self {
        let (kernel, fuse) = (kernel.clone(), kernel.1.clone());
        let pass = move || {
            let kernel = kernel.0.lock().unwrap();
            !kernel.cuts() && !kernel.is_apart
        };
        Self {
            store,
            pass: Arc::new(pass),
            fuse,
        }
    }

    /// As somebody sees it who dies after so many requests.
    pub(super) fn dying(store: S, after: usize) -> Self {
        let left = Mutex::new(after);
        let pass = move || {
            let mut left = left.lock().unwrap();
            *left = left.saturating_sub(1);
            *left > 0
        };
        Self {
            store,
            pass: Arc::new(pass),
            fuse: Arc::default(),
        }
    }

    async fn pass(&self) -> Result<(), StoreError> {
        self.fuse.burn().await;
        if (self.pass)() {
            Ok(())
        } else {
            Err(StoreError::Unreachable("cut".to_owned()))
        }
    }
}

impl<S: Store> Store for Through<S> {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.pass().await?;
        self.store.get(key).await
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        self.pass().await?;
        self.store.page(prefix, after).await
    }

    async fn commit(&self, compares: &[Compare], ops: &[Op]) -> Result<bool, StoreError> {
        self.pass().await?;
        let done = self.store.commit(compares, ops).await;
        // Also where it was carried out, and nobody lives to hear of it.
        self.pass().await?;
        done
    }

    async fn lease(
        &self,
        key: &str,
        value: &[u8],
        seconds: u64,
        only_if_mine: bool,
    ) -> Result<bool, StoreError> {
        self.pass().await?;
        self.fuse.beats.fetch_add(1, Ordering::SeqCst);
        self.store.lease(key, value, seconds, only_if_mine).await
    }

    async fn release(&self, key: &str) -> Result<(), StoreError> {
        self.pass().await?;
        self.store.release(key).await
    }

    async fn watch(&self, keys: &[String]) -> Result<Watch, StoreError> {
        self.store.watch(keys).await
    }

    async fn reconnect(&self) -> Result<(), StoreError> {
        self.pass().await?;
        self.store.reconnect().await
    }
}
