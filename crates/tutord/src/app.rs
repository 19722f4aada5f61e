//! The application state that the features share, and the router of their routes.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use querywatch::Watch;
use readthrough::{Cache, Identity};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tutord_core::{Database, Operations, Store};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Mailer, Passwords};
use crate::cache::{self, CachedStore};
use crate::chat::InProgress;
use crate::config::{Config, LlmConfig};
use crate::error::ApiError;
use crate::http::admission::Admission;
use crate::http::answers::Answers;
use crate::http::client_ip::UntrustedProxies;
use crate::http::connections::Connections;
use crate::http::rate_limit::RateLimits;
use crate::http::{aliases, middleware, openapi};
use crate::llm::{Breaker, Cached, Counted, OpenAi, OpenAiConfig, Provider, ReplyCacheOptions, Usage};
use crate::mail::Transport;
use crate::ops::dashboard::LivePages;
use crate::ops::health::Readiness;
use crate::ops::metrics::Requests;
use crate::ops::plans::{self, Plans};
use crate::ops::snapshot::Snapshot;
use crate::{auth, chat, exercises, ops, progress, server, users};

/// The time that streams get at shutdown to store what they received.
pub(crate) const STREAMS_GRACE: Duration = Duration::from_secs(2);

/// The state of every handler; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
pub struct Parts {
    /// The configuration of the process.
    pub config: Config,
    /// The store, with the cache in front of it.
    pub store: Arc<dyn Store>,
    /// The calls to the database for operators and background tasks.
    pub operations: Arc<dyn Operations>,
    /// The cache in front of the database.
    pub cache: Cache,
    /// Serialized responses of cached values.
    pub answers: Answers,
    /// The watch, which observes every SQL statement.
    pub watch: Watch,
    /// Plans of slow statements.
    pub plans: Plans,
    /// Counts and times of requests.
    pub requests: Requests,
    /// The readiness of the process, at most a second old.
    pub readiness: Snapshot<Readiness>,
    /// The response of `/metrics`, at most a second old.
    pub metrics: Snapshot<Result<Bytes, ApiError>>,
    /// Untrusted proxies that were logged.
    pub untrusted_proxies: UntrustedProxies,
    /// The open live pages of the dashboard.
    pub live_pages: LivePages,
    /// The model client, if a model is configured.
    pub llm: Option<Arc<dyn Provider>>,
    /// Counts of requests to the model.
    pub llm_usage: Arc<Usage>,
    /// The queue of outgoing mails.
    pub mailer: Mailer,
    /// The password hasher.
    pub passwords: Passwords,
    /// The rate limiter.
    pub limits: RateLimits,
    /// The admission control, which sheds load.
    pub admission: Arc<Admission>,
    /// The open client connections.
    pub connections: Arc<Connections>,
    /// Tasks that outlive their request; shutdown waits for them.
    pub tasks: TaskTracker,
    /// Cancelled when the server begins to shut down.
    pub shutdown: CancellationToken,
    /// Cancelled when the time of streams to complete by themselves is over.
    pub streams_end: CancellationToken,
    /// The replies that this process is generating.
    pub in_progress: InProgress,
    /// Notified when a deleted conversation is ready to be purged.
    pub purge: Notify,
    /// Notified when leaderboard entries have changed.
    pub leaderboards: Notify,
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Returns the client of the configured model, or `None` without one.
///
/// # Errors
/// Returns an error if the HTTP client can't be created.
pub fn model(config: &LlmConfig, usage: Arc<Usage>) -> anyhow::Result<Option<OpenAi>> {
    let (Some(base_url), Some(model)) = (&config.llm_base_url, &config.model) else { return Ok(None) };
    let options = OpenAiConfig {
        base_url: base_url.clone(),
        api_key: config.api_key.as_ref().map(|key| key.reveal().to_owned()),
        model: model.clone(),
        timeout: Duration::from_secs(config.timeout_seconds),
        max_retries: config.max_retries,
        max_reply_bytes: config.max_reply_bytes,
        system_role: config.system_role,
        extra_body: config.extra_body.0.clone(),
    };
    Ok(Some(OpenAi::new(options, usage).context("the model's HTTP client")?))
}

/// Returns the model, with the reply cache in front of it if caching is enabled.
fn kept(provider: Arc<dyn Provider>, config: &LlmConfig, cache: &Cache) -> Arc<dyn Provider> {
    if config.cache_ttl == 0 || !cache.is_enabled() {
        return provider;
    }
    let options = ReplyCacheOptions {
        ttl: Duration::from_secs(config.cache_ttl),
        max_temperature: config.cache_max_temperature,
        timeout: Duration::from_secs(config.timeout_seconds),
    };
    Arc::new(Cached::new(provider, cache, options))
}

impl App {
    /// Creates the parts and starts the background tasks. `demo` also logs the links of mails.
    ///
    /// # Errors
    /// Returns an error if the configuration of a part is invalid.
    pub fn new(
        config: Config,
        (watch, plans): (Watch, Plans),
        database: Arc<dyn Database>,
        demo: bool,
    ) -> anyhow::Result<Self> {
        let tasks = TaskTracker::new();
        let cache = config.cache.build(database.backend(), None).context("REDIS_URL")?;
        let told = cache.clone();
        database.on_identity(Arc::new(move |identity| {
            // Its names are hexadecimal digits.
            told.set_identity(identity.and_then(|identity| Identity::new(&identity.state, &identity.lineage).ok()));
        }));
        if config.cache.cache_enabled && !cache.is_enabled() {
            tracing::info!("the cache is disabled: on PostgreSQL it requires REDIS_URL");
        }
        let cached = Arc::new(CachedStore::new(Arc::clone(&database), cache.clone(), &config.cache));
        let store: Arc<dyn Store> = Arc::clone(&cached) as Arc<dyn Store>;
        let mailer = Mailer::new(Arc::clone(&store), &config.mail.mail_from);
        let transport = Transport::new(&config.mail, &config.database.data_dir)?;
        let llm_usage = Arc::<Usage>::default();
        let app = Self(Arc::new(Parts {
            llm: model(&config.llm, Arc::clone(&llm_usage))?.map(|model| {
                let guarded = Arc::new(Breaker::new(Arc::new(model), Arc::clone(&llm_usage)));
                let provider = kept(guarded, &config.llm, &cache);
                Arc::new(Counted::new(provider, Arc::clone(&llm_usage))) as Arc<dyn Provider>
            }),
            llm_usage,
            mailer,
            passwords: Passwords::default(),
            admission: Admission::new(config.http.load_shedding),
            connections: Connections::new(server::limits(&config)),
            limits: RateLimits::new(config.rate_limits.clone(), cache.clone()),
            tasks,
            shutdown: CancellationToken::new(),
            streams_end: CancellationToken::new(),
            in_progress: InProgress::default(),
            purge: Notify::new(),
            leaderboards: Notify::new(),
            config,
            store,
            operations: database,
            cache,
            answers: Answers::default(),
            watch,
            plans,
            requests: Requests::default(),
            readiness: Snapshot::default(),
            metrics: Snapshot::default(),
            untrusted_proxies: UntrustedProxies::default(),
            live_pages: LivePages::default(),
        }));
        auth::spawn_mails(&app, transport, demo);
        chat::spawn_purge(&app);
        progress::spawn_upkeep(&app);
        plans::spawn(&app);
        cache::spawn_warming(&app, Arc::clone(&cached));
        cache::spawn_outbox(&app, cached);
        Ok(app)
    }

