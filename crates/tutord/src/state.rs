//! The state of the application: it fills the state of each room.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use querywatch::Watch;
use readthrough::{Cache, Identity};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tutord_core::{Database, Operations, Store};

use crate::admin::{AdminContext, AdminState};
use crate::auth::{self, Auth, AuthState, Mailer, Passwords};
use crate::background::Background;
use crate::cache::{self, CachedStore, PageSizes};
use crate::chat::{self, Chat, ChatState, InProgress};
use crate::config::Config;
use crate::dashboard::{Dashboard, DashboardSettings, DashboardState, LivePages};
use crate::exercises::{Exercises, ExercisesState};
use crate::http::admission::Admission;
use crate::http::client_ip::UntrustedProxies;
use crate::http::connection_limits;
use crate::http::connections::Connections;
use crate::http::rate_limit::RateLimits;
use crate::http::requests::Requests;
use crate::http::response_cache::ResponseCache;
use crate::http::route_table::RouteTable;
use crate::http::state::{Http, HttpState, SharedState};
use crate::llm::LlmState;
use crate::mail::Transport;
use crate::mounts;
use crate::progress::{self, Progress, ProgressState};
use crate::telemetry::one_second_cache::OneSecondCache;
use crate::telemetry::plans::Plans;
use crate::telemetry::{Telemetry, TelemetryState};
use crate::users::{Users, UsersState};

/// The sizes of the first pages that the cache replaces after a message.
pub(crate) const PAGE_SIZES: PageSizes =
    PageSizes { conversations: chat::CONVERSATIONS.default, messages: chat::MESSAGES.default };

/// The state of the application; cheap to clone.
pub type AppState = SharedState<Rooms>;

/// The parts of [`AppState`]: what rooms share, and the state of each.
pub struct Rooms {
    /// The configuration of the process.
    pub config: Config,
    /// The calls to the database for operators and background tasks.
    pub operations: Arc<dyn Operations>,
    /// The cached store.
    pub store: Arc<dyn Store>,
    /// The cache in front of the database.
    pub cache: Cache,
    /// The background tasks.
    pub background: Background,
    /// The routes.
    pub routes: Arc<RouteTable>,
    /// The HTTP layer.
    pub http: HttpState,
    /// The model.
    pub llm: LlmState,
    /// Plans of slow statements.
    pub plans: Plans,
    /// Health checks and metrics.
    pub telemetry: TelemetryState,
    /// Accounts and log-ins.
    pub auth: AuthState,
    /// Profiles.
    pub users: UsersState,
    /// Conversations.
    pub chat: ChatState,
    /// Exercises.
    pub exercises: ExercisesState,
    /// Progress.
    pub progress: ProgressState,
    /// The admin routes.
    pub admin: AdminState,
    /// The dashboard.
    pub dashboard: DashboardState,
}

