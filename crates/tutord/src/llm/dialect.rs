//! Request parameters that the endpoint accepts, learned from its refusals.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use serde_json::{Map, Value, json};

use super::endpoint_error::EndpointError;
use super::prompt_limit::PromptLimit;
use super::transport::EndpointRefusal;
use super::{ChatMessage, ChatRequest, PromptRole};

/// The role of the instructions in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SystemRole {
    /// `system`, which most endpoints support.
    System,
    /// `developer`, OpenAI's name of the role for newer models.
    Developer,
    /// `user`: the instructions precede the text of the first user message, for chat templates without a system role.
    User,
}

/// Fields that `LLM_EXTRA_BODY` must not set.
pub const RESERVED_FIELDS: [&str; 3] = ["messages", "model", "stream"];

/// Names of the field that limits the reply's tokens, in the order in which they are tried. If the endpoint refuses
/// both, no limit is sent.
const REPLY_LIMIT_FIELDS: [&str; 2] = ["max_tokens", "max_completion_tokens"];
/// The upper bound of `percent`.
const MAX_PERCENT: u32 = 400;

/// The form of requests. Corrections last until the process ends.
#[derive(Debug)]
pub(super) struct Dialect {
    system_role: SystemRole,
    extra: Map<String, Value>,
    limit_field: AtomicU8,
    /// The maximum reply length that the endpoint accepts, in tokens.
    reply_limit: AtomicU32,
    prompt_limit: PromptLimit,
    omits_temperature: AtomicBool,
    omits_stream_options: AtomicBool,
    /// The endpoint's token count as a percentage of the estimate.
    percent: AtomicU32,
}

impl Dialect {
    pub(super) fn new(system_role: SystemRole, extra: Map<String, Value>) -> Self {
        Self {
            system_role,
            extra,
            limit_field: AtomicU8::new(0),
            reply_limit: AtomicU32::new(u32::MAX),
            prompt_limit: PromptLimit::default(),
            omits_temperature: AtomicBool::new(false),
            omits_stream_options: AtomicBool::new(false),
            percent: AtomicU32::new(100),
        }
    }

