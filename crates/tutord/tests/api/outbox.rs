//! Every node sees the changes of other programs in PostgreSQL.

use serde_json::Value;
use testbed::{Postgres, Redis};

use crate::support::fixtures::exercises::exercise_path;
use crate::support::fixtures::store;
use crate::support::{TestApp, TestClient};

async fn read(client: &TestClient<'_>, path: &str) -> (u16, Value) {
    let response = client.get(path).await;
    (response.status.as_u16(), response.body)
}

/// Fills the caches of both nodes, changes the database past them, and waits until both return the new value.
async fn assert_seen(clients: &[&TestClient<'_>; 3], path: &str, change: impl AsyncFnOnce()) {
    let [first, second, uncached] = clients;
    let before = read(uncached, path).await;
    for client in [first, second] {
        while read(client, path).await != before {
            tokio::task::yield_now().await;
        }
    }
    change().await;
    let expected = read(uncached, path).await;
    assert_ne!(expected, before, "{path}: the change is visible");
    for client in [first, second] {
        while read(client, path).await != expected {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_see_the_statements_of_another_program() {
    let redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_cached_nodes_and_one_uncached(&redis).await;
    let exercise = first.load_catalogue().await[2];
    let ada = first.student("ada").await;
    let conversation = ada.start_conversation("hello").await;
    let id = conversation.id;
    let (on_second, on_uncached) = (ada.on_node(&second), ada.on_node(&uncached));
    let clients = [&ada, &on_second, &on_uncached];
    let psql = Postgres::shared().await.unwrap().client(&first.database_name()).await.unwrap();
    let user = ada.user_id;
    let sql = async |text: String| psql.batch_execute(&text).await.unwrap();
    assert_seen(&clients, "/api/users/me", async || {
        sql(format!("UPDATE users SET name = 'Typed' WHERE id = {user}")).await;
    })
    .await;
    assert_seen(&clients, "/api/chat/conversations", async || {
        sql(format!("UPDATE conversations SET title = 'typed' WHERE id = {id}")).await;
    })
    .await;
    assert_seen(&clients, &conversation.path(), async || {
        sql("UPDATE messages SET content = 'typed'".to_owned()).await;
    })
    .await;
    assert_seen(&clients, &exercise_path(exercise), async || {
        sql(format!("UPDATE exercises SET title = 'typed' WHERE id = {exercise}")).await;
    })
    .await;
    assert_seen(&clients, "/api/progress/achievements", async || {
        sql("UPDATE achievements SET title = 'typed'".to_owned()).await;
    })
    .await;
    assert_seen(&clients, "/api/progress/skill-levels", async || {
        sql(format!(
            "INSERT INTO skill_levels (user_id, topic, level, level_updated_at) VALUES ({user}, 'typed', 'beginner', now())"
        ))
        .await;
    })
    .await;
    // All users at once, and then all sessions.
    assert_seen(&clients, "/api/users/me", async || sql("UPDATE users SET bio = 'typed'".to_owned()).await).await;
    assert_seen(&clients, "/api/users/me", async || sql("UPDATE sessions SET revoked_at = now()".to_owned()).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_see_a_changed_role_and_a_deactivation_by_another_program() {
    let redis = Redis::start().await.unwrap();
    let [first, second, _] = TestApp::two_cached_nodes_and_one_uncached(&redis).await;
    let ada = first.student("ada").await;
    let on_second = ada.on_node(&second);
    for (change, path, expected) in [
        ("role = 'admin'", "/api/admin/cache", 200),
        ("email_verified = false", "/api/chat/conversations", 403),
        ("email_verified = true", "/api/chat/conversations", 200),
        ("is_active = false", "/api/chat/conversations", 403),
    ] {
        for client in [&ada, &on_second, &ada, &on_second] {
            let before = client.get(path).await.status;
            assert_ne!(before, expected, "{path} before {change}");
        }
        first.execute_sql(&format!("UPDATE users SET {change} WHERE id = {}", ada.user_id)).await;
        for client in [&ada, &on_second] {
            while client.get(path).await.status != expected {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_see_a_write_whose_process_died_before_the_invalidation() {
    let redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_cached_nodes_and_one_uncached(&redis).await;
    let ada = first.student("ada").await;
    let (on_second, on_uncached) = (ada.on_node(&second), ada.on_node(&uncached));
    assert_seen(&[&ada, &on_second, &on_uncached], "/api/users/me", async || {
        store::rename_without_invalidation(&ada, "renamed").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_acknowledge_their_writes_until_the_outbox_is_empty() {
    let redis = Redis::start().await.unwrap();
    let [first, second, _] = TestApp::two_cached_nodes_and_one_uncached(&redis).await;
    let ada = first.student("ada").await;
    ada.start_conversation("hello").await;
    ada.on_node(&second).start_conversation("hello from elsewhere").await;
    let psql = Postgres::shared().await.unwrap().client(&first.database_name()).await.unwrap();
    while psql.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
}
