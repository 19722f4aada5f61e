//! What is cached belongs to one database as it is now.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use testbed::{Postgres, Redis};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tutord_db::DatabaseOptions;

use crate::harness::{Client, TestApp};
use crate::process::execute;

/// The name that a student has in an answer.
async fn name(client: &Client<'_>) -> String {
    client.get("/api/users/me").await.ok().body["name"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a student is shown under this name.
async fn until_named(client: &Client<'_>, expected: &str) {
    loop {
        let answer = client.get("/api/users/me").await;
        if answer.body["name"] == expected {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A node on a database that is migrated first.
async fn node(url: &str, redis: &Redis) -> TestApp {
    let node = TestApp::sqlite(&["--database-url", url, "--redis-url", &redis.url()]).await;
    node.app.cache.until_connected().await;
    node
}

/// A node that limits requests.
async fn limited_node(url: &str, redis: &Redis) -> TestApp {
    let arguments = ["--database-url", url, "--redis-url", &redis.url(), "--rate-limit-enabled", "true"];
    let node = TestApp::sqlite(&arguments).await;
    node.app.cache.until_connected().await;
    node
}

/// The status of a log-in with a wrong password.
async fn wrong_log_in(node: &TestApp) -> u16 {
    let body = serde_json::json!({"email": "ada@example.com", "password": "wrong password"});
    node.post("/api/auth/login", body).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_and_two_schemas_share_nothing_in_one_redis() {
    let redis = Redis::start().await.unwrap();
    let postgres = Postgres::shared().await.unwrap();
    let (first, second) = (postgres.empty_database().await.unwrap(), postgres.empty_database().await.unwrap());
    execute(&first, "CREATE SCHEMA other").await;
    let schema = format!("{first}?options=-csearch_path%3Dother");
    let nodes = [node(&first, &redis).await, node(&second, &redis).await, node(&schema, &redis).await];
    let mut students = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        students.push(node.student(&format!("student{number}")).await);
    }
    assert!(students.iter().all(|student| student.user.id == 1), "they differ by their database alone");
    for _ in 0..3 {
        for (number, student) in students.iter().enumerate() {
            assert_eq!(name(student).await, format!("student{number}"));
            for node in nodes.iter().filter(|node| node.base != nodes[number].base) {
                student.at(node).get("/api/users/me").await.fails(401, "UNAUTHENTICATED");
            }
        }
    }
    let answered: u64 = nodes.iter().flat_map(|node| node.app.cache.stats()).map(|stats| stats.hits()).sum();
    assert!(answered > 0, "nothing was cached");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_restored_in_place_are_another_database() {
    let redis = Redis::start().await.unwrap();
    let url = Postgres::shared().await.unwrap().empty_database().await.unwrap();
    let nodes = [node(&url, &redis).await, node(&url, &redis).await];
    let ada = nodes[0].student("ada").await;
    let elsewhere = ada.at(&nodes[1]);
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        assert_eq!(name(client).await, "ada");
    }
    // As `pg_restore --clean` does: the tables are made anew, and no trigger notes what is copied into them.
    execute(
        &url,
        "CREATE SCHEMA dump; CREATE TABLE dump.users AS SELECT * FROM users; CREATE TABLE dump.sessions AS SELECT * FROM sessions; \
         CREATE TABLE dump.session_tokens AS SELECT * FROM session_tokens",
    )
    .await;
    execute(&url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    let again = tutord_db::open(&url, &DatabaseOptions::default()).await.unwrap();
    again.migrate().await.unwrap();
    execute(
        &url,
        "SET session_replication_role = replica; UPDATE dump.users SET name = 'restored'; \
         INSERT INTO users SELECT * FROM dump.users; INSERT INTO sessions SELECT * FROM dump.sessions; \
         INSERT INTO session_tokens SELECT * FROM dump.session_tokens",
    )
    .await;
    until_named(&ada, "restored").await;
    until_named(&elsewhere, "restored").await;
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        assert_eq!(name(client).await, "restored");
    }
}

/// An address that leads to one server after the other; connections that are open stay where they are.
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
async fn what_a_promotion_lost_is_not_read_from_the_cache() {
    let redis = Redis::start().await.unwrap();
    let mut primary = Postgres::start(false).await.unwrap();
    let url = primary.empty_database().await.unwrap();
    let replica = primary.replica("near").await.unwrap();
    let target = Arc::new(Mutex::new(address(&primary)));
    let through = forward(&target).await;
    let url = format!("postgres://postgres@{through}/{}", url.rsplit('/').next().unwrap());
    let nodes = [node(&url, &redis).await, node(&url, &redis).await];
    let ada = nodes[0].student("ada").await;
    let elsewhere = ada.at(&nodes[1]);
    let limited = limited_node(&url, &redis).await;
    while wrong_log_in(&limited).await != 429 {}
    let replayed = replica.client(url.rsplit('/').next().unwrap()).await.unwrap();
    let known = "SELECT count(*) FROM sessions";
    while replayed.query_one(known, &[]).await.map_or(0, |row| row.get::<_, i64>(0)) == 0 {
        tokio::task::yield_now().await;
    }
    // It hears nothing of the primary any more.
    replayed.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    replayed.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
    while replayed.query_one(receivers, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
    ada.put("/api/users/me", serde_json::json!({"name": "lost"})).await.ok();
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        until_named(client, "lost").await;
    }
    let changes = nodes[0].app.cache.identity_changes();
    primary.kill().unwrap();
    *target.lock().unwrap() = address(&replica);
    replica.promote().await.unwrap();
    let kept = replica.client(url.rsplit('/').next().unwrap()).await.unwrap();
    let kept: String = kept.query_one("SELECT name FROM users WHERE id = 1", &[]).await.unwrap().get(0);
    assert_eq!(kept, "ada", "the promotion lost the last write");
    until_named(&ada, &kept).await;
    until_named(&elsewhere, &kept).await;
    for client in [&ada, &elsewhere, &ada, &elsewhere] {
        assert_eq!(name(client).await, kept);
    }
    // A process that knows nothing but what Redis holds: a failover gives no one new attempts.
    assert_eq!(wrong_log_in(&limited_node(&url, &redis).await).await, 429);
    assert!(nodes[0].app.cache.identity_changes() > changes, "it is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_role_may_read_the_identity_and_a_standby_has_none() {
    let primary = Postgres::start(false).await.unwrap();
    let url = primary.empty_database().await.unwrap();
    tutord_db::open(&url, &DatabaseOptions::default()).await.unwrap().migrate().await.unwrap();
    let replica = primary.replica("near").await.unwrap();
    let database = url.rsplit('/').next().unwrap();
    primary.client(database).await.unwrap().batch_execute("CREATE ROLE plain LOGIN").await.unwrap();
    let identity = async |url: String| {
        let store = tutord_db::open(&url, &DatabaseOptions::default()).await.unwrap();
        store.database_identity().await.unwrap()
    };
    let known = identity(url.clone()).await.unwrap();
    assert_eq!(identity(url.replace("postgres@", "plain@")).await, Some(known.clone()));
    assert_eq!(identity(replica.url(database)).await, None);
    replica.promote().await.unwrap();
    let promoted = identity(replica.url(database)).await.unwrap();
    assert_eq!((promoted.lineage == known.lineage, promoted.state == known.state), (true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_writes_to_sqlite_is_seen() {
    let app = TestApp::sqlite(&[]).await;
    let ada = app.student("ada").await;
    assert_eq!(name(&ada).await, "ada");
    execute(&app.app.config.database.url(), "UPDATE users SET name = 'typed'").await;
    until_named(&ada, "typed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_serves_a_sqlite_file_and_commands_work_beside_it() {
    let app = TestApp::sqlite(&[]).await;
    let url = app.app.config.database.url();
    let served = DatabaseOptions { serves: true, ..DatabaseOptions::default() };
    let Err(refused) = tutord_db::open(&url, &served).await else { panic!("a second one serves") };
    let refused = refused.to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())) && refused.contains("test.db"), "{refused}");
    tutord_db::open(&url, &DatabaseOptions::default()).await.unwrap().migrate().await.unwrap();
}