    /// Builds the body of a request.
    pub(super) fn body(&self, model: &str, request: &ChatRequest, messages: &[ChatMessage], stream: bool) -> Value {
        let mut body = Map::new();
        body.insert("model".to_owned(), model.into());
        body.insert("messages".to_owned(), self.messages(messages));
        if let Some(name) = REPLY_LIMIT_FIELDS.get(usize::from(self.limit_field.load(Ordering::Relaxed))) {
            body.insert((*name).to_owned(), self.reply_tokens(request.max_tokens).into());
        }
        if !self.omits_temperature.load(Ordering::Relaxed) {
            body.insert("temperature".to_owned(), request.temperature.into());
        }
        body.insert("stream".to_owned(), stream.into());
        if stream && !self.omits_stream_options.load(Ordering::Relaxed) {
            body.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        // A limit in `LLM_EXTRA_BODY` replaces tutord's own.
        if REPLY_LIMIT_FIELDS.iter().any(|name| self.extra.contains_key(*name)) {
            REPLY_LIMIT_FIELDS.iter().for_each(|name| drop(body.remove(*name)));
        }
        body.extend(self.extra.clone());
        Value::Object(body)
    }

    /// Returns the reply length to request: `max_tokens`, limited to what the endpoint accepts.
    fn reply_tokens(&self, max_tokens: u32) -> u32 {
        max_tokens.min(self.reply_limit.load(Ordering::Relaxed))
    }

    fn messages(&self, messages: &[ChatMessage]) -> Value {
        let role_name = |role: PromptRole| match (role, self.system_role) {
            (PromptRole::System, SystemRole::Developer) => "developer",
            (PromptRole::System, SystemRole::System) => "system",
            (PromptRole::System, SystemRole::User) | (PromptRole::User, _) => "user",
            (PromptRole::Assistant, _) => "assistant",
        };
        let mut sent: Vec<(&str, String)> = Vec::with_capacity(messages.len());
        for message in messages {
            let role = role_name(message.role);
            match sent.last_mut() {
                // Instructions in the role of the user are merged with the user's message.
                Some((last, content)) if *last == role && self.system_role == SystemRole::User => {
                    content.push_str("\n\n");
                    content.push_str(&message.content);
                }
                _ => sent.push((role, message.content.clone())),
            }
        }
        sent.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    }

    /// Adapts to a refusal of `body`; returns whether the next body differs.
    pub(super) fn adapt(&self, refusal: &EndpointRefusal, body: &Value) -> bool {
        if !matches!(refusal.status, 400 | 422) || refusal.is_too_long {
            return false;
        }
        let is_sent = |name: &str| body.get(name).is_some() && !self.extra.contains_key(name);
        let refuses = |name: &str| is_sent(name) && refusal.error.names_parameter(name);
        for name in REPLY_LIMIT_FIELDS.into_iter().filter(|name| is_sent(name)) {
            let sent = body[name].as_u64().and_then(|sent| sent.try_into().ok()).unwrap_or(u32::MAX);
            // TGI names the limit `max_new_tokens` in its errors.
            let limit = [name, "max_new_tokens"].into_iter().find_map(|name| refusal.error.reply_limit(name, sent));
            if let Some(limit) = limit {
                self.limit_replies(limit);
                return true;
            }
        }
        for (number, name) in (0_u8..).zip(REPLY_LIMIT_FIELDS) {
            if refuses(name) {
                if self.limit_field.fetch_max(number + 1, Ordering::Relaxed) <= number {
                    let next = REPLY_LIMIT_FIELDS.get(usize::from(number) + 1).unwrap_or(&"no limit");
                    tracing::info!("the model endpoint refuses {name}; sending {next} from now on");
                }
                return true;
            }
        }
        for (name, omits) in [("temperature", &self.omits_temperature), ("stream_options", &self.omits_stream_options)]
        {
            if refuses(name) {
                if !omits.swap(true, Ordering::Relaxed) {
                    tracing::info!("the model endpoint refuses {name}; omitting it from now on");
                }
                return true;
            }
        }
        false
    }

    /// Compares the estimate of a prompt with the endpoint's count, and raises later estimates if it was too low.
    pub(super) fn observe(&self, estimated: u32, counted: u32) {
        // The overhead of the template distorts the ratio of short prompts.
        if estimated >= 100 {
            let percent = u64::from(counted) * 100 / u64::from(estimated);
            self.percent
                .fetch_max(u32::try_from(percent).unwrap_or(MAX_PERCENT).clamp(100, MAX_PERCENT), Ordering::Relaxed);
        }
    }

    fn limit_replies(&self, tokens: u32) {
        if self.reply_limit.fetch_min(tokens, Ordering::Relaxed) > tokens {
            tracing::info!("the model endpoint refuses longer replies; requesting at most {tokens} tokens from now on");
        }
    }

    /// Records that the endpoint accepted a prompt of `estimated` tokens.
    pub(super) fn record_accepted(&self, estimated: u32) {
        self.prompt_limit.record_accepted(estimated);
    }

    /// Records that the endpoint refused the length of a prompt, requested with a reply of `max_tokens`. Returns the
    /// maximum estimated tokens of the next prompt, and whether the next reply is limited to fewer tokens.
    pub(super) fn record_refused(&self, estimated: u32, max_tokens: u32, error: &EndpointError) -> (u32, bool) {
        let before = self.reply_tokens(max_tokens);
        let context = error.context_tokens();
        if let Some(context) = context.filter(|context| before > context / 2) {
            // The prompt and the reply share this short context.
            self.limit_replies(context / 2);
        }
        let reply = self.reply_tokens(max_tokens);
        let stated = context.map(|context| self.to_estimated(context.saturating_sub(reply)));
        (self.prompt_limit.record_refused(estimated, stated), reply < before)
    }

    /// Converts tokens by the endpoint's count to estimated tokens.
    fn to_estimated(&self, tokens: u32) -> u32 {
        let estimated = u64::from(tokens) * 100 / u64::from(self.percent.load(Ordering::Relaxed));
        u32::try_from(estimated).unwrap_or(tokens)
    }

    /// Returns the maximum estimated tokens of a prompt with at most `tokens` tokens by the endpoint's count.
    pub(super) fn prompt_tokens(&self, tokens: u32) -> u32 {
        self.to_estimated(tokens).min(self.prompt_limit.limit())
    }

    /// Describes the parameters that differ from OpenAI's.
    pub(super) fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        match self.limit_field.load(Ordering::Relaxed) {
            0 => {}
            1 => differences.push("max_completion_tokens instead of max_tokens".to_owned()),
            _ => differences.push("no limit of the reply's tokens".to_owned()),
        }
        match self.reply_limit.load(Ordering::Relaxed) {
            u32::MAX => {}
            tokens => differences.push(format!("at most {tokens} tokens per reply")),
        }
        for (name, omits) in [("temperature", &self.omits_temperature), ("stream_options", &self.omits_stream_options)]
        {
            if omits.load(Ordering::Relaxed) {
                differences.push(format!("no {name}"));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: PromptRole, content: &str) -> ChatMessage {
        ChatMessage { role, content: content.to_owned() }
    }

    fn request() -> ChatRequest {
        ChatRequest {
            messages: Vec::new(),
            max_tokens: 9,
            temperature: 0.7,
            student: None,
            question_starts: Vec::new(),
        }
    }

    #[test]
    fn instructions_have_the_configured_role() {
        let messages = [message(PromptRole::System, "teach"), message(PromptRole::User, "why?")];
        let body = |role| Dialect::new(role, Map::new()).body("m", &request(), &messages, false);
        let question = json!({"role": "user", "content": "why?"});
        assert_eq!(body(SystemRole::System)["messages"], json!([{"role": "system", "content": "teach"}, question]));
        assert_eq!(
            body(SystemRole::Developer)["messages"],
            json!([{"role": "developer", "content": "teach"}, question])
        );
        assert_eq!(body(SystemRole::User)["messages"], json!([{"role": "user", "content": "teach\n\nwhy?"}]));
        assert_eq!(body(SystemRole::System)["temperature"], json!(0.7));
    }

    #[test]
    fn extra_fields_replace_tutords_own() {
        let extra = json!({"reasoning_effort": "low", "temperature": 1, "max_completion_tokens": 5});
        let Value::Object(extra) = extra else { unreachable!() };
        let body = Dialect::new(SystemRole::System, extra).body("m", &request(), &[], true);
        let expected = json!({
            "model": "m", "messages": [], "temperature": 1, "stream": true, "stream_options": {"include_usage": true},
            "reasoning_effort": "low", "max_completion_tokens": 5,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn estimates_rise_and_never_fall() {
        let dialect = Dialect::new(SystemRole::System, Map::new());
        dialect.observe(10, 1_000);
        assert_eq!(dialect.prompt_tokens(4_000), 4_000, "short prompts are ignored");
        dialect.observe(1_000, 1_600);
        dialect.observe(1_000, 500);
        assert_eq!(dialect.prompt_tokens(4_000), 2_500);
        dialect.observe(1_000, u32::MAX);
        assert_eq!(dialect.prompt_tokens(4_000), 1_000);
    }
}
