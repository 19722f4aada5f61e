//! The page Model: requests to the model.

use maud::{Markup, html};

use super::format;
use super::overview;
use super::view::{Section, View, empty, tile};
use crate::app::App;
use crate::{chat, exercises};

pub(super) fn view(app: &App) -> View {
    View {
        title: "Model".to_owned(),
        intro: html! { "Requests of this process to the model since its start. Cached replies cost no tokens." },
        sections: vec![
            Section::new("usage", "Usage", usage(app)),
            Section::new("routes", "Routes that wait for the model", routes(app)),
        ],
    }
}

fn usage(app: &App) -> Markup {
    let Some(llm) = &app.llm else {
        return empty(
            "No model is configured: LLM_BASE_URL and LLM_MODEL are not set. Requests for new replies get a 503; everything else works.",
        );
    };
    let asked: u64 = app.llm_usage.outcomes().map(|(_, count)| count).sum();
    html! {
        dl.tiles {
            (tile("Model", &html! { (llm.model()) }))
            @for (outcome, count) in app.llm_usage.outcomes() {
                (tile(heading(outcome), &html! { span.bad[outcome == "failed" && count > 0] { (format::count(count)) } }))
            }
            (tile("Tokens", &html! { (format::count(app.llm_usage.tokens())) }))
            (tile("Retries", &html! { (format::count(app.llm_usage.retries().map(|(_, count)| count).sum())) }))
            @if let Some((first_token, per_second)) = app.llm_usage.speed().means() {
                (tile("Time to first token", &html! { (format::milliseconds(first_token)) }))
                (tile("Tokens per second", &html! { (format::decimal(Some(per_second))) }))
            }
        }
        @if app.llm_usage.is_open() {
            p.bad { "The endpoint is down: requests fail at once, except for the probes." }
        }
        @if asked == 0 { (empty("No requests to the model yet.")) }
    }
}

fn heading(outcome: &str) -> &str {
    match outcome {
        "answered" => "Answered",
        "cached" => "Cached",
        "failed" => "Failed",
        other => other,
    }
}

/// Renders the durations of requests, including the model's.
fn routes(app: &App) -> Markup {
    let waiting = [chat::AWAIT_MODEL, exercises::AWAIT_MODEL].concat();
    let mut routes = app.requests.recent.by_route();
    routes.retain(|(name, _)| name.split_once(' ').is_some_and(|(_, path)| waiting.contains(&path)));
    if routes.is_empty() {
        return empty("No requests waited for the model in the last five minutes.");
    }
    overview::table("Requests of the last five minutes that waited for the model", &routes)
}
