//! The state of the model client.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use readthrough::Cache;

use super::{
    CachingProvider, CircuitBreaker, CountingProvider, LlmSettings, OpenAi, OpenAiConfig, Provider, ReplyCacheOptions,
    Usage,
};

/// The model client of the process; cheap to clone.
#[derive(Debug, Clone)]
pub struct LlmState {
    /// The model client, if a model is configured.
    pub provider: Option<Arc<dyn Provider>>,
    /// Counts of requests to the model.
    pub usage: Arc<Usage>,
    /// The settings of the model.
    pub settings: Arc<LlmSettings>,
}

impl LlmState {
    /// Creates the client of the configured model: with a circuit breaker, with the reply cache if caching is enabled,
    /// and counted.
    ///
    /// # Errors
    /// Returns an error if the HTTP client can't be created.
    pub fn new(settings: &LlmSettings, cache: &Cache) -> anyhow::Result<Self> {
        let usage = Arc::<Usage>::default();
        let provider = match OpenAi::from_settings(settings, Arc::clone(&usage))? {
            Some(model) => {
                let guarded = Arc::new(CircuitBreaker::new(Arc::new(model), Arc::clone(&usage)));
                let provider = with_reply_cache(guarded, settings, cache)?;
                Some(Arc::new(CountingProvider::new(provider, Arc::clone(&usage))) as Arc<dyn Provider>)
            }
            None => None,
        };
        Ok(Self { provider, usage, settings: Arc::new(settings.clone()) })
    }
}

/// Returns the model, with the reply cache in front of it if caching is enabled.
fn with_reply_cache(
    provider: Arc<dyn Provider>,
    settings: &LlmSettings,
    cache: &Cache,
) -> anyhow::Result<Arc<dyn Provider>> {
    if settings.cache_ttl == 0 || !cache.is_enabled() {
        return Ok(provider);
    }
    let options = ReplyCacheOptions {
        ttl: Duration::from_secs(settings.cache_ttl),
        max_temperature: settings.cache_max_temperature,
        timeout: Duration::from_secs(settings.timeout_seconds),
    };
    Ok(Arc::new(CachingProvider::new(provider, cache, options)?))
}

impl OpenAi {
    /// Returns the client of the configured model, or `None` without one.
    ///
    /// # Errors
    /// Returns an error if the HTTP client can't be created.
    pub fn from_settings(settings: &LlmSettings, usage: Arc<Usage>) -> anyhow::Result<Option<Self>> {
        let (Some(base_url), Some(model)) = (&settings.llm_base_url, &settings.model) else { return Ok(None) };
        let options = OpenAiConfig {
            base_url: base_url.clone(),
            api_key: settings.api_key.as_ref().map(|key| key.reveal().to_owned()),
            model: model.clone(),
            timeout: Duration::from_secs(settings.timeout_seconds),
            max_retries: settings.max_retries,
            max_reply_bytes: settings.max_reply_bytes,
            system_role: settings.system_role,
            extra_body: settings.extra_body.0.clone(),
        };
        Ok(Some(Self::new(options, usage).context("the model's HTTP client")?))
    }
}
