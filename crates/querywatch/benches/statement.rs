//! What watching a statement costs.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use diesel::connection::{Instrumentation as _, InstrumentationEvent, SimpleConnection as _, StrQueryHelper};
use diesel::prelude::*;
use querywatch::{Probe, Scope, Watch, call};

mod schema {
    diesel::table! {
        items (id) {
            id -> Integer,
            name -> Text,
        }
    }
}
use schema::items;

const SQL: &str = "SELECT \"conversations\".\"id\", \"conversations\".\"title\", \"conversations\".\"last_message_at\" FROM \
    \"conversations\" WHERE (\"conversations\".\"user_id\" = $1) ORDER BY \"conversations\".\"last_message_at\" DESC LIMIT $2";

/// What diesel-async tells of a query on PostgreSQL.
fn events(probe: &mut Probe, sql: &str) {
    let sql = StrQueryHelper::new(sql);
    probe.on_connection_event(InstrumentationEvent::start_query(&sql));
    probe.on_connection_event(InstrumentationEvent::finish_query(black_box(&sql), None));
}

fn callback(criterion: &mut Criterion) {
    let watch = Watch::builder().locations(false).build();
    let mut probe = watch.instrumentation();
    criterion.bench_function("callback", |bench| bench.iter(|| events(&mut probe, SQL)));
    criterion.bench_function("callback, in a scope", |bench| {
        Scope::new(&watch, "GET /").run_sync(|| bench.iter(|| events(&mut probe, SQL)));
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    criterion.bench_function("callback, in a scope and a call of its own", |bench| {
        runtime.block_on(Scope::new(&watch, "GET /").run(async {
            bench.iter(|| {
                futures_util::FutureExt::now_or_never(call(async { events(&mut probe, SQL) })).unwrap();
            });
        }));
    });
    let mut n = 0_u64;
    criterion.bench_function("callback, a text that is new", |bench| {
        bench.iter(|| {
            n += 1;
            events(&mut probe, &format!("{SQL} OFFSET {n}"));
        });
    });
    criterion.bench_function("a scope without statements", |bench| {
        bench.iter(|| Scope::new(&watch, "GET /").run_sync(|| ()));
    });
}

/// Threads that all issue the same statement and do nothing else: no program is as bad.
fn contention(criterion: &mut Criterion) {
    for threads in [1, 2, 4] {
        let watch = Watch::builder().locations(false).build();
        criterion.bench_function(&format!("callback, one shape, {threads} threads"), |bench| {
            bench.iter_custom(|times| {
                let run = || {
                    let mut probe = watch.instrumentation();
                    let began = Instant::now();
                    (0..times).for_each(|_| events(&mut probe, SQL));
                    began.elapsed()
                };
                std::thread::scope(|scope| {
                    let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
                    running.into_iter().map(|thread| thread.join().unwrap()).sum::<Duration>() / threads
                })
            });
        });
    }
}

fn sqlite(criterion: &mut Criterion) {
    let watch = Watch::builder().locations(false).build();
    for watched in [false, true] {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        conn.batch_execute(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO items VALUES (1, 'one')",
        )
        .unwrap();
        if watched {
            conn.set_instrumentation(watch.instrumentation());
        }
        let name = if watched { "SQLite, a row by its key, watched" } else { "SQLite, a row by its key" };
        criterion.bench_function(name, |bench| {
            bench.iter(|| items::table.find(1).select(items::name).first::<String>(&mut conn).unwrap());
        });
    }
}

criterion_group!(benches, callback, contention, sqlite);
criterion_main!(benches);
