//! A server of the test's own, its clients, and what many tests ask of a route.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testbed::{FakeModel, Postgres, Redis};
use tokio::net::TcpListener;
use tutord::config::Config;
use tutord::state::AppState;
use tutord_core::Timestamp;
use tutord_core::model::{NewSessionTokens, NewSubmission, NewUser, Role, Transition, User};
use tutord_db::DatabaseOptions;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

/// A server without rate limits (unless its arguments set them), with a fake model and statement counts.
pub(crate) struct TestApp {
    pub(crate) app: AppState,
    pub(crate) model: FakeModel,
    pub(crate) base: String,
    pub(crate) directory: tempfile::TempDir,
    client: reqwest::Client,
    /// Whether its clients take compressed answers, as browsers do. Those of the PostgreSQL half of the tests do.
    pub(crate) compressed: bool,
    /// Fails the test when a request repeats a statement or exceeds its route's budget.
    _guard: querywatch::TestGuard,
    /// What PostgreSQL's values are cached in.
    _redis: Option<Redis>,
}

/// An answer: its status, its headers, and its body as JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A user with an access token.
pub(crate) struct Client<'a> {
    app: &'a TestApp,
    pub(crate) user: User,
    pub(crate) token: String,
}

impl TestApp {
    pub(crate) async fn sqlite(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("test.db").display());
        Self::start(url, directory, arguments, None).await
    }

    pub(crate) async fn postgres(arguments: &[&str]) -> Self {
        let migrate = async |url: String| {
            tutord_db::open(&url, &DatabaseOptions::default()).await?.migrate().await?;
            Ok(())
        };
        let postgres = Postgres::shared().await.unwrap();
        let url = postgres.database_like("tutord_api_template", migrate).await.unwrap();
        Self::start(url, tempfile::tempdir().unwrap(), arguments, Some(Redis::start().await.unwrap())).await
    }

    /// Two servers on one PostgreSQL and one Redis, and one on the same PostgreSQL without any cache.
    pub(crate) async fn two_nodes(redis: &Redis) -> [Self; 3] {
        let first = Self::postgres(&["--redis-url", &redis.url()]).await;
        let second = first.another(&["--redis-url", &redis.url()]).await;
        let uncached = first.another(&["--cache-enabled", "false"]).await;
        for node in [&first, &second] {
            node.app.cache.until_connected().await;
        }
        [first, second, uncached]
    }

    /// A server on a PostgreSQL of its own, which comes back with its replica, called `near`.
    pub(crate) async fn replicated(arguments: &[&str]) -> (Self, [Postgres; 2]) {
        let primary = Postgres::start(false).await.unwrap();
        let url = primary.empty_database().await.unwrap();
        let replica = primary.replica("near").await.unwrap();
        let arguments = [&["--database-url", &url], arguments].concat();
        (Self::sqlite(&arguments).await, [primary, replica])
    }

    /// Another server on the same database.
    pub(crate) async fn another(&self, arguments: &[&str]) -> Self {
        Self::start(self.app.config.database.url(), tempfile::tempdir().unwrap(), arguments, None).await
    }

    async fn start(url: String, directory: tempfile::TempDir, arguments: &[&str], redis: Option<Redis>) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let model = FakeModel::start().await.unwrap();
        let data_dir = directory.path().display().to_string();
        let model_url = model.base_url();
        let defaults = [
            ["--database-url", &url],
            ["--data-dir", &data_dir],
            ["--llm-base-url", &model_url],
            ["--llm-model", "fake-1"],
            ["--llm-max-retries", "0"],
            ["--server-timing", "true"],
            // A busy machine must not look like a Redis that is down.
            ["--redis-timeout-ms", "2000"],
            // Nor like a server that is asked too much.
            ["--load-shedding", "false"],
        ];
        let redis_url = redis.as_ref().map(Redis::url);
        let redis_url = redis_url.iter().map(|url| ["--redis-url", url]);
        let defaults: Vec<[&str; 2]> = defaults.into_iter().chain(redis_url).collect();
        // What a test sets itself must not be there twice.
        let defaults = defaults.iter().filter(|[name, _]| !arguments.contains(name)).flatten().copied();
        let limits =
            if arguments.contains(&"--rate-limit-enabled") { vec![] } else { vec!["--rate-limit-enabled", "false"] };
        let mut config =
            Cli::parse_from(["tutord"].into_iter().chain(defaults).chain(limits).chain(arguments.iter().copied()))
                .config;
        if arguments.contains(&"--llm-model") {
            config.llm.llm_base_url = None;
        }
        let (watch, plans) = config.watch.build();
        let store = tutord_db::open(&config.database.url(), &config.store_options(&watch)).await.unwrap();
        store.migrate().await.unwrap();
        let app = AppState::start(config, (watch.clone(), plans), store, false).unwrap();
        // A test with a Redis of its own may want it missing.
        if redis.is_some() && !arguments.contains(&"--redis-url") {
            app.cache.until_connected().await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = app.clone();
        tokio::spawn(async move { tutord::server::serve(server, listener, axum::Router::new()).await });
        // A client is costly to make; connections are not to be kept, as servers are stopped.
        let compressed = app.operations.backend() == "postgres";
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).gzip(compressed).build().unwrap();
        Self { app, model, base, directory, client, compressed, _guard: watch.fail_on_findings(), _redis: redis }
    }

    /// Issues a statement, seen by this server's watch, that takes longer than a millisecond wherever it runs.
    pub(crate) fn issue_slow_statement(&self) {
        let mut connection = SqliteConnection::establish(":memory:").unwrap();
        connection.set_instrumentation(self.app.http.watch.instrumentation());
        let count =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n";
        diesel::sql_query(count).execute(&mut connection).unwrap();
    }

    /// A verified student.
    pub(crate) async fn student(&self, name: &str) -> Client<'_> {
        self.user(name, Role::Student, true).await
    }

    pub(crate) async fn user(&self, name: &str, role: Role, email_verified: bool) -> Client<'_> {
        let user = self
            .app
            .store
            .create_user(NewUser {
                email: format!("{name}@example.com"),
                // Tests that log in with a password register first: hashing here would slow all others down.
                password_hash: "none".to_owned(),
                name: name.to_owned(),
                role,
                email_verified,
                created_at: Timestamp::now(),
            })
            .await
            .unwrap();
        let token = self.session(user.id, Duration::from_secs(3_600)).await;
        Client { app: self, user, token }
    }

    /// A new session's access token that is good for `ttl`.
    pub(crate) async fn session(&self, user_id: i64, ttl: Duration) -> String {
        let token = format!("token-{:032x}", rand::random::<u128>());
        let hash = |text: &str| Sha256::digest(text.as_bytes()).into();
        let tokens = NewSessionTokens {
            access: hash(&token),
            access_expires_at: Timestamp::now() + ttl,
            refresh: hash(&format!("refresh-{token}")),
            refresh_expires_at: Timestamp::now() + Duration::from_secs(3_600),
        };
        self.app.store.create_session(user_id, tokens).await.unwrap();
        token
    }

    /// A request without any authentication.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }
}

