//! The layout of all pages.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Html;
use maud::{DOCTYPE, Markup, html};
use querywatch_axum::parts::document_head;
use querywatch_axum::{View, controls};

use super::PREFIX;
use super::assets;
use super::page::{Page, PageRequest};

/// The content security policy. All files come from this server. uPlot sets styles through the DOM, which the policy
/// permits.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
/// Prevents caching, because pages are private and change constantly.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// An HTML document with its headers.
pub(super) type Document = ([(HeaderName, HeaderValue); 2], Html<String>);

/// Renders a page of the dashboard. `is_live` pages update themselves.
pub(super) fn page(request: &PageRequest, view: &View, is_live: bool) -> Document {
    let here = request.page;
    let current = move |page: Page| match &request.shape {
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
            (controls())
            button #log-out type="button" hidden { "Log out" }
        }
    };
    let main = html! {
        main #main tabindex="-1" data-live=[is_live.then(|| request.live())] { (view.render()) }
    };
    document(&view.title, &header, &main)
}

/// Renders a page with a single message for users without access.
pub(super) fn message(title: &str, text: &str) -> Document {
    let main = html! {
        main #main tabindex="-1" {
            h1 { (title) }
            p { (text) }
            p { a href="/ops/login" { "Log in as another user" } }
        }
    };
    document(title, &html! {}, &main)
}

pub(super) fn document(title: &str, header: &Markup, main: &Markup) -> Document {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (document_head(title, "tutord"))
                (querywatch_axum::Dashboard::head(PREFIX))
                link rel="stylesheet" href=(assets::address("login.css"));
                script src=(assets::address("login.js")) defer {}
            }
            body.querywatch {
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
