//! PostgreSQL transactions whose connection is cut between any two messages of the protocol.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use diesel_async::{RunQueryDsl as _, SimpleAsyncConnection as _};
use testbed::PostgresProxy;
use testbed::postgres_proxy::Direction::{self, ToClient, ToServer};
use tokio_postgres::Client;
use tutord_core::model::{Message, MessageTarget, NewSessionTokens, NewUserMessage};
use tutord_core::{Database, Error, Result, Timestamp};
use tutord_db::DatabaseOptions;
use tutord_db::postgres::Connector;

use crate::exercises::moment;
use crate::fixture::{self, Fixture, message, reply};

/// A bound for the number of messages of a call.
const MANY: usize = 200;

/// A store whose only connection leads through a proxy.
struct Cut {
    fixture: Fixture,
    proxy: PostgresProxy,
    /// The address of the database behind the proxy.
    url: String,
    store: Arc<dyn Database>,
    client: Client,
    /// The connections past the proxy.
    others: i64,
}

impl Cut {
    async fn start(fixture: Fixture) -> Self {
        let (address, name) = fixture.url.rsplit_once('/').unwrap();
        let (host, port) = address.rsplit_once(':').unwrap();
        let proxy = PostgresProxy::start(port.parse().unwrap()).await.unwrap();
        let options = DatabaseOptions { pool_size: 1, max_overflow: 0, ..DatabaseOptions::default() };
        let url = format!("{host}:{}/{name}", proxy.port());
        let store = tutord_db::open(&url, &options).await.unwrap();
        let client = fixture.client().await;
        // Opens the only connection of the fixture.
        fixture.ping().await.unwrap();
        let mut cut = Self { fixture, proxy, url, store, client, others: 0 };
        cut.others = cut.connections().await;
        cut
    }

