//! What others change in PostgreSQL is seen, on every node.

use serde_json::Value;
use testbed::{Postgres, Redis};
use tutord_core::model::{Role, UserChanges};
use tutord_db::DatabaseOptions;

use crate::exercises::load_catalogue;
use crate::harness::{Client, TestApp};

async fn read(client: &Client<'_>, path: &str) -> (u16, Value) {
    let found = client.get(path).await;
    (found.status.as_u16(), found.body)
}

/// Has both nodes keep an answer, changes the database behind their backs, and waits until both show what it holds.
async fn seen(clients: &[&Client<'_>; 3], path: &str, change: impl AsyncFnOnce()) {
    let [first, second, uncached] = clients;
    let before = read(uncached, path).await;
    for client in [first, second] {
        while read(client, path).await != before {
            tokio::task::yield_now().await;
        }
    }
    change().await;
    let expected = read(uncached, path).await;
    assert_ne!(expected, before, "{path}: the change makes a difference");
    for client in [first, second] {
        while read(client, path).await != expected {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_of_another_program_is_seen_on_both_nodes() {
    let redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_nodes(&redis).await;
    load_catalogue(&first).await;
    let ada = first.user("ada", Role::Student, true).await;
    let id = ada.talk("hello").await;
    let (on_second, on_uncached) = (ada.at(&second), ada.at(&uncached));
    let clients = [&ada, &on_second, &on_uncached];
    let url = first.app.config.database.url();
    let psql = Postgres::shared().await.unwrap().client(url.rsplit('/').next().unwrap()).await.unwrap();
    let user = ada.user.id;
    let sql = async |text: String| psql.batch_execute(&text).await.unwrap();
    seen(&clients, "/api/users/me", async || sql(format!("UPDATE users SET name = 'Typed' WHERE id = {user}")).await)
        .await;
    seen(&clients, "/api/chat/conversations", async || {
        sql(format!("UPDATE conversations SET title = 'typed' WHERE id = {id}")).await;
    })
    .await;
    seen(&clients, &format!("/api/chat/conversations/{id}"), async || {
        sql("UPDATE messages SET content = 'typed'".to_owned()).await;
    })
    .await;
    seen(&clients, "/api/exercises/3", async || {
        sql("UPDATE exercises SET title = 'typed' WHERE id = 3".to_owned()).await;
    })
    .await;
    seen(&clients, "/api/progress/achievements", async || {
        sql("UPDATE achievements SET title = 'typed'".to_owned()).await;
    })
    .await;
    seen(&clients, "/api/progress/skill-levels", async || {
        sql(format!(
            "INSERT INTO skill_levels (user_id, topic, level, level_updated_at) VALUES ({user}, 'typed', 'beginner', now())"
        ))
        .await;
    })
    .await;
    // All users at once, and then nobody is logged in.
    seen(&clients, "/api/users/me", async || sql("UPDATE users SET bio = 'typed'".to_owned()).await).await;
    seen(&clients, "/api/users/me", async || sql("UPDATE sessions SET revoked_at = now()".to_owned()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_process_died_before_it_invalidated_is_seen() {
    let redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_nodes(&redis).await;
    let ada = first.student("ada").await;
    let (on_second, on_uncached) = (ada.at(&second), ada.at(&uncached));
    let url = first.app.config.database.url();
    // One that writes like a node, and gets no further than its commit.
    let killed = tutord_db::open(&url, &DatabaseOptions { node: Some(7), ..DatabaseOptions::default() }).await.unwrap();
    seen(&[&ada, &on_second, &on_uncached], "/api/users/me", async || {
        let changes = UserChanges { name: Some("of the killed one".to_owned()), ..UserChanges::default() };
        killed.update_user(ada.user.id, changes).await.unwrap().unwrap();
        drop(killed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_acknowledge_what_they_wrote_and_the_outbox_becomes_empty() {
    let redis = Redis::start().await.unwrap();
    let [first, second, _] = TestApp::two_nodes(&redis).await;
    let ada = first.student("ada").await;
    ada.talk("hello").await;
    ada.at(&second).talk("hello from elsewhere").await;
    let url = first.app.config.database.url();
    let psql = Postgres::shared().await.unwrap().client(url.rsplit('/').next().unwrap()).await.unwrap();
    while psql.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
}
