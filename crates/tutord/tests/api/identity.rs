//! Cached values belong to one state of one database.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use testbed::{Postgres, Redis};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::database::ReplicatedPostgres;
use crate::support::fixtures::store;
use crate::support::{TestApp, TestClient, database};

/// Returns the name of a student in the profile.
async fn profile_name(client: &TestClient<'_>) -> String {
    client.get("/api/users/me").await.assert_ok().body["name"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the profile has this name.
async fn until_named(client: &TestClient<'_>, expected: &str) {
    loop {
        let response = client.get("/api/users/me").await;
        if response.body["name"] == expected {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn start_node(url: &str, redis: &Redis) -> TestApp {
    TestApp::on_database(url).redis(redis).start().await
}

async fn start_rate_limited_node(url: &str, redis: &Redis) -> TestApp {
    TestApp::on_database(url).redis(redis).rate_limits().start().await
}

/// Logs in with a wrong password; returns the status.
async fn fail_to_log_in(node: &TestApp) -> u16 {
    let body = serde_json::json!({"email": "ada@example.com", "password": "wrong password"});
    node.post("/api/auth/login", body).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_and_two_schemas_share_no_value_in_one_redis() {
    let redis = Redis::start().await.unwrap();
    let postgres = Postgres::shared().await.unwrap();
    let (first, second) = (postgres.empty_database().await.unwrap(), postgres.empty_database().await.unwrap());
    database::execute(&first, "CREATE SCHEMA other").await;
    let schema = format!("{first}?options=-csearch_path%3Dother");
    let nodes =
        [start_node(&first, &redis).await, start_node(&second, &redis).await, start_node(&schema, &redis).await];
    let mut students = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        students.push(node.student(&format!("student{number}")).await);
    }
    let id = students[0].user_id;
    assert!(students.iter().all(|student| student.user_id == id), "the students differ only by their database");
    for _ in 0..3 {
        for (number, student) in students.iter().enumerate() {
            assert_eq!(profile_name(student).await, format!("student{number}"));
            for node in nodes.iter().filter(|node| node.base_url != nodes[number].base_url) {
                student.on_node(node).get("/api/users/me").await.assert_error(401, "UNAUTHENTICATED");
            }
        }
    }
    let hits: u64 = nodes.iter().flat_map(|node| node.cache().stats()).map(|stats| stats.hits()).sum();
    assert!(hits > 0, "the cache has no hits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_in_place_changes_the_identity() {
    let redis = Redis::start().await.unwrap();
    let url = Postgres::shared().await.unwrap().empty_database().await.unwrap();
    let nodes = [start_node(&url, &redis).await, start_node(&url, &redis).await];
    let ada = nodes[0].student("ada").await;
    let elsewhere = ada.on_node(&nodes[1]);
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        assert_eq!(profile_name(client).await, "ada");
    }
    // `pg_restore --clean` recreates the tables and copies rows without triggers.
    database::execute(
        &url,
        "CREATE SCHEMA dump; CREATE TABLE dump.users AS SELECT * FROM users; CREATE TABLE dump.sessions AS SELECT * FROM sessions; \
         CREATE TABLE dump.session_tokens AS SELECT * FROM session_tokens",
    )
    .await;
    database::execute(&url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    store::migrate(url.clone()).await.unwrap();
    database::execute(
        &url,
        "SET session_replication_role = replica; UPDATE dump.users SET name = 'restored'; \
         INSERT INTO users SELECT * FROM dump.users; INSERT INTO sessions SELECT * FROM dump.sessions; \
         INSERT INTO session_tokens SELECT * FROM dump.session_tokens",
    )
    .await;
    until_named(&ada, "restored").await;
    until_named(&elsewhere, "restored").await;
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        assert_eq!(profile_name(client).await, "restored");
    }
}

/// Returns an address whose new connections go to the current target.
async fn forward(target: &Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = Arc::clone(target);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let target = *target.lock().unwrap();
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(target).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    address
}

fn address(server: &Postgres) -> SocketAddr {
    server.base_url().rsplit('@').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_promotion_lost_leaves_the_cache() {
    let redis = Redis::start().await.unwrap();
    let ReplicatedPostgres { mut primary, replica, url } = ReplicatedPostgres::start().await;
    let target = Arc::new(Mutex::new(address(&primary)));
    let through = forward(&target).await;
    let url = format!("postgres://postgres@{through}/{}", database::name(&url));
    let nodes = [start_node(&url, &redis).await, start_node(&url, &redis).await];
    let ada = nodes[0].student("ada").await;
    let elsewhere = ada.on_node(&nodes[1]);
    let limited = start_rate_limited_node(&url, &redis).await;
    while fail_to_log_in(&limited).await != 429 {}
    let replayed = replica.client(database::name(&url)).await.unwrap();
    let sessions = "SELECT count(*) FROM sessions";
    while replayed.query_one(sessions, &[]).await.map_or(0, |row| row.get::<_, i64>(0)) == 0 {
        tokio::task::yield_now().await;
    }
    // The replica stops receiving the writes of the primary.
    replayed.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    replayed.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
    while replayed.query_one(receivers, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    ada.put("/api/users/me", serde_json::json!({"name": "lost"})).await.assert_ok();
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        until_named(client, "lost").await;
    }
    let changes = nodes[0].cache().identity_changes();
    primary.kill().unwrap();
    *target.lock().unwrap() = address(&replica);
    replica.promote().await.unwrap();
    let promoted = replica.client(database::name(&url)).await.unwrap();
    let name: String =
        promoted.query_one("SELECT name FROM users WHERE id = $1", &[&ada.user_id]).await.unwrap().get(0);
    assert_eq!(name, "ada", "the promotion lost the last write");
    until_named(&ada, &name).await;
    until_named(&elsewhere, &name).await;
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        assert_eq!(profile_name(client).await, name);
    }
    // A new process has the counts of Redis: a failover allows no further attempts.
    assert_eq!(fail_to_log_in(&start_rate_limited_node(&url, &redis).await).await, 429);
    assert!(nodes[0].cache().identity_changes() > changes, "the cache counts the change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_role_reads_the_identity_which_a_standby_lacks_until_its_promotion() {
    let primary = Postgres::start(false).await.unwrap();
    let url = primary.empty_database().await.unwrap();
    store::migrate(url.clone()).await.unwrap();
    let replica = primary.replica("near").await.unwrap();
    let database = database::name(&url);
    primary.client(database).await.unwrap().batch_execute("CREATE ROLE plain LOGIN").await.unwrap();
    let known = store::database_identity(&url).await.unwrap();
    assert_eq!(store::database_identity(&url.replace("postgres@", "plain@")).await, Some(known.clone()));
    assert_eq!(store::database_identity(&replica.url(database)).await, None);
    replica.promote().await.unwrap();
    let promoted = store::database_identity(&replica.url(database)).await.unwrap();
    assert_eq!((promoted.lineage == known.lineage, promoted.state == known.state), (true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_another_process_to_sqlite_is_visible() {
    let app = TestApp::sqlite().start().await;
    let ada = app.student("ada").await;
    assert_eq!(profile_name(&ada).await, "ada");
    app.execute_sql("UPDATE users SET name = 'typed'").await;
    until_named(&ada, "typed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_cannot_serve_a_sqlite_file_but_can_migrate_it() {
    let app = TestApp::sqlite().start().await;
    let url = app.database_url();
    let error = store::serve_error(&url).await;
    assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("test.db"), "{error}");
    store::migrate(url).await.unwrap();
}
