//! `tutord demo`: serves a database with sample data.

use anyhow::Context as _;
use axum::Router;
use serde::Serialize;
use tutord_core::model::{
    AppendOutcome, LearningProfile, MessageTarget, NewReply, NewUser, NewUserMessage, Role, SkillLevel,
};
use tutord_core::text::head;
use tutord_core::{Store, Timestamp};

use super::naive;
use super::serve::until_signal;
use crate::auth::hash_password;
use crate::config::Config;
use crate::server;
use crate::state::AppState;
use crate::values::Secret;

const STUDENT: &str = "student@demo.example";
const ADMIN: &str = "admin@demo.example";
/// The public password of both accounts. The demo has a database file of its own, which `serve` does not open by
/// default.
const PASSWORD: &str = "Demo-Pass-1";

/// Questions and replies for the sample conversations.
const SAMPLES: &str = include_str!("demo_samples.json");
/// The number of conversations of the demo's student, which fill more than one page.
const CONVERSATIONS: usize = 26;
/// The number of exchanges in the longest sample conversation, which fill more than two pages of messages.
const MAX_EXCHANGES: usize = 60;

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    config: Config,
    /// OutputFormat the address and the log-ins as one line of JSON.
    #[arg(long, value_enum)]
    print: Option<OutputFormat>,
    /// Add GET /api/demo/conversations, which issues two statements for each conversation, to demonstrate how N+1
    /// queries are detected and what they cost.
    #[arg(long)]
    naive: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OutputFormat {
    Json,
}

#[derive(Serialize)]
struct Login {
    email: &'static str,
    password: &'static str,
}

#[derive(Serialize)]
struct Greeting {
    base_url: String,
    student: Login,
    admin: Login,
    #[serde(skip_serializing_if = "Option::is_none")]
    compare: Option<ListUrls>,
}

/// URLs of the same list with and without N+1 queries, and of the report.
#[derive(Serialize)]
struct ListUrls {
    naive: String,
    bounded: String,
    /// The report of statements and findings, for the admin.
    report: String,
}

impl ListUrls {
    fn at(base_url: &str) -> Self {
        Self {
            naive: format!("{base_url}{}", naive::PATH),
            bounded: format!("{base_url}/api/chat/conversations"),
            report: format!("{base_url}/api/admin/queries"),
        }
    }
}

pub(super) async fn run(DemoArgs { mut config, print, naive }: DemoArgs) -> anyhow::Result<()> {
    if config.database.database_url.is_none() {
        std::fs::create_dir_all(&config.database.data_dir).context("creating the data directory (DATA_DIR)")?;
        let path = config.database.data_dir.join("demo.db");
        config.database.database_url = Some(format!("sqlite://{}", path.display()).parse::<Secret>()?);
    }
    let listener = server::bind(&config)?;
    let base_url = format!("http://{}", listener.local_addr()?);
    let (watch, plans) = config.watch.build();
    let store = super::open_with(&config.database, config.store_options(&watch)).await?;
    store.migrate().await.context("migrating the database")?;
    super::catalogue::load_built_in(store.as_ref()).await?;
    if store.credentials(ADMIN).await?.is_none() {
        // DATABASE_URL, perhaps from a `.env` file, may point to a database in production. Ids begin with 1.
        if store.user(1).await?.is_some() && store.credentials(STUDENT).await?.is_none() {
            anyhow::bail!(
                "the database of DATABASE_URL is in use: it has accounts other than the demo's, and the demo would add \
                 an admin with a public password; unset DATABASE_URL"
            );
        }
        fill(store.as_ref()).await.context("writing the sample data")?;
    }
    let app = AppState::start(config, (watch, plans), store, true)?;
    let login = |email| Login { email, password: PASSWORD };
    let greeting = Greeting {
        student: login(STUDENT),
        admin: login(ADMIN),
        compare: naive.then(|| ListUrls::at(&base_url)),
        base_url,
    };
    match print {
        Some(OutputFormat::Json) => say!("{}", serde_json::to_string(&greeting)?),
        None => {
            say!("tutord demo on {}", greeting.base_url);
            say!("  browse the API   {}/api/docs", greeting.base_url);
            say!("  student          {STUDENT}  {PASSWORD}");
            say!("  admin            {ADMIN}  {PASSWORD}");
            if app.llm.provider.is_none() {
                say!("  tutor's replies  off: set LLM_BASE_URL and LLM_MODEL to turn them on");
            }
            if let Some(ListUrls { naive, bounded, report }) = &greeting.compare {
                say!("  N+1 list         {naive}");
                say!("  same list, fixed {bounded}");
                say!("  report           {report}  (as admin; the log shows the findings too)");
            }
            say!("Press Ctrl-C to stop.");
        }
    }
    let further = if naive { naive::router().with_state(app.chat.clone()) } else { Router::new() };
    until_signal(app, listener, further).await
}

/// Inserts the sample data. The admin account is inserted last and marks the data as complete.
async fn fill(store: &dyn Store) -> anyhow::Result<()> {
    let samples: Vec<(String, String)> = serde_json::from_str(SAMPLES)?;
    let password_hash = hash_password(PASSWORD).map_err(|error| anyhow::anyhow!("argon2: {error}"))?;
    let account = |email: &str, name: &str, role| NewUser {
        email: email.to_owned(),
        password_hash: password_hash.clone(),
        name: name.to_owned(),
        role,
        email_verified: true,
        created_at: Timestamp::now(),
    };
    let student = match store.credentials(STUDENT).await? {
        // An interrupted run may have left this account.
        Some(existing) => existing.user.id,
        None => store.create_user(account(STUDENT, "Demo Student", Role::Student)).await?.id,
    };
    store
        .complete_onboarding(
            student,
            LearningProfile {
                programming_language: "python".to_owned(),
                skill_level: SkillLevel::Intermediate,
                career_goals: "Become a backend developer within a year".to_owned(),
                learning_style: "hands-on".to_owned(),
                time_commitment: "30 minutes a day".to_owned(),
            },
        )
        .await?;
    for conversation in 0..CONVERSATIONS {
        let exchanges = if conversation == 0 { MAX_EXCHANGES } else { 1 + conversation % 4 };
        let mut target = MessageTarget::New { title: head(&samples[conversation % samples.len()].0, 60).to_owned() };
        for exchange in 0..exchanges {
            let (question, answer) = &samples[(conversation + exchange) % samples.len()];
            let AppendOutcome::Stored(stored, _) = store
                .append_user_message(NewUserMessage {
                    user_id: student,
                    target,
                    content: question.clone(),
                    idempotency_key: None,
                    history: 0,
                })
                .await?
            else {
                anyhow::bail!("a sample conversation disappeared");
            };
            let message = stored.message;
            target = MessageTarget::Existing(message.conversation_id);
            store
                .append_reply(NewReply {
                    user_id: student,
                    conversation_id: message.conversation_id,
                    reply_to: message.id,
                    content: answer.as_str().into(),
                    tokens_used: crate::llm::estimate_tokens(question).cast_signed()
                        + crate::llm::estimate_tokens(answer).cast_signed(),
                    model_used: "sample".to_owned(),
                    provider: "demo".to_owned(),
                    finish_reason: "stop".to_owned(),
                    cached: false,
                    response_time_ms: 0,
                })
                .await?;
        }
    }
    store.create_user(account(ADMIN, "Demo Admin", Role::Admin)).await?;
    Ok(())
}
