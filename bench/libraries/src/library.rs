//! The interface through which each library is measured.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};

use crate::load::Load;

/// A library in one configuration. The loops of [`Subject`] are compiled for each of them, so that a read costs no
/// dynamic dispatch.
pub(crate) trait Library: Send + Sync + 'static {
    /// A key as the caller holds it before a read.
    type Key: Send + Sync;

    fn key(id: u64) -> Self::Key;

    /// Reads a value through the cache, and returns its version.
    fn read(&self, key: &Self::Key, load: &Load) -> impl Future<Output = anyhow::Result<u64>> + Send;

    /// Invalidates a value after a write, as the library documents it. An error means that the library reported the
    /// invalidation as failed or deferred.
    fn invalidate(&self, key: &Self::Key) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A [`Library`] behind a pointer.
#[async_trait]
pub(crate) trait Subject: Send + Sync {
    async fn read(&self, id: u64, load: &Load) -> anyhow::Result<u64>;

    async fn invalidate(&self, id: u64) -> anyhow::Result<()>;

    /// Reads the values one after the other, `times` in all, and returns the time of all reads.
    async fn time_reads(&self, ids: &[u64], times: usize, load: &Load) -> anyhow::Result<Duration>;

    /// Reads the values by several readers at once, `times` in all, and returns the time until the last read ended.
    async fn time_concurrent_reads(
        &self,
        ids: &[u64],
        times: usize,
        readers: usize,
        load: &Load,
    ) -> anyhow::Result<Duration>;

    /// Invalidates the values one after the other, and returns the time of all invalidations.
    async fn time_invalidations(&self, ids: &[u64]) -> anyhow::Result<Duration>;

    /// Starts several readers of one value at once. Returns their results, each with its time.
    async fn crowd(&self, id: u64, readers: usize, load: &Load) -> Vec<(anyhow::Result<u64>, Duration)>;
}

#[async_trait]
impl<T: Library> Subject for T {
    async fn read(&self, id: u64, load: &Load) -> anyhow::Result<u64> {
        Library::read(self, &T::key(id), load).await
    }

    async fn invalidate(&self, id: u64) -> anyhow::Result<()> {
        Library::invalidate(self, &T::key(id)).await
    }

    async fn time_reads(&self, ids: &[u64], times: usize, load: &Load) -> anyhow::Result<Duration> {
        let keys: Vec<T::Key> = ids.iter().map(|&id| T::key(id)).collect();
        let began = Instant::now();
        for key in keys.iter().cycle().take(times) {
            black_box(Library::read(self, key, load).await?);
        }
        Ok(began.elapsed())
    }

    async fn time_concurrent_reads(
        &self,
        ids: &[u64],
        times: usize,
        readers: usize,
        load: &Load,
    ) -> anyhow::Result<Duration> {
        let keys: Vec<T::Key> = ids.iter().map(|&id| T::key(id)).collect();
        let keys = &keys;
        let began = Instant::now();
        try_join_all((0..readers).map(|reader| async move {
            for key in keys.iter().cycle().skip(reader).take(times / readers) {
                black_box(Library::read(self, key, load).await?);
            }
            anyhow::Ok(())
        }))
        .await?;
        Ok(began.elapsed())
    }

    async fn time_invalidations(&self, ids: &[u64]) -> anyhow::Result<Duration> {
        let keys: Vec<T::Key> = ids.iter().map(|&id| T::key(id)).collect();
        let began = Instant::now();
        for key in &keys {
            Library::invalidate(self, key).await?;
        }
        Ok(began.elapsed())
    }

    async fn crowd(&self, id: u64, readers: usize, load: &Load) -> Vec<(anyhow::Result<u64>, Duration)> {
        let key = &T::key(id);
        let began = Instant::now();
        join_all((0..readers).map(|_| async move { (Library::read(self, key, load).await, began.elapsed()) })).await
    }
}
