//! `tutord doctor`: checks the dependencies of tutord, and prints one line for each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tutord_core::Timestamp;
use tutord_core::operations::DatabaseIdentity;

use crate::config::Config;
use crate::llm::{Check, OpenAi};
use crate::mail::Transport;

/// The maximum clock skew; a larger one makes tokens expire at the wrong time.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// The maximum number of users in the output.
const MAX_COLLISIONS: i64 = 100;

enum Finding {
    Ok(String),
    Skipped(&'static str),
    Failed(String),
}

/// The timeout for connecting to Redis.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout of a short reply, including the time to load a local model.
const MODEL_TIMEOUT: Duration = Duration::from_mins(1);

/// Prints the findings. Returns `true` if no check failed.
pub(super) async fn run(config: &Config) -> bool {
    let mut findings = Vec::new();
    let url = config.database.url();
    // SQLite creates a file that it is told to open; a look must not.
    let missing = url.strip_prefix("sqlite://").filter(|path| !path.is_empty() && !Path::new(path).exists());
    let opened = match missing {
        Some(path) => Err(format!("there is no database at {path} yet: run `tutord migrate` or `tutord serve`")),
        None => tutord_db::open(&url, &config.database.options()).await.map_err(|error| error.to_string()),
    };
    match opened {
        Ok(store) => {
            let before = Timestamp::now();
            let ping = store.ping().await;
            let after = Timestamp::now();
            match ping {
                Ok(clock) => {
                    let took = after.as_micros() - before.as_micros();
                    findings.push(("database", Finding::Ok(format!("{} responds in {took} µs", store.backend()))));
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
                                None => Finding::Failed("none is loaded; run `tutord migrate`".to_owned()),
                            },
                        ));
                        findings.push((
                            "writing",
                            match store.try_write().await {
                                Ok(()) => Finding::Ok("the database accepts writes".to_owned()),
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
        match OpenAi::from_settings(&config.llm, Arc::default()) {
            Ok(None) => Finding::Skipped("LLM_BASE_URL is not set: requests for new replies get a 503"),
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
                None => Finding::Skipped("SMTP_URL is not set: mails are written to files and not sent"),
                Some(Ok(())) => Finding::Ok("the mail server accepts connections and the log-in".to_owned()),
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

/// Checks the connection to Redis, and warns of settings that do not suit a cache.
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
            Some(stats) if stats.warnings.is_empty() => Finding::Ok(format!("connected, version {}", stats.version)),
            Some(stats) => {
                Finding::Ok(format!("connected, version {}; warnings: {}", stats.version, stats.warnings.join("; ")))
            }
            None => Finding::Failed("redis responded once and then stopped responding".to_owned()),
        },
        Err(_) => Finding::Failed(match cache.link().and_then(|link| link.fault) {
            Some(fault) => fault.to_string(),
            None => format!("no response within {REDIS_TIMEOUT:?}"),
        }),
    }
}

/// Describes the model, as measured by a short reply.
fn model_finding(model: &str, check: &Check) -> String {
    let mut text = format!(
        "{model} replies: first token after {} ms, {:.0} tokens a second",
        check.first_token.as_millis(),
        check.tokens_per_second
    );
    if check.is_listed == Some(false) {
        text.push_str("; the endpoint does not list this model");
    }
    if !check.differences.is_empty() {
        text.push_str("; requests have ");
        text.push_str(&check.differences.join(", "));
    }
    text
}

/// Reports accounts whose address is another form of an earlier account's address. Their users log in with the address
/// exactly as registered.
fn address_finding(users: &[i64]) -> Finding {
    if users.is_empty() {
        return Finding::Ok("no two accounts share an address".to_owned());
    }
    let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
    Finding::Ok(format!(
        "the addresses of users {} are another form of an earlier user's address; these users log in with the address as registered",
        ids.join(", ")
    ))
}

/// Checks that the database's clock lies between the local times before and after the call, within the allowed skew.
fn clock_finding(before: Timestamp, clock: Timestamp, after: Timestamp) -> Finding {
    if clock >= before - MAX_CLOCK_SKEW && clock <= after + MAX_CLOCK_SKEW {
        Finding::Ok(format!("within {MAX_CLOCK_SKEW:?} of the database's clock"))
    } else {
        Finding::Failed(format!(
            "clocks differ by more than {MAX_CLOCK_SKEW:?}: this machine {after}, the database {clock}; synchronise them"
        ))
    }
}
