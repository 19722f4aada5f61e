//! `tutord doctor`: checks the dependencies of tutord, and prints one line for each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tutord_core::Timestamp;
use tutord_core::operations::DatabaseIdentity;

use crate::config::Config;
use crate::llm::{EndpointCheck, OpenAi};
use crate::mail::{MailCheck, Transport};

/// The maximum clock skew. A larger skew makes tokens expire at the wrong time.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);

/// The maximum number of users in the report.
const MAX_COLLISIONS: i64 = 100;

enum CheckResult {
    Ok(String),
    Skipped(&'static str),
    Failed(String),
}

/// The timeout for connecting to Redis.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout of a short reply, which includes the time to load a local model.
const MODEL_TIMEOUT: Duration = Duration::from_mins(1);

/// Prints the results of all checks. Returns whether all checks passed.
pub(super) async fn run(config: &Config) -> bool {
    let mut results = Vec::new();
    let url = config.database.url();
    // SQLite creates a missing file when it opens it; a check must not.
    let missing = url.strip_prefix("sqlite://").filter(|path| !path.is_empty() && !Path::new(path).exists());
    let opened = match missing {
        Some(path) => Err(format!("there is no database at {path} yet; run `tutord migrate` or `tutord serve`")),
        None => tutord_db::open(&url, &config.database.options()).await.map_err(|error| error.to_string()),
    };
    match opened {
        Ok(store) => {
            let before = Timestamp::now();
            let ping = store.ping().await;
            let after = Timestamp::now();
            match ping {
                Ok(clock) => {
                    let latency_us = after.as_micros() - before.as_micros();
                    results.push((
                        "database",
                        CheckResult::Ok(format!("{} responds in {latency_us} µs", store.backend())),
                    ));
                    results.push(("clock", check_clock(before, clock, after)));
                    let schema = store.schema().await;
                    results.push((
                        "migrations",
                        match &schema {
                            Ok(schema) => match schema.check() {
                                Err(error) => CheckResult::Failed(error.to_string()),
                                Ok(()) if schema.pending.is_empty() => CheckResult::Ok("none pending".to_owned()),
                                Ok(()) => CheckResult::Failed(format!(
                                    "pending: {}; run `tutord migrate`",
                                    schema.pending.join(", ")
                                )),
                            },
                            Err(error) => CheckResult::Failed(error.to_string()),
                        },
                    ));
                    if let Ok(schema) = &schema
                        && schema.pending.is_empty()
                    {
                        results.push((
                            "catalogue",
                            match schema.catalogue() {
                                Some(version) => CheckResult::Ok(format!("version {version}")),
                                None => CheckResult::Failed("none is loaded; run `tutord migrate`".to_owned()),
                            },
                        ));
                        results.push((
                            "writing",
                            match store.try_write().await {
                                Ok(()) => CheckResult::Ok("the database accepts writes".to_owned()),
                                Err(error) => CheckResult::Failed(error.to_string()),
                            },
                        ));
                    }
                }
                Err(error) => results.push(("database", CheckResult::Failed(error.to_string()))),
            }
            if let Ok(users) = store.address_collisions(MAX_COLLISIONS).await {
                results.push(("addresses", check_addresses(&users)));
            }
        }
        Err(error) => results.push(("database", CheckResult::Failed(error))),
    }
    results.push((
        "redis",
        match &config.cache.redis_url {
            None => CheckResult::Skipped("REDIS_URL is not set"),
            Some(_) => check_redis(config).await,
        },
    ));
    results.push((
        "model",
        match OpenAi::from_settings(&config.llm, Arc::default()) {
            Ok(None) => CheckResult::Skipped("LLM_BASE_URL is not set: requests for replies get a 503"),
            Ok(Some(model)) => match tokio::time::timeout(MODEL_TIMEOUT, model.check()).await {
                Ok(Ok(check)) => CheckResult::Ok(describe_model(config.llm.model_name(), &check)),
                Ok(Err(error)) => CheckResult::Failed(error.to_string()),
                Err(_) => CheckResult::Failed(format!("no reply within {MODEL_TIMEOUT:?}")),
            },
            Err(error) => CheckResult::Failed(error.to_string()),
        },
    ));
    results.push((
        "mail",
        match Transport::new(&config.mail, &config.database.data_dir) {
            Ok(transport) => match transport.check().await {
                MailCheck::WritesFiles => {
                    CheckResult::Skipped("SMTP_URL is not set: mails are written to files and not sent")
                }
                MailCheck::Accepted => CheckResult::Ok("the mail server accepts connections and the log-in".to_owned()),
                MailCheck::Failed(cause) => CheckResult::Failed(cause),
            },
            Err(error) => CheckResult::Failed(format!("{error:#}")),
        },
    ));
    for (name, finding) in &results {
        let (mark, text) = match finding {
            CheckResult::Ok(text) => ("ok", text.as_str()),
            CheckResult::Skipped(text) => ("skipped", *text),
            CheckResult::Failed(text) => ("FAILED", text.as_str()),
        };
        say!("{name:<11} {mark:<8} {text}");
    }
    !results.iter().any(|(_, finding)| matches!(finding, CheckResult::Failed(_)))
}

/// Checks the connection to Redis, and reports settings that are unsuitable for a cache.
async fn check_redis(config: &Config) -> CheckResult {
    let nameless = DatabaseIdentity { state: String::new(), lineage: String::new() };
    let cache = match config.cache.build("redis", Some(&nameless)) {
        Ok(cache) => cache,
        Err(error) => return CheckResult::Failed(error.to_string()),
    };
    if !cache.is_enabled() {
        return CheckResult::Skipped("CACHE_ENABLED is false");
    }
    match tokio::time::timeout(REDIS_TIMEOUT, cache.until_connected()).await {
        Ok(()) => match cache.redis_stats().await {
            Some(stats) if stats.warnings.is_empty() => {
                CheckResult::Ok(format!("connected, version {}", stats.version))
            }
            Some(stats) => CheckResult::Ok(format!(
                "connected, version {}; warnings: {}",
                stats.version,
                stats.warnings.join("; ")
            )),
            None => CheckResult::Failed("redis responded once and then stopped responding".to_owned()),
        },
        Err(_) => CheckResult::Failed(match cache.connection_stats().and_then(|link| link.fault) {
            Some(fault) => fault.to_string(),
            None => format!("no response within {REDIS_TIMEOUT:?}"),
        }),
    }
}

/// Describes the model, as measured by a short reply.
fn describe_model(model: &str, check: &EndpointCheck) -> String {
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

/// Reports accounts whose address is equivalent to the address of an earlier account. Their users log in with the
/// address exactly as registered.
fn check_addresses(users: &[i64]) -> CheckResult {
    if users.is_empty() {
        return CheckResult::Ok("no two accounts share an address".to_owned());
    }
    let ids: Vec<String> = users.iter().map(ToString::to_string).collect();
    CheckResult::Ok(format!(
        "the addresses of users {} are equivalent to those of earlier users; these users log in with the address exactly as registered",
        ids.join(", ")
    ))
}

/// Checks that the database's clock lies between the local times before and after the call, within the allowed skew.
fn check_clock(before: Timestamp, clock: Timestamp, after: Timestamp) -> CheckResult {
    if clock >= before - MAX_CLOCK_SKEW && clock <= after + MAX_CLOCK_SKEW {
        CheckResult::Ok(format!("within {MAX_CLOCK_SKEW:?} of the database's clock"))
    } else {
        CheckResult::Failed(format!(
            "clocks differ by more than {MAX_CLOCK_SKEW:?}: this machine {after}, the database {clock}; synchronize them"
        ))
    }
}