    /// Returns the router of all routes, with the shared layers.
    pub fn router(&self) -> Router {
        self.router_with(Router::new())
    }

    /// Returns [`router`](Self::router) plus routes that are not part of the API.
    fn router_with(&self, further: Router<Self>) -> Router {
        let api = OpenApiRouter::with_openapi(openapi::Description::openapi())
            .nest("/api/auth", auth::router())
            .nest("/api/users", users::router())
            .nest("/api/chat", chat::router())
            .nest("/api/exercises", exercises::router())
            .nest("/api/progress", progress::router())
            .nest("/api/admin", ops::cache::router().merge(ops::queries::router()))
            .nest("/api", aliases::router())
            .nest("/api", ops::health::router())
            .routes(routes!(ops::metrics::metrics));
        let (router, description) = api.split_for_parts();
        // Without the prefix too: orchestrators and load balancers ask there by default.
        let router = router
            .route("/health", get(ops::health::health))
            .route("/live", get(ops::health::live))
            .route("/ready", get(ops::health::ready))
            .merge(auth::pages())
            .merge(ops::dashboard::router())
            .merge(openapi::router(&description))
            .merge(further);
        middleware::wrap(router, self).with_state(self.clone())
    }

    /// Serves until `shutdown` is cancelled, then stops accepting and drains: requests and streams get
    /// `SHUTDOWN_TIMEOUT_SECONDS` to complete. Then streams are ended and store what they received.
    pub async fn serve(self, listener: TcpListener) {
        self.serve_with(listener, Router::new()).await;
    }

    /// Serves like [`serve`](Self::serve), plus routes that are not part of the API.
    pub async fn serve_with(self, listener: TcpListener, further: Router<Self>) {
        let router = self.router_with(further);
        server::serve(&self, listener, router).await;
        self.stop().await;
    }

    /// Stops the background tasks and waits for them.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let tasks = self.tasks.clone();
        drop(self);
        tasks.close();
        if tokio::time::timeout(STREAMS_GRACE, tasks.wait()).await.is_err() {
            tracing::warn!("background tasks were still running at the shutdown deadline");
        }
    }
}
