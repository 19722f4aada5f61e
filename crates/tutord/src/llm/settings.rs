//! The settings of the model.

use clap::Args;
use serde_json::{Map, Value};
use url::Url;

use super::{RESERVED_FIELDS, SystemRole};
use crate::values::{Secret, http_url, size};

/// Settings of the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct LlmSettings {
    /// Base URL of an OpenAI-compatible endpoint, such as `https://api.openai.com/v1`. Without it, requests for replies
    /// get 503.
    #[arg(long, env = "LLM_BASE_URL", requires = "model", value_parser = http_url)]
    pub llm_base_url: Option<Url>,
    /// The API key of the endpoint.
    #[arg(long = "llm-api-key", env = "LLM_API_KEY", hide_env_values = true)]
    pub api_key: Option<Secret>,
    /// The name of the model at the endpoint.
    #[arg(long = "llm-model", env = "LLM_MODEL", requires = "llm_base_url")]
    pub model: Option<String>,
    /// The time limit of a whole reply, in seconds. For a stream, the limit of the wait for each piece.
    #[arg(long = "llm-timeout-seconds", env = "LLM_TIMEOUT_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub timeout_seconds: u64,
    /// The maximum number of retries of a failed request.
    #[arg(long = "llm-max-retries", env = "LLM_MAX_RETRIES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub max_retries: u32,
    /// The maximum length of the conversation in a prompt, in tokens. tutord estimates tokens, and rounds up.
    #[arg(long = "llm-context-tokens", env = "LLM_CONTEXT_TOKENS", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(256..=2_000_000))]
    pub context_tokens: u32,
    /// How long a reply is cached, in seconds. An identical request of the same student gets the cached reply. 0
    /// disables the reply cache.
    #[arg(long = "llm-cache-ttl", env = "LLM_CACHE_TTL", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(0..=604_800))]
    pub cache_ttl: u64,
    /// Requests with a higher temperature than this bypass the reply cache (0 to 2).
    #[arg(long = "llm-cache-max-temperature", env = "LLM_CACHE_MAX_TEMPERATURE", default_value_t = 0.7, value_parser = temperature)]
    pub cache_max_temperature: f64,
    /// The sampling temperature of the tutor's replies, from 0 (deterministic) to 2.
    #[arg(long = "llm-temperature", env = "LLM_TEMPERATURE", default_value_t = 0.7, value_parser = temperature)]
    pub temperature: f64,
    /// A JSON object with additional fields of each request, such as `{"reasoning_effort":"low"}`. It must not set
    /// `messages`, `model` or `stream`.
    #[arg(long = "llm-extra-body", env = "LLM_EXTRA_BODY", default_value = "{}")]
    pub extra_body: ExtraBody,
    /// The role of the instructions in a prompt. Use `user` for models whose chat template has no other role.
    #[arg(long = "llm-system-role", env = "LLM_SYSTEM_ROLE", value_enum, default_value_t = SystemRole::System)]
    pub system_role: SystemRole,
    /// The maximum size of a reply, in bytes. Longer replies are truncated.
    #[arg(long = "llm-max-reply-bytes", env = "LLM_MAX_REPLY_BYTES", default_value_t = 262_144, value_parser = size(1_024, 16_777_216))]
    pub max_reply_bytes: usize,
    /// The maximum length of a reply, grade, hint or generated exercise, in tokens.
    #[arg(long = "llm-max-reply-tokens", env = "LLM_MAX_REPLY_TOKENS", default_value_t = 2_048, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_reply_tokens: u32,
}

impl LlmSettings {
    /// Returns the model's name, or an empty string if none is configured.
    pub fn model_name(&self) -> &str {
        self.model.as_deref().unwrap_or_default()
    }
}

/// Additional fields of each request to the model.
#[derive(Debug, Clone, Default)]
pub struct ExtraBody(pub Map<String, Value>);

impl std::str::FromStr for ExtraBody {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return Err("must be a JSON object".to_owned());
        };
        match RESERVED_FIELDS.into_iter().find(|name| fields.contains_key(*name)) {
            Some(name) => Err(format!("must not set {name}")),
            None => Ok(Self(fields)),
        }
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| (0.0..=2.0).contains(value)).ok_or_else(|| "must be between 0 and 2".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_fields_are_an_object_without_reserved_fields() {
        let read = |text: &str| text.parse::<ExtraBody>().map(|extra| extra.0.len());
        assert_eq!(read("{}"), Ok(0));
        assert_eq!(read(r#"{"reasoning_effort": "low", "provider": {"order": ["a"]}}"#), Ok(2));
        for wrong in ["", "[]", "1", "{", r#"{"stream": false}"#, r#"{"messages": []}"#, r#"{"model": "m"}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(r#"{"stream": 1}"#).unwrap_err().contains("stream"));
    }
}
