//! diesel-async on SQLite, with two implementations of `SpawnBlocking`.

use std::error::Error;

use diesel::prelude::{ExpressionMethods as _, QueryDsl as _};
use diesel::sqlite::SqliteConnection;
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use diesel_async::{AsyncConnection, RunQueryDsl};
use futures_util::future::BoxFuture;
use querywatch::{FindingKind, Scope, Watch, in_current_scope};

use crate::fixture::{items, shape, sqlite};

type Done<'a, R> = BoxFuture<'a, Result<R, Box<dyn Error + Send + Sync + 'static>>>;

/// Runs on the worker thread, where task-locals are available.
struct InPlace;

impl SpawnBlocking for InPlace {
    fn spawn_blocking<'a, R: Send + 'static>(&mut self, task: impl FnOnce() -> R + Send + 'static) -> Done<'a, R> {
        Box::pin(async move { Ok(tokio::task::block_in_place(task)) })
    }

    fn get_runtime() -> Self {
        Self
    }
}

/// Runs on another thread in the current scope.
struct InScope;

impl SpawnBlocking for InScope {
    fn spawn_blocking<'a, R: Send + 'static>(&mut self, task: impl FnOnce() -> R + Send + 'static) -> Done<'a, R> {
        let task = tokio::task::spawn_blocking(querywatch::in_current_scope_sync(task));
        Box::pin(async { Ok(task.await?) })
    }

    fn get_runtime() -> Self {
        Self
    }
}

fn wrapped<S: SpawnBlocking>(watch: &Watch) -> SyncConnectionWrapper<SqliteConnection, S> {
    SyncConnectionWrapper::new(sqlite(watch))
}

/// Runs a transaction with a loop, eleven statements in all.
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
    // The stack includes the caller.
    assert!(finding.first_call.as_deref().unwrap().contains("wrapper.rs"), "{finding:?}");
}

#[tokio::test]
async fn on_another_thread() {
    let watch = Watch::builder().build();
    let mut conn = wrapped::<InScope>(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run(work(&mut conn)).await;
    assert_eq!((report.statements, report.findings[0].calls), (11, 8));
    assert_eq!(shape(&watch, "SELECT").routes[0].route, "GET /");
}

#[tokio::test(flavor = "multi_thread")]
async fn spawned_tasks_can_run_in_the_current_scope() {
    let watch = Watch::builder().build();
    let (mut one, mut other) = (wrapped::<InPlace>(&watch), wrapped::<InPlace>(&watch));
    let (_, report) = Scope::new(&watch, "GET /")
        .run(async {
            tokio::spawn(in_current_scope(async move { work(&mut one).await })).await.unwrap();
            tokio::spawn(async move { work(&mut other).await }).await.unwrap();
        })
        .await;
    assert_eq!(report.statements, 11);
    // Outside of every scope it has no effect.
    in_current_scope(async {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_scope_reports_its_findings() {
    let watch = Watch::builder().build();
    let mut conn = wrapped::<InPlace>(&watch);
    let scope = Scope::new(&watch, "GET /").run(async {
        work(&mut conn).await;
        std::future::pending::<()>().await;
    });
    // The first poll does all the work.
    assert!(futures_util::FutureExt::now_or_never(scope).is_none());
    assert_eq!(watch.findings()[0].kind, FindingKind::NPlusOne);
}
