//! Mails that wait, and mails that were given up.

use maud::{Markup, html};
use tutord_store::model::FailedMail;

use super::format;
use super::view::{Section, View, empty, scrolling, tile, unanswered};
use crate::app::App;

/// Mails that are listed.
const LISTED: i64 = 20;

pub(super) async fn view(app: &App) -> View {
    View {
        title: "Mail".to_owned(),
        intro: html! {
            "Links to verify an address and to reset a password. A mail that the mail server refuses for the moment is retried for a day."
        },
        sections: vec![
            Section::new("queue", "Queue", queue(app)),
            Section::new("attempts", "Attempts of this process", attempts(app)),
            Section::new("given-up", "Given up", given_up(app).await),
        ],
    }
}

fn queue(app: &App) -> Markup {
    let counts = app.mailer.stats.counts();
    let count = |rows: i64| format::count(u64::try_from(rows).unwrap_or_default());
    html! {
        @if app.config.mail.smtp_url.is_none() {
            p.warn { "SMTP_URL is not set: mails are written to files in DATA_DIR/mail, and reach nobody." }
        }
        dl.tiles {
            (tile("Waiting", &html! { (count(counts.pending)) }))
            @if let Some(oldest) = counts.oldest {
                (tile("Oldest since", &html! { (format::when(u64::try_from(oldest.as_micros() / 1_000).unwrap_or_default())) }))
            }
            (tile("Given up", &html! { span.bad[counts.failed > 0] { (count(counts.failed)) } }))
        }
    }
}

fn attempts(app: &App) -> Markup {
    let outcomes = app.mailer.stats.outcomes();
    if outcomes.is_empty() {
        return empty("No mail was sent since the start.");
    }
    let table = html! {
        table {
            caption { "Since the start" }
            thead { tr { th scope="col" { "Kind" } th scope="col" { "Outcome" } th.number scope="col" { "Attempts" } } }
            tbody {
                @for (kind, outcome, count) in outcomes {
                    tr { th scope="row" { (kind) } td { (outcome) } td.number { (format::count(count)) } }
                }
            }
        }
    };
    scrolling("Attempts by kind and outcome", &table)
}

async fn given_up(app: &App) -> Markup {
    match app.store.failed_mails(LISTED).await {
        Ok(mails) if mails.is_empty() => empty("No mail was given up within 30 days."),
        Ok(mails) => scrolling("Mails that were given up", &table(&mails)),
        Err(error) => unanswered(&error),
    }
}

fn table(mails: &[FailedMail]) -> Markup {
    html! {
        table {
            caption { "The newest " (LISTED) " of 30 days" }
            thead { tr {
                @for name in ["Recipient", "Kind", "Since", "Cause"] { th scope="col" { (name) } }
                th.number scope="col" { "Attempts" }
            } }
            tbody { @for mail in mails {
                tr {
                    th scope="row" { (masked(&mail.email)) }
                    td { (mail.kind) }
                    td { (format::when(u64::try_from(mail.failed_at.as_micros() / 1_000).unwrap_or_default())) }
                    td { (mail.last_error.as_deref().unwrap_or("–")) }
                    td.number { (mail.attempts) }
                }
            } }
        }
    }
}

/// An address of which the first character and the domain are shown.
fn masked(email: &str) -> String {
    let (user, domain) = email.rsplit_once('@').unwrap_or((email, ""));
    format!("{}…@{domain}", user.chars().next().unwrap_or('…'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_not_shown_in_full() {
        assert_eq!(masked("ada.student@example.com"), "a…@example.com");
        assert_eq!(masked("@"), "……@");
    }
}
