//! Two caches on one Redis, as in two processes: `two_processes redis://127.0.0.1`.

use std::time::{Duration, Instant};

use readthrough::{Cache, Key, Namespace, NamespaceOptions};

fn open(url: &str) -> Result<(Cache, Namespace<String>), Box<dyn std::error::Error>> {
    let cache = Cache::builder().redis(url).build()?;
    let profiles = cache.namespace(NamespaceOptions::new("example:profile").ttl(Duration::from_secs(60)))?;
    Ok((cache, profiles))
}

/// Simulates a slow query.
async fn load(name: &str) -> Result<Option<String>, std::io::Error> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    println!("  loaded {name}");
    Ok(Some(name.to_owned()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1".to_owned());
    let ((first_cache, first), (second_cache, second)) = (open(&url)?, open(&url)?);
    if tokio::time::timeout(Duration::from_secs(3), first_cache.until_connected()).await.is_err() {
        println!("no response from {url}: every read loads");
    } else {
        second_cache.until_connected().await;
    }
    let key = Key::new(42);
    let _ = first.invalidate(&key).await;
    for (process, profiles) in [("first", &first), ("second", &second), ("second", &second)] {
        let began = Instant::now();
        let found = profiles.get_or_load(&key, || load("Ada")).await?;
        println!("{process} process: {found:?} in {:?}", began.elapsed());
    }
    println!("the first process writes: {:?}", first.invalidate(&key).await);
    let found = first.get_or_load(&key, || load("Grace")).await?;
    println!("first process: {found:?}");
    for stats in [first_cache.stats(), second_cache.stats()].concat() {
        println!("{stats:?}");
    }
    Ok(())
}