impl Client<'_> {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.app.request(method, path).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// The same user, asking another server.
    pub(crate) fn at<'a>(&self, app: &'a TestApp) -> Client<'a> {
        Client { app, user: self.user.clone(), token: self.token.clone() }
    }

    /// Hands in a solution of an exercise that nobody grades, so that the exercise can be completed.
    pub(crate) async fn start(&self, exercise_id: i64) {
        let store = &self.app.app.store;
        let stored = store
            .submit_solution(self.user.id, exercise_id, &NewSubmission::new("x", None), Timestamp::now())
            .await
            .unwrap();
        assert!(matches!(stored, Transition::Done(_)), "{stored:?}");
    }

    /// Begins a conversation with one exchange; its id.
    pub(crate) async fn talk(&self, message: &str) -> i64 {
        let sent = self.post("/api/chat/message", json!({"message": message})).await.ok();
        sent.body["conversation_id"].as_i64().unwrap()
    }
}

/// Sends a request and reads its answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}

impl Answer {
    #[track_caller]
    pub(crate) fn has(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.has(200)
    }

    /// Is an error of the contract's shape; its message.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, code: &str) -> &str {
        let error = &self.body["error"];
        assert_eq!((self.status.as_u16(), error["code"].as_str()), (status, Some(code)), "{:#}", self.body);
        assert_eq!(self.body.as_object().unwrap().len(), 1, "nothing but `error`");
        error["message"].as_str().expect("a message")
    }

    /// Is a refusal of one field.
    #[track_caller]
    pub(crate) fn refuses(&self, field: &str) -> &str {
        let message = self.fails(422, "VALIDATION_ERROR");
        assert_eq!(self.body["error"]["details"]["field"], field, "{:#}", self.body);
        message
    }

    /// How many statements the request issued.
    #[track_caller]
    pub(crate) fn statements(&self) -> u32 {
        let timing = self.headers["server-timing"].to_str().unwrap();
        timing.split("db_queries;desc=\"").nth(1).unwrap().trim_end_matches('"').parse().unwrap()
    }

    /// The value of a cookie that the answer sets.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.set_cookies().into_iter().find_map(|line| {
            let (key, rest) = line.split_once('=')?;
            (key == name).then(|| rest.split(';').next().unwrap_or_default().to_owned())
        })
    }

    pub(crate) fn set_cookies(&self) -> Vec<String> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }
}

