//! A cache that outlives the runtimes that use it, such as a static of a test program.

use readthrough::{Cache, Invalidation, Key, NamespaceOptions};
use testbed::Redis;
use tokio::runtime::{Builder, Runtime};

use super::PATIENT;

#[test]
fn a_cache_survives_the_runtime_that_it_was_made_on() {
    let host = Runtime::new().unwrap();
    let server = host.block_on(Redis::start()).unwrap();
    // Outside any runtime.
    let open = || {
        let cache = Cache::builder().redis(server.url()).redis_timeout(PATIENT).build().unwrap();
        let values = cache.namespace(NamespaceOptions::<u64>::new("n")).unwrap();
        (cache, values)
    };
    let ((first, a), (second, b)) = (open(), open());
    let key = Key::new(1);
    for round in 1..=3 {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            first.until_connected().await;
            second.until_connected().await;
            assert_eq!(a.invalidate(&key).await, Invalidation::Complete);
            let found = a.get_or_load(&key, || async { Ok::<_, ()>(Some(round)) }).await.unwrap();
            assert_eq!(*found.unwrap(), round);
            let found = b.get_or_load(&key, || async { Err("not called") }).await.unwrap();
            assert_eq!(*found.unwrap(), round, "shared");
        });
    }
}