impl AppState {
    /// Creates the state and starts the background tasks. `demo` also logs the links of mails.
    ///
    /// # Errors
    /// Returns an error if the configuration of a room is invalid.
    #[expect(clippy::too_many_lines, reason = "one list of all rooms")]
    pub fn start(
        config: Config,
        (watch, plans): (Watch, Plans),
        database: Arc<dyn Database>,
        demo: bool,
    ) -> anyhow::Result<Self> {
        let operations: Arc<dyn Operations> = Arc::clone(&database) as Arc<dyn Operations>;
        let cache = cache_of(&config, operations.as_ref())?;
        let cached = CachedStore::new(database, cache.clone(), &config.cache, PAGE_SIZES)?;
        let cached = Arc::new(cached);
        let store: Arc<dyn Store> = Arc::clone(&cached) as Arc<dyn Store>;
        let background = Background::default();
        let streams_end = CancellationToken::new();
        let routes = Arc::new(mounts::route_table());
        let llm = LlmState::new(&config.llm, &cache)?;
        let mailer = Mailer::new(Arc::clone(&store), &config.mail.mail_from);
        let mail_stats = Arc::clone(&mailer.stats);
        let transport = Transport::new(&config.mail, &config.database.data_dir)?;
        let limits = Arc::new(RateLimits::new(config.rate_limits.clone(), cache.clone()));
        let responses = ResponseCache::default();
        let (purge, leaderboards) = (Arc::<Notify>::default(), Arc::<Notify>::default());

        let database_connections = config.database.database_pool_size + config.database.database_max_overflow;
        let http = HttpState::new(Http {
            settings: config.http.clone(),
            watch: watch.clone(),
            requests: Requests::default(),
            untrusted_proxies: UntrustedProxies::default(),
            limits: Arc::clone(&limits),
            admission: Admission::new(config.http.load_shedding),
            connections: Connections::new(connection_limits::limits(&config.http, database_connections)),
            streams_end: streams_end.clone(),
        });
        let telemetry = TelemetryState::new(Telemetry {
            http: http.clone(),
            operations: Arc::clone(&operations),
            cache: cache.clone(),
            llm: llm.clone(),
            mail_stats: Arc::clone(&mail_stats),
            shutdown: background.shutdown.clone(),
            readiness: OneSecondCache::default(),
            metrics: OneSecondCache::default(),
        });
        let auth = AuthState::new(Auth {
            http: http.clone(),
            store: Arc::clone(&store),
            settings: config.auth.clone(),
            secure_cookies: config.secure_cookies(),
            passwords: Passwords::default(),
            mailer: mailer.clone(),
        });
        let users = UsersState::new(Users {
            auth: auth.clone(),
            store: Arc::clone(&store),
            responses: responses.clone(),
            has_model: llm.provider.is_some(),
        });
        let chat = ChatState::new(Chat {
            auth: auth.clone(),
            store: Arc::clone(&store),
            responses: responses.clone(),
            limits: Arc::clone(&limits),
            llm: llm.clone(),
            background: background.clone(),
            streams_end,
            in_progress: InProgress::default(),
            purge: Arc::clone(&purge),
        });
        let exercises = ExercisesState::new(Exercises {
            auth: auth.clone(),
            store: Arc::clone(&store),
            responses,
            limits: Arc::clone(&limits),
            llm: llm.clone(),
            leaderboards: Arc::clone(&leaderboards),
        });
        let progress = ProgressState::new(Progress {
            auth: auth.clone(),
            store: Arc::clone(&store),
            limits,
            leaderboards: Arc::clone(&leaderboards),
        });
        let admin = AdminState::new(AdminContext {
            auth: auth.clone(),
            operations: Arc::clone(&operations),
            cache: cache.clone(),
            watch: watch.clone(),
            plans: plans.clone(),
        });
        let dashboard = DashboardState::new(Dashboard {
            auth: auth.clone(),
            operations: Arc::clone(&operations),
            store: Arc::clone(&store),
            cache: cache.clone(),
            watch: watch.clone(),
            plans: plans.clone(),
            requests: http.requests.clone(),
            llm: llm.clone(),
            mail_stats,
            routes: Arc::clone(&routes),
            settings: DashboardSettings {
                slow_query_threshold_ms: config.watch.slow_query_threshold_ms,
                n_plus_one_limit: config.watch.n_plus_one_limit,
                acquire_timeout_ms: config.database.database_acquire_timeout_ms,
                writes_mails_to_files: config.mail.smtp_url.is_none(),
            },
            background: background.clone(),
            live_pages: LivePages::default(),
        });

        auth::spawn_mails(&background, mailer, transport, config.http.public_url(), demo);
        chat::spawn_purge(&background, Arc::clone(&operations), purge);
        progress::spawn_maintenance(&background, Arc::clone(&store), leaderboards);
        plans.spawn(&background, Arc::clone(&operations), watch);
        cache::spawn_warming(&background, cache.clone(), Arc::clone(&cached));
        cache::spawn_outbox(
            &background,
            cached,
            Arc::clone(&operations),
            Duration::from_secs(config.cache.longest_ttl()),
        );
        Ok(Self::new(Rooms {
            config,
            operations,
            store,
            cache,
            background,
            routes,
            http,
            llm,
            plans,
            telemetry,
            auth,
            users,
            chat,
            exercises,
            progress,
            admin,
            dashboard,
        }))
    }
}

/// Opens the cache in front of a database, and empties it when the database's identity changes.
fn cache_of(config: &Config, operations: &dyn Operations) -> anyhow::Result<Cache> {
    let cache = config.cache.build(operations.backend(), None).context("REDIS_URL")?;
    let identified = cache.clone();
    operations.on_identity(Arc::new(move |identity| {
        // Both parts consist of hexadecimal digits, so they are valid.
        identified.set_identity(identity.and_then(|identity| Identity::new(&identity.state, &identity.lineage).ok()));
    }));
    if config.cache.cache_enabled && !cache.is_enabled() {
        tracing::info!("the cache is disabled: on PostgreSQL it requires REDIS_URL");
    }
    Ok(cache)
}
