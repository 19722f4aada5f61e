//! The page Mail: waiting and undeliverable mails.

use maud::{Markup, html};
use querywatch_axum::parts::{Columns, empty, table, tile};
use querywatch_axum::{Section, View, format};
use tutord_core::model::FailedMail;

use super::parts::query_failed;
use super::state::DashboardState;

/// The maximum number of listed mails.
const MAX_LISTED: i64 = 20;

pub(super) async fn view(state: &DashboardState) -> View {
    View {
        title: "Mail".to_owned(),
        intro: html! {
            "Mails with links to verify an address or to reset a password. tutord retries a mail for a day if the mail server refuses it temporarily."
        },
        sections: vec![
            Section::new("queue", "Queue", queue(state)),
            Section::new("attempts", "Attempts of this process", attempts(state)),
            Section::new("given-up", "Undeliverable", undeliverable(state).await),
        ],
    }
}

fn queue(state: &DashboardState) -> Markup {
    let counts = state.mail_stats.counts();
    let count = |rows: i64| format::count(u64::try_from(rows).unwrap_or_default());
    html! {
        @if state.settings.writes_mails_to_files {
            p.warn { "SMTP_URL is not set: mails are written to files in DATA_DIR/mail and not sent." }
        }
        dl.tiles {
            (tile("Waiting", &html! { (count(counts.pending)) }))
            @if let Some(oldest) = counts.oldest {
                (tile("Oldest from", &html! { (format::when(u64::try_from(oldest.as_micros() / 1_000).unwrap_or_default())) }))
            }
            (tile("Undeliverable", &html! { span.bad[counts.failed > 0] { (count(counts.failed)) } }))
        }
    }
}

fn attempts(state: &DashboardState) -> Markup {
    let outcomes = state.mail_stats.outcomes();
    if outcomes.is_empty() {
        return empty("No mails were sent since the start.");
    }
    let columns = Columns::default().texts(["Kind", "Outcome"]).numbers(["Attempts"]);
    let rows = html! {
        @for (kind, outcome, count) in outcomes {
            tr { th scope="row" { (kind) } td { (outcome) } td.number { (format::count(count)) } }
        }
    };
    table("Attempts by kind and outcome", "Since the start", &columns, &rows)
}

async fn undeliverable(state: &DashboardState) -> Markup {
    match state.store.failed_mails(MAX_LISTED).await {
        Ok(mails) if mails.is_empty() => empty("No undeliverable mails in the last 30 days."),
        Ok(mails) => failed_mails(&mails),
        Err(error) => query_failed(&error),
    }
}

fn failed_mails(mails: &[FailedMail]) -> Markup {
    let columns = Columns::default().texts(["Recipient", "Kind", "Since", "Cause"]).numbers(["Attempts"]);
    let rows = html! {
        @for mail in mails {
            tr {
                th scope="row" { (masked(&mail.email)) }
                td { (mail.kind) }
                td { (format::when(u64::try_from(mail.failed_at.as_micros() / 1_000).unwrap_or_default())) }
                td { (mail.last_error.as_deref().unwrap_or("–")) }
                td.number { (mail.attempts) }
            }
        }
    };
    table("Undeliverable mails", format!("The newest {MAX_LISTED} of the last 30 days"), &columns, &rows)
}

/// Masks an address except for its first character and its domain.
fn masked(email: &str) -> String {
    let (user, domain) = email.rsplit_once('@').unwrap_or((email, ""));
    format!("{}…@{domain}", user.chars().next().unwrap_or('…'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked() {
        assert_eq!(masked("ada.student@example.com"), "a…@example.com");
        assert_eq!(masked("@"), "……@");
    }
}
