//! The cost of recording a statement.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use diesel::connection::{Instrumentation as _, InstrumentationEvent, SimpleConnection as _, StrQueryHelper};
use diesel::prelude::*;
use querywatch::{ConnectionInstrumentation, Scope, Watch, time_call};

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

/// Sends the events of a query by diesel-async on PostgreSQL.
fn events(instrumentation: &mut ConnectionInstrumentation, sql: &str) {
    let sql = StrQueryHelper::new(sql);
    instrumentation.on_connection_event(InstrumentationEvent::start_query(&sql));
    instrumentation.on_connection_event(InstrumentationEvent::finish_query(black_box(&sql), None));
}

fn callback(criterion: &mut Criterion) {
    let watch = Watch::builder().capture_locations(false).build();
    let mut instrumentation = watch.instrumentation();
    criterion.bench_function("callback", |bench| bench.iter(|| events(&mut instrumentation, SQL)));
    criterion.bench_function("callback, in a scope", |bench| {
        Scope::new(&watch, "GET /").run_sync(|| bench.iter(|| events(&mut instrumentation, SQL)));
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    criterion.bench_function("callback, in a scope and a call of its own", |bench| {
        runtime.block_on(Scope::new(&watch, "GET /").run(async {
            bench.iter(|| {
                futures_util::FutureExt::now_or_never(time_call(async { events(&mut instrumentation, SQL) })).unwrap();
            });
        }));
    });
    let mut n = 0_u64;
    criterion.bench_function("callback, a text that is new", |bench| {
        bench.iter(|| {
            n += 1;
            events(&mut instrumentation, &format!("{SQL} OFFSET {n}"));
        });
    });
    criterion.bench_function("a scope without statements", |bench| {
        bench.iter(|| Scope::new(&watch, "GET /").run_sync(|| ()));
    });
}

/// Threads that only issue one statement, which is the worst case.
fn contention(criterion: &mut Criterion) {
    for threads in [1, 2, 4] {
        let watch = Watch::builder().capture_locations(false).build();
        criterion.bench_function(&format!("callback, one shape, {threads} threads"), |bench| {
            bench.iter_custom(|times| {
                let run = || {
                    let mut instrumentation = watch.instrumentation();
                    let began = Instant::now();
                    (0..times).for_each(|_| events(&mut instrumentation, SQL));
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
    let watch = Watch::builder().capture_locations(false).build();
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
