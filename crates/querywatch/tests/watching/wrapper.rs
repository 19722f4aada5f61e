//! diesel-async on SQLite, with the two ways to keep the scope.

use std::error::Error;

use diesel::prelude::{ExpressionMethods as _, QueryDsl as _};
use diesel::sqlite::SqliteConnection;
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use diesel_async::{AsyncConnection, RunQueryDsl};
use futures_util::future::BoxFuture;
use querywatch::{FindingKind, Scope, Watch, carry};

use crate::fixture::{items, shape, sqlite};

type Done<'a, R> = BoxFuture<'a, Result<R, Box<dyn Error + Send + Sync + 'static>>>;

/// On the worker thread: the task-locals are there.
struct InPlace;

impl SpawnBlocking for InPlace {
    fn spawn_blocking<'a, R: Send + 'static>(&mut self, task: impl FnOnce() -> R + Send + 'static) -> Done<'a, R> {
        Box::pin(async move { Ok(tokio::task::block_in_place(task)) })
    }

    fn get_runtime() -> Self {
        Self
    }
}

/// On another thread, which is told.
struct Carried;

impl SpawnBlocking for Carried {
    fn spawn_blocking<'a, R: Send + 'static>(&mut self, task: impl FnOnce() -> R + Send + 'static) -> Done<'a, R> {
        let task = tokio::task::spawn_blocking(querywatch::carry_sync(task));
        Box::pin(async { Ok(task.await?) })
    }

    fn get_runtime() -> Self {
        Self
    }
}

fn wrapped<S: SpawnBlocking>(watch: &Watch) -> SyncConnectionWrapper<SqliteConnection, S> {
    SyncConnectionWrapper::new(sqlite(watch))
}

/// A transaction with a loop in it: eleven statements.
async fn work<S: SpawnBlocking + Send>(conn: &mut SyncConnectionWrapper<SqliteConnection, S>) {
    conn.transaction::<_, diesel::result::Error, _>(async |conn| {
        for id in 0..8 {
            let query = items::table.filter(items::id.eq(id)).select(items::name);
            RunQueryDsl::load::<String>(query, conn).await?;
        }
        RunQueryDsl::execute(diesel::delete(items::table.find(1)), conn).await
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place() {
    let watch = Watch::builder().build();
    let mut conn = wrapped::<InPlace>(&watch);
    let (_, report) = Scope::new(&watch, "GET /").budget(11).run(work(&mut conn)).await;
    assert_eq!(report.statements, 11);
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((finding.kind, finding.calls), (FindingKind::NPlusOne, 8));
    // On the same stack as the caller: the place is known.
    assert!(finding.first_call.as_deref().unwrap().contains("wrapper.rs"), "{finding:?}");
}

#[tokio::test]
async fn on_another_thread() {
    let watch = Watch::builder().build();
    let mut conn = wrapped::<Carried>(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run(work(&mut conn)).await;
    assert_eq!((report.statements, report.findings[0].calls), (11, 8));
    assert_eq!(shape(&watch, "SELECT").routes[0].route, "GET /");
}

#[tokio::test(flavor = "multi_thread")]
async fn spawned_tasks_belong_to_the_scope_that_carries_them() {
    let watch = Watch::builder().build();
    let (mut one, mut other) = (wrapped::<InPlace>(&watch), wrapped::<InPlace>(&watch));
    let (_, report) = Scope::new(&watch, "GET /")
        .run(async {
            tokio::spawn(carry(async move { work(&mut one).await })).await.unwrap();
            tokio::spawn(async move { work(&mut other).await }).await.unwrap();
        })
        .await;
    assert_eq!(report.statements, 11);
    // Outside of every scope there is nothing to carry.
    carry(async {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_is_dropped_reports_what_it_found() {
    let watch = Watch::builder().build();
    let mut conn = wrapped::<InPlace>(&watch);
    let scope = Scope::new(&watch, "GET /").run(async {
        work(&mut conn).await;
        std::future::pending::<()>().await;
    });
    // The work is done at the first poll, as it is in place.
    assert!(futures_util::FutureExt::now_or_never(scope).is_none());
    assert_eq!(watch.findings()[0].kind, FindingKind::NPlusOne);
}
