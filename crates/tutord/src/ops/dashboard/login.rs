//! `/ops/login`. The same form is what a page answers to somebody who is not logged in.

use maud::html;

use super::layout::{Document, document};

/// The form, for everybody.
pub(super) async fn login() -> Document {
    page()
}

/// By POST to a route that refuses forms: should the script be missing, no password gets into an address.
pub(super) fn page() -> Document {
    let main = html! {
        main #main tabindex="-1" {
            h1 { "Log in" }
            p.intro { "The dashboard of tutord is for admins." }
            noscript { p.empty { "Logging in here needs JavaScript. Programs send an access token of the API as a bearer token." } }
            form #log-in method="post" action="/api/auth/login" {
                label { "E-mail" input type="email" name="email" autocomplete="username" required; }
                label { "Password" input type="password" name="password" autocomplete="current-password" required; }
                p.bad #refused role="alert" {}
                button type="submit" { "Log in" }
            }
        }
    };
    document("Log in", &html! {}, &main)
}