/// Whether a route needs a verified address.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Needs {
    LogIn,
    VerifiedEmail,
}

/// What every protected route answers to a request without a token, with a bad or an expired one, and
/// to a user whose address is not verified.
pub(crate) async fn is_protected(app: &TestApp, needs: Needs, method: Method, path: &str, body: Option<Value>) {
    let request = |token: Option<&str>| {
        let mut request = app.request(method.clone(), path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        match &body {
            Some(body) => request.json(body),
            None => request,
        }
    };
    answer(request(None)).await.fails(401, "UNAUTHENTICATED");
    answer(request(Some("nonsense"))).await.fails(401, "UNAUTHENTICATED");
    let user = app.user(&format!("p{:x}", rand::random::<u64>()), Role::Student, needs == Needs::LogIn).await;
    let expired = app.session(user.user.id, Duration::ZERO).await;
    answer(request(Some(&expired))).await.fails(401, "TOKEN_EXPIRED");
    if needs == Needs::VerifiedEmail {
        answer(request(Some(&user.token))).await.fails(403, "EMAIL_NOT_VERIFIED");
    }
}

/// What every list answers to paging parameters that are out of bounds.
pub(crate) async fn refuses_bad_pages(client: &Client<'_>, path: &str, max: u32) {
    for limit in ["0", "-1", "1000000000", "abc", "", "1.5", &(max + 1).to_string()] {
        let message = format!("limit must be between 1 and {max}");
        assert_eq!(client.get(&format!("{path}?limit={limit}")).await.refuses("limit"), message);
    }
    for offset in ["-1", "abc", "99999999999999999999"] {
        client.get(&format!("{path}?offset={offset}")).await.refuses("offset");
    }
    for cursor in ["x", "", "AAAA", "%00"] {
        client.get(&format!("{path}?cursor={cursor}")).await.refuses("cursor");
    }
    client.get(&format!("{path}?limit={max}&offset=1000000000")).await.ok();
}

/// What every JSON route answers to bodies that are none.
pub(crate) async fn refuses_bad_bodies(client: &Client<'_>, method: Method, path: &str, optional: bool) {
    let request = |body: &'static str| client.request(method.clone(), path).body(body);
    let json = "application/json";
    answer(request("{").header("content-type", json)).await.fails(400, "MALFORMED_JSON");
    if !optional {
        answer(request("").header("content-type", json)).await.fails(400, "MALFORMED_JSON");
    }
    answer(request("[]").header("content-type", json)).await.refuses("body");
    answer(request("{}")).await.fails(415, "UNSUPPORTED_MEDIA_TYPE");
    answer(request("a=b").header("content-type", "application/x-www-form-urlencoded"))
        .await
        .fails(415, "UNSUPPORTED_MEDIA_TYPE");
    let large = format!(r#"{{"padding": "{}"}}"#, "x".repeat(1_100_000));
    let large = client.request(method.clone(), path).header("content-type", json).body(large);
    answer(large).await.fails(413, "PAYLOAD_TOO_LARGE");
}

/// Compares a file of the repository with what a test has generated, and writes the new file into `target/tmp`.
pub(crate) fn assert_generated(file: &str, generated: &str) {
    let current = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let current = std::fs::read_to_string(current).unwrap_or_default();
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Path::new(file).file_name().unwrap());
    std::fs::write(&new, generated).unwrap();
    for (generated, current) in generated.lines().zip(current.lines()) {
        assert_eq!(generated, current, "{file} is out of date; the new file is {}", new.display());
    }
    assert_eq!(generated.lines().count(), current.lines().count(), "{file}: the new file is {}", new.display());
}
