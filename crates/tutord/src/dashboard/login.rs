//! The log-in page `/ops/login`, which other pages also show to users who are not logged in.

use maud::html;

use super::layout::{Document, document};

/// Serves the log-in form. Requires no authentication.
pub(super) async fn login() -> Document {
    page()
}

/// Renders the form. Its action rejects form data: without JavaScript, the form must not put a password into a URL.
pub(super) fn page() -> Document {
    let main = html! {
        main #main tabindex="-1" {
            h1 { "Log in" }
            p.intro { "The dashboard of tutord is for admins." }
            noscript { p.empty { "This form requires JavaScript. Programs send an access token of the API as a bearer token." } }
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
