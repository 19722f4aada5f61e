//! What the endpoint understands, as far as its refusals have shown.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use serde_json::{Map, Value, json};

use super::endpoint_error::EndpointError;
use super::lengths::PromptLimit;
use super::transport::Refusal;
use super::{ChatMessage, ChatRequest, Role};

/// Who speaks the instructions, as the endpoint is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SystemRole {
    /// `system`, which most endpoints know.
    System,
    /// `developer`, as OpenAI names it for its newer models.
    Developer,
    /// The instructions begin the first message of the user: for templates without a role for them.
    User,
}

/// Fields of a request that LLM_EXTRA_BODY must not set.
pub const RESERVED_FIELDS: [&str; 3] = ["messages", "model", "stream"];

/// The names of the bound on a reply's tokens, in the order in which they are tried; without any the endpoint decides.
const BOUNDS: [&str; 2] = ["max_tokens", "max_completion_tokens"];
/// The most tokens by the endpoint's count for each 100 that were estimated.
const MOST: u32 = 400;

/// What is sent, until the end of the process.
#[derive(Debug)]
pub(super) struct Dialect {
    system_role: SystemRole,
    extra: Map<String, Value>,
    bound: AtomicU8,
    /// The most tokens of a reply that the endpoint accepts.
    reply_limit: AtomicU32,
    prompt_limit: PromptLimit,
    without_temperature: AtomicBool,
    without_stream_options: AtomicBool,
    /// Tokens by the endpoint's count for each 100 that were estimated.
    percent: AtomicU32,
}

impl Dialect {
    pub(super) fn new(system_role: SystemRole, extra: Map<String, Value>) -> Self {
        Self {
            system_role,
            extra,
            bound: AtomicU8::new(0),
            reply_limit: AtomicU32::new(u32::MAX),
            prompt_limit: PromptLimit::default(),
            without_temperature: AtomicBool::new(false),
            without_stream_options: AtomicBool::new(false),
            percent: AtomicU32::new(100),
        }
    }