    async fn connections(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'tutord'";
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Opens a new connection if the last one was cut, and waits until the server has ended that one.
    async fn recover(&self) {
        self.store.ping().await.unwrap();
        while self.connections().await > self.others + 1 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the numbers that a query selects, as of one instant.
    async fn state(&self, sql: &str) -> Vec<i64> {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Cuts the connection at each message of a call, on a connection where its statements are prepared and on one where
    /// they are not. The call must increase each of the numbers that `sql` selects by one, or none of them. Returns the
    /// violations.
    async fn violations<T, F>(&self, sql: &str, call: impl Fn() -> F) -> Vec<String>
    where
        F: Future<Output = Result<T>>,
    {
        let mut violations = Vec::new();
        for (direction, is_warm) in [(ToServer, true), (ToServer, false), (ToClient, true), (ToClient, false)] {
            let mut messages = 0;
            loop {
                let (is_cut, violation) = self.cut_at(messages, direction, is_warm, sql, &call).await;
                violations.extend(violation);
                if !is_cut {
                    break;
                }
                messages += 1;
                assert!(messages < MANY, "a call has fewer messages");
            }
            assert!(messages > 3, "{direction:?}: {messages} messages");
        }
        violations
    }

    /// Returns whether the call had so many messages, and a violation.
    async fn cut_at<T, F: Future<Output = Result<T>>>(
        &self,
        messages: usize,
        direction: Direction,
        is_warm: bool,
        sql: &str,
        call: impl Fn() -> F,
    ) -> (bool, Option<String>) {
        if is_warm {
            call().await.map(drop).unwrap();
        }
        let before = self.state(sql).await;
        self.proxy.cut_after(direction, messages);
        let outcome = call().await.map(drop);
        let is_cut = !self.proxy.cancel_cut();
        self.recover().await;
        let after = self.state(sql).await;
        let stored: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let is_atomic = stored.iter().all(|change| *change == stored[0] && (0..=1).contains(change));
        let is_acknowledged = outcome.is_err() || stored[0] == 1;
        let place = || format!("{direction:?}, {messages} messages, prepared: {is_warm}: {outcome:?}, {stored:?}");
        assert!(is_cut || outcome.is_ok(), "{}", place());
        (is_cut, (!is_atomic || !is_acknowledged).then(place))
    }
}

async fn cut() -> Cut {
    Cut::start(fixture::postgres().await).await
}

fn keyed(new: NewUserMessage) -> NewUserMessage {
    let key = format!("key-{:016x}", rand::random::<u64>());
    NewUserMessage { idempotency_key: Some(key), history: 5, ..new }
}

const NONE: [String; 0] = [];

/// The messages, the counted messages and the keys.
const MESSAGES: &str = "SELECT ARRAY[(SELECT count(*) FROM messages), \
    (SELECT sum(message_count)::bigint FROM conversations), (SELECT count(*) FROM idempotency_keys)]";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_stored_completely_or_not_at_all() {
    let cut = cut().await;
    let user = cut.fixture.student("ada").await.id;
    let id = cut.fixture.conversation(user, "talk").await;
    let new = || keyed(message(user, MessageTarget::Existing(id), "why?"));
    assert_eq!(cut.violations(MESSAGES, || cut.store.append_user_message(new())).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_and_its_first_message_are_stored_completely_or_not_at_all() {
    let cut = cut().await;
    let user = cut.fixture.student("ada").await.id;
    cut.fixture.conversation(user, "talk").await;
    let sql = MESSAGES.replace("[(SELECT", "[(SELECT count(*) FROM conversations), (SELECT");
    let new = || keyed(message(user, MessageTarget::New { title: "another".to_owned() }, "why?"));
    assert_eq!(cut.violations(&sql, || cut.store.append_user_message(new())).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_stored_completely_or_not_at_all() {
    let cut = cut().await;
    let user = cut.fixture.student("ada").await.id;
    let id = cut.fixture.conversation(user, "talk").await;
    let question = cut.fixture.say(user, id, "why?").await;
    let sql = MESSAGES.replace("(SELECT count(*) FROM idempotency_keys)", "(SELECT count(reply_to) FROM messages)");
    let number = AtomicI64::new(0);
    // Each reply answers a message of its own, which need not exist.
    let next = || Message { id: number.fetch_add(1, Ordering::Relaxed), ..question.clone() };
    assert_eq!(cut.violations(&sql, || cut.store.append_reply(reply(user, &next(), "because"))).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_stored_completely_or_not_at_all() {
    let cut = cut().await;
    let user = cut.fixture.student("ada").await.id;
    let sql = "SELECT ARRAY[(SELECT count(*) FROM sessions), \
        (SELECT count(*) FROM session_tokens WHERE purpose = 'access'), \
        (SELECT count(*) FROM session_tokens WHERE purpose = 'refresh')]";
    let tokens = || NewSessionTokens {
        access: rand::random(),
        access_expires_at: Timestamp::now() + Duration::from_secs(60),
        refresh: rand::random(),
        refresh_expires_at: Timestamp::now() + Duration::from_secs(60),
    };
    assert_eq!(cut.violations(sql, || cut.store.create_session(user, tokens())).await, NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_stored_completely_or_not_at_all() {
    let cut = cut().await;
    let user = cut.fixture.student("ada").await.id;
    let ids = cut.fixture.catalogue(6 * MANY).await;
    let sql = "SELECT ARRAY[(SELECT count(*) FROM user_exercises WHERE completed_at IS NOT NULL), \
        (SELECT sum(exercises_completed)::bigint FROM users), \
        (SELECT coalesce(sum(exercises_completed), 0)::bigint FROM activity WHERE period = 'all'), \
        (SELECT coalesce(sum(exercises_completed), 0)::bigint FROM skill_levels WHERE topic = 'all')]";
    let next = AtomicUsize::new(0);
    let complete = async || {
        let id = ids[next.fetch_add(1, Ordering::Relaxed)];
        cut.fixture.start(user, id).await;
        cut.store.complete_exercise(user, id, None, moment(0, 0)).await
    };
    assert_eq!(cut.violations(sql, complete).await, NONE);
}

/// A transaction whose `COMMIT` does not wait for statements that are being prepared.
async fn naive(connector: &Connector, id: i64) -> Result<()> {
    let conn = tutord_db::postgres::connect(connector).await.map_err(|error| Error::Unavailable(error.to_string()))?;
    let (mut begin, mut first, mut second, mut commit) = (&conn, &conn, &conn, &conn);
    let count = format!("UPDATE conversations SET message_count = message_count + 1 WHERE id = {id}");
    let message = format!(
        "INSERT INTO messages (conversation_id, position, role, content, created_at) \
         SELECT id, message_count, 'user', 'why?', now() FROM conversations WHERE id = {id}"
    );
    futures_util::try_join!(
        begin.batch_execute("BEGIN"),
        async { diesel::sql_query(count).execute(&mut first).await.map(drop) },
        async { diesel::sql_query(message).execute(&mut second).await.map(drop) },
        commit.batch_execute("COMMIT"),
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_overtakes_a_statement_is_a_violation() {
    let cut = cut().await;
    let user = cut.fixture.student("ada").await.id;
    let id = cut.fixture.conversation(user, "talk").await;
    let connector = Connector::new(&cut.url, &DatabaseOptions::default()).unwrap();
    let sql = MESSAGES.replace(", (SELECT count(*) FROM idempotency_keys)", "");
    assert_ne!(cut.violations(&sql, || naive(&connector, id)).await, NONE);
}
