//! The page Model: requests to the model.

use maud::{Markup, html};
use querywatch_axum::parts::{empty, tile};
use querywatch_axum::{Section, View, format};

use super::overview;
use super::state::DashboardState;

pub(super) fn view(state: &DashboardState) -> View {
    View {
        title: "Model".to_owned(),
        intro: html! { "Requests of this process to the model since its start. Cached replies cost no tokens." },
        sections: vec![
            Section::new("usage", "Usage", usage(state)),
            Section::new("routes", "Routes that wait for the model", routes(state)),
        ],
    }
}

fn usage(state: &DashboardState) -> Markup {
    let Some(llm) = &state.llm.provider else {
        return empty(
            "No model is configured: LLM_BASE_URL and LLM_MODEL are not set. Requests for new replies get a 503; everything else works.",
        );
    };
    let requests: u64 = state.llm.usage.outcomes().map(|(_, count)| count).sum();
    html! {
        dl.tiles {
            (tile("Model", &html! { (llm.endpoint().model()) }))
            @for (outcome, count) in state.llm.usage.outcomes() {
                (tile(heading(outcome), &html! { span.bad[outcome == "failed" && count > 0] { (format::count(count)) } }))
            }
            (tile("Tokens", &html! { (format::count(state.llm.usage.tokens())) }))
            (tile("Retries", &html! { (format::count(state.llm.usage.retries().map(|(_, count)| count).sum())) }))
            @if let Some((first_token, per_second)) = state.llm.usage.speed().means() {
                (tile("Time to first token", &html! { (format::milliseconds(first_token)) }))
                (tile("Tokens per second", &html! { (format::decimal(Some(per_second))) }))
            }
        }
        @if state.llm.usage.is_open() {
            p.bad { "The endpoint is down: requests fail at once, except for the probes." }
        }
        @if requests == 0 { (empty("No requests to the model yet.")) }
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
fn routes(state: &DashboardState) -> Markup {
    let mut routes = state.requests.recent.by_route();
    routes.retain(|(name, _)| name.split_once(' ').is_some_and(|(_, path)| state.routes.awaits_model(path)));
    if routes.is_empty() {
        return empty("No requests waited for the model in the last five minutes.");
    }
    overview::by_route("Requests of the last five minutes that waited for the model", &routes)
}