    /// The body of a request.
    pub(super) fn body(&self, model: &str, request: &ChatRequest, messages: &[ChatMessage], stream: bool) -> Value {
        let mut body = Map::new();
        body.insert("model".to_owned(), model.into());
        body.insert("messages".to_owned(), self.messages(messages));
        if let Some(name) = BOUNDS.get(usize::from(self.bound.load(Ordering::Relaxed))) {
            body.insert((*name).to_owned(), self.reply_tokens(request.max_tokens).into());
        }
        if !self.without_temperature.load(Ordering::Relaxed) {
            body.insert("temperature".to_owned(), request.temperature.into());
        }
        body.insert("stream".to_owned(), stream.into());
        if stream && !self.without_stream_options.load(Ordering::Relaxed) {
            body.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        // Of two bounds the configured one is meant.
        if BOUNDS.iter().any(|name| self.extra.contains_key(*name)) {
            BOUNDS.iter().for_each(|name| drop(body.remove(*name)));
        }
        body.extend(self.extra.clone());
        Value::Object(body)
    }

    /// The most tokens that a reply may have, of those that are wanted.
    fn reply_tokens(&self, max_tokens: u32) -> u32 {
        max_tokens.min(self.reply_limit.load(Ordering::Relaxed))
    }

    fn messages(&self, messages: &[ChatMessage]) -> Value {
        let named = |role: Role| match (role, self.system_role) {
            (Role::System, SystemRole::Developer) => "developer",
            (Role::System, SystemRole::System) => "system",
            (Role::System, SystemRole::User) | (Role::User, _) => "user",
            (Role::Assistant, _) => "assistant",
        };
        let mut sent: Vec<(&str, String)> = Vec::with_capacity(messages.len());
        for message in messages {
            let role = named(message.role);
            match sent.last_mut() {
                // Instructions in the name of the user precede the user's own words.
                Some((last, content)) if *last == role && self.system_role == SystemRole::User => {
                    content.push_str("\n\n");
                    content.push_str(&message.content);
                }
                _ => sent.push((role, message.content.clone())),
            }
        }
        sent.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    }

    /// Learns from a refusal of `body`; returns whether the next body differs.
    pub(super) fn learn(&self, refusal: &Refusal, body: &Value) -> bool {
        if !matches!(refusal.status, 400 | 422) || refusal.is_too_long {
            return false;
        }
        let is_sent = |name: &str| body.get(name).is_some() && !self.extra.contains_key(name);
        let refuses = |name: &str| is_sent(name) && refusal.error.names(name);
        for name in BOUNDS.into_iter().filter(|name| is_sent(name)) {
            let sent = body[name].as_u64().and_then(|sent| sent.try_into().ok()).unwrap_or(u32::MAX);
            // TGI has a name of its own for it.
            let bound = [name, "max_new_tokens"].into_iter().find_map(|name| refusal.error.bound(name, sent));
            if let Some(bound) = bound {
                self.limit_replies(bound);
                return true;
            }
        }
        for (number, name) in (0_u8..).zip(BOUNDS) {
            if refuses(name) {
                if self.bound.fetch_max(number + 1, Ordering::Relaxed) <= number {
                    let next = BOUNDS.get(usize::from(number) + 1).unwrap_or(&"no bound");
                    tracing::info!("the model endpoint refuses {name}; {next} is sent from now on");
                }
                return true;
            }
        }
        for (name, without) in
            [("temperature", &self.without_temperature), ("stream_options", &self.without_stream_options)]
        {
            if refuses(name) {
                if !without.swap(true, Ordering::Relaxed) {
                    tracing::info!("the model endpoint refuses {name}; it is left out from now on");
                }
                return true;
            }
        }
        false
    }

    /// Tells what a prompt had by the endpoint's own count: the estimate rises where it was too low.
    pub(super) fn observe(&self, estimated: u32, counted: u32) {
        // A few tokens more say nothing of the rest.
        if estimated >= 100 {
            let percent = u64::from(counted) * 100 / u64::from(estimated);
            self.percent.fetch_max(u32::try_from(percent).unwrap_or(MOST).clamp(100, MOST), Ordering::Relaxed);
        }
    }

    fn limit_replies(&self, tokens: u32) {
        if self.reply_limit.fetch_min(tokens, Ordering::Relaxed) > tokens {
            tracing::info!(
                "the model endpoint refuses longer replies; at most {tokens} tokens are requested from now on"
            );
        }
    }

    /// Records that the endpoint accepted a prompt of so many estimated tokens.
    pub(super) fn accept(&self, estimated: u32) {
        self.prompt_limit.accept(estimated);
    }

    /// Records that the endpoint refused a prompt because of its length, where a reply of `max_tokens` was wanted. Returns
    /// the most estimated tokens that the next one may have, and whether its reply is shorter.
    pub(super) fn refuse(&self, estimated: u32, max_tokens: u32, error: &EndpointError) -> (u32, bool) {
        let before = self.reply_tokens(max_tokens);
        let context = error.context_tokens();
        if let Some(context) = context.filter(|context| before > context / 2) {
            // A context this short is shared by the prompt and the reply.
            self.limit_replies(context / 2);
        }
        let reply = self.reply_tokens(max_tokens);
        let stated = context.map(|context| self.estimated(context.saturating_sub(reply)));
        (self.prompt_limit.refuse(estimated, stated), reply < before)
    }

    /// Returns how many tokens by the estimate are so many by the endpoint's count.
    fn estimated(&self, tokens: u32) -> u32 {
        let estimated = u64::from(tokens) * 100 / u64::from(self.percent.load(Ordering::Relaxed));
        u32::try_from(estimated).unwrap_or(tokens)
    }

    /// Returns the most estimated tokens of a prompt that is to have at most `tokens` by the endpoint's count.
    pub(super) fn prompt_tokens(&self, tokens: u32) -> u32 {
        self.estimated(tokens).min(self.prompt_limit.limit())
    }

    /// What is left out or sent under another name.
    pub(super) fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        match self.bound.load(Ordering::Relaxed) {
            0 => {}
            1 => differences.push("max_completion_tokens instead of max_tokens".to_owned()),
            _ => differences.push("no bound on the reply's tokens".to_owned()),
        }
        match self.reply_limit.load(Ordering::Relaxed) {
            u32::MAX => {}
            tokens => differences.push(format!("at most {tokens} tokens a reply")),
        }
        for (name, without) in
            [("temperature", &self.without_temperature), ("stream_options", &self.without_stream_options)]
        {
            if without.load(Ordering::Relaxed) {
                differences.push(format!("no {name}"));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: Role, content: &str) -> ChatMessage {
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
    fn instructions_are_in_the_name_that_is_configured() {
        let messages = [message(Role::System, "teach"), message(Role::User, "why?")];
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
    fn extra_fields_are_sent_and_come_before_tutords_own() {
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
    fn the_estimate_rises_and_never_falls() {
        let dialect = Dialect::new(SystemRole::System, Map::new());
        dialect.observe(10, 1_000);
        assert_eq!(dialect.prompt_tokens(4_000), 4_000, "too few to say something");
        dialect.observe(1_000, 1_600);
        dialect.observe(1_000, 500);
        assert_eq!(dialect.prompt_tokens(4_000), 2_500);
        dialect.observe(1_000, u32::MAX);
        assert_eq!(dialect.prompt_tokens(4_000), 1_000);
    }
}
