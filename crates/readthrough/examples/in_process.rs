//! A cache in one process, with the default features: shared loads, tags, and a stale value while the source is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use readthrough::{Cache, Key, Loaded, Namespace, NamespaceOptions, Reading};

/// A price list that is slow, and sometimes down.
#[derive(Default)]
struct Prices {
    calls: AtomicU32,
    is_down: AtomicBool,
}

impl Prices {
    async fn price(&self, article: u32) -> Result<Option<u32>, std::io::Error> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the price list is down"));
        }
        Ok((article < 100).then_some(article * 10))
    }
}

async fn read(cached: &Namespace<u32>, prices: &Prices, article: u32) {
    let key = Key::new(article).tag("spring catalogue");
    let load = || async { prices.price(article).await.map(|price| Loaded::new(price).ttl(Duration::from_millis(100))) };
    match cached.get_or_load_entry(&key, load).await {
        Ok(Reading::Fresh(price)) => println!("article {article}: {price:?}"),
        Ok(Reading::Stale { value, expired_for }) => println!("article {article}: {value:?}, {expired_for:?} too old"),
        Err(error) => println!("article {article}: {error}"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::builder().build()?;
    let options = NamespaceOptions::local("price").stale_if_error(Duration::from_secs(60));
    let (cached, prices) = (cache.namespace(options)?, Arc::new(Prices::default()));

    let readers = (0..100).map(|_| {
        let (cached, prices) = (cached.clone(), Arc::clone(&prices));
        tokio::spawn(async move { cached.get_or_load(&Key::new(1), || prices.price(1)).await })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await??;
    }
    println!("100 readers, {} load", prices.calls.load(Ordering::Relaxed));

    read(&cached, &prices, 7).await;
    prices.is_down.store(true, Ordering::Relaxed);
    // The value expires during this pause.
    tokio::time::sleep(Duration::from_millis(150)).await;
    read(&cached, &prices, 7).await;
    let _ = cached.invalidate_group("spring catalogue").await;
    read(&cached, &prices, 7).await;
    prices.is_down.store(false, Ordering::Relaxed);
    read(&cached, &prices, 7).await;
    println!("{:?}", cache.stats());
    Ok(())
}
