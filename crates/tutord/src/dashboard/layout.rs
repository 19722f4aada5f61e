//! The layout of all pages.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Html;
use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::page::{Page, PageRequest};
use super::view::View;

/// The content security policy. All files come from this server. uPlot sets styles through the DOM, which the policy
/// permits.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
/// Prevents caching, because pages are private and change constantly.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// An HTML document with its headers.
pub(super) type Document = ([(HeaderName, HeaderValue); 2], Html<String>);

/// Renders a page of the dashboard.
pub(super) fn page(subject: &PageRequest, view: &View) -> Document {
    let here = subject.page;
    let current = move |page: Page| match &subject.shape {
        _ if page != here => None,
        None => Some("page"),
        // The page is below an entry of the navigation.
        Some(_) => Some("true"),
    };
    let header = html! {
        nav aria-label="Pages" { ul {
            @for page in Page::ALL {
                li { a href=(page.path()) aria-current=[current(page)] { (page.title()) } }
            }
        } }
        div.controls {
            p #live-status role="status" {}
            button #pause type="button" hidden { "Pause" }
            button #log-out type="button" hidden { "Log out" }
        }
    };
    let main = html! {
        main #main tabindex="-1" data-live=(subject.live()) {
            h1 { (view.title) }
            p.intro { (view.intro) }
            @for section in &view.sections { (section.render()) }
        }
    };
    document(&view.title, &header, &main)
}

/// Renders a page with a single message.
pub(super) fn message(title: &str, text: &str, back: bool) -> Document {
    let main = html! {
        main #main tabindex="-1" {
            h1 { (title) }
            p { (text) }
            @if back { p { a href="/ops" { "To the overview" } } }
            @else { p { a href="/ops/login" { "Log in as another user" } } }
        }
    };
    document(title, &html! {}, &main)
}

pub(super) fn document(title: &str, header: &Markup, main: &Markup) -> Document {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – tutord" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(assets::address("uplot.css"));
                link rel="stylesheet" href=(assets::address("style.css"));
                script src=(assets::address("uplot.js")) defer {}
                script src=(assets::address("script.js")) defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    p.name { "tutord" }
                    (header)
                }
                (main)
            }
        }
    };
    ([(CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, PRIVATE)], Html(markup.into_string()))
}
