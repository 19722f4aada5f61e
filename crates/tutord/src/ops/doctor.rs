//! Checks what tutord depends on, one line each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tutord_store::{DatabaseIdentity, Timestamp};

use crate::app;
use crate::config::Config;
use crate::llm::Check;
use crate::mail::Transport;

/// A clock that is further off than this makes tokens expire at the wrong time.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// The most users that are named.
const MAX_COLLISIONS: i64 = 100;

enum Finding {
    Ok(String),
    Skipped(&'static str),
    Failed(String),
}

/// How long Redis may take to be connected to.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the model may take for a tiny reply. Local ones are loaded first.
const MODEL_TIMEOUT: Duration = Duration::from_mins(1);

/// Prints the findings; `true` when nothing failed.
pub async fn run(config: &Config) -> bool {
    let mut findings = Vec::new();
    let url = config.database.url();
    // SQLite creates a file that it is told to open; a look must not.
    let missing = url.strip_prefix("sqlite://").filter(|path| !path.is_empty() && !Path::new(path).exists());
    let opened = match missing {
        Some(path) => Err(format!("there is no database at {path} yet: run `tutord migrate` or `tutord serve`")),
        None => tutord_store::open(&url, &config.database.options()).await.map_err(|error| error.to_string()),
    };
    match opened {
        Ok(store) => {
            let before = Timestamp::now();
            let ping = store.ping().await;
            let after = Timestamp::now();
            match ping {
                Ok(clock) => {
                    let took = after.as_micros() - before.as_micros();
                    findings.push(("database", Finding::Ok(format!("{} answers in {took} µs", store.backend()))));
                    findings.push(("clock", clock_finding(before, clock, after)));
                    let schema = store.schema().await;
                    findings.push((
                        "migrations",
                        match &schema {
                            Ok(schema) => match schema.check() {
                                Err(error) => Finding::Failed(error.to_string()),
                                Ok(()) if schema.pending.is_empty() => Finding::Ok("none pending".to_owned()),
                                Ok(()) => Finding::Failed(format!(
                                    "pending: {}; run `tutord migrate`",
                                    schema.pending.join(", ")
                                )),
                            },
                            Err(error) => Finding::Failed(error.to_string()),
                        },
                    ));
                    if let Ok(schema) = &schema
                        && schema.pending.is_empty()
                    {
                        findings.push((
                            "catalogue",
                            match schema.catalogue() {
                                Some(version) => Finding::Ok(format!("version {version}")),
                                None => Finding::Failed("none was loaded; run `tutord migrate`".to_owned()),
                            },
                        ));
                        findings.push((
                            "writing",
                            match store.try_write().await {
                                Ok(()) => Finding::Ok("the database takes writes".to_owned()),
                                Err(error) => Finding::Failed(error.to_string()),
                            },
                        ));
                    }
                }
                Err(error) => findings.push(("database", Finding::Failed(error.to_string()))),
            }
            if let Ok(users) = store.address_collisions(MAX_COLLISIONS).await {
                findings.push(("addresses", address_finding(&users)));
            }
        }
        Err(error) => findings.push(("database", Finding::Failed(error))),
    }
    findings.push((
        "redis",
        match &config.cache.redis_url {
            None => Finding::Skipped("REDIS_URL is not set"),
            Some(_) => redis(config).await,
        },
    ));
    findings.push((
        "model",
        match app::model(&config.llm, Arc::default()) {
            Ok(None) => Finding::Skipped("LLM_BASE_URL is not set: new replies answer 503"),
            Ok(Some(model)) => match tokio::time::timeout(MODEL_TIMEOUT, model.check()).await {
                Ok(Ok(check)) => Finding::Ok(model_finding(config.llm.model_name(), &check)),
                Ok(Err(error)) => Finding::Failed(error.to_string()),
                Err(_) => Finding::Failed(format!("no reply within {MODEL_TIMEOUT:?}")),
            },
            Err(error) => Finding::Failed(error.to_string()),
        },
    ));
    findings.push((
        "mail",
        match Transport::new(&config.mail, &config.database.data_dir) {
            Ok(transport) => match transport.check().await {
                None => Finding::Skipped("SMTP_URL is not set: mails are written to files, and reach nobody"),
                Some(Ok(())) => Finding::Ok("the mail server takes connections and the log-in".to_owned()),
                Some(Err(cause)) => Finding::Failed(cause),
            },
            Err(error) => Finding::Failed(format!("{error:#}")),
        },
    ));
    for (name, finding) in &findings {
        let (mark, text) = match finding {
            Finding::Ok(text) => ("ok", text.as_str()),
            Finding::Skipped(text) => ("skipped", *text),
            Finding::Failed(text) => ("FAILED", text.as_str()),
        };
        say!("{name:<11} {mark:<8} {text}");
    }
    !findings.iter().any(|(_, finding)| matches!(finding, Finding::Failed(_)))
}

/// Whether Redis can be used, and what of its settings does not suit a cache.
async fn redis(config: &Config) -> Finding {
    let nameless = DatabaseIdentity { state: String::new(), lineage: String::new() };
    let cache = match config.cache.build("redis", Some(&nameless)) {
        Ok(cache) => cache,
        Err(error) => return Finding::Failed(error.to_string()),
    };
    if !cache.is_enabled() {
        return Finding::Skipped("CACHE_ENABLED is false");
    }
    match tokio::time::timeout(REDIS_TIMEOUT, cache.until_connected()).await {
        Ok(()) => match cache.redis().await {
            Some(stats) if stats.warnings.is_empty() => Finding::Ok(format!("answers, version {}", stats.version)),
            Some(stats) => {
                Finding::Ok(format!("answers, version {}; but {}", stats.version, stats.warnings.join("; ")))
            }
            None => Finding::Failed("it answered once, and then no more".to_owned()),
        },
        Err(_) => Finding::Failed(match cache.link().and_then(|link| link.fault) {
            Some(fault) => fault.to_string(),
            None => format!("no answer within {REDIS_TIMEOUT:?}"),
        }),
    }
}

/// What a tiny reply has shown of the model.
fn model_finding(model: &str, check: &Check) -> String {
    let mut text = format!(
        "{model} replies: first token after {} ms, {:.0} tokens a second",
        check.first_token.as_millis(),
        check.tokens_per_second
    );
    if check.is_listed == Some(false) {
        text.push_str("; the endpoint's list of models does not name it");
    }
    if !check.differences.is_empty() {
        text.push_str("; it is sent ");
        text.push_str(&check.differences.join(", "));
    }
    text
}

/// Accounts whose address is another form of an earlier account's: they work, with the address exactly as it was registered.
fn address_finding(users: &[i64]) -> Finding {
    if users.is_empty() {
        return Finding::Ok("each has one account".to_owned());
    }
    let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
    Finding::Ok(format!(
        "users {} have an address that is another form of an earlier user's; they log in with it as they registered it",
        ids.join(", ")
    ))
}

/// The database's clock must lie between ours before and after, give or take the allowed skew.
fn clock_finding(before: Timestamp, clock: Timestamp, after: Timestamp) -> Finding {
    if clock >= before - MAX_CLOCK_SKEW && clock <= after + MAX_CLOCK_SKEW {
        Finding::Ok(format!("within {MAX_CLOCK_SKEW:?} of the database's"))
    } else {
        Finding::Failed(format!("this machine says {after}, the database {clock}"))
    }
}
