//! Mails are stored before the request is answered, and sent until the mail server takes them.

use serde_json::json;
use testbed::SmtpSink;
use testbed::smtp::Fault;

use crate::auth::{PASSWORD, register};
use crate::harness::{TestApp, answer};
use crate::mails::token;
use crate::process::{count, execute};

/// A server whose mails go to this mail server.
async fn app(sink: &SmtpSink) -> TestApp {
    TestApp::sqlite(&["--smtp-url", &sink.url(), "--mail-from", "tutor@example.com"]).await
}

/// Waits until this statement counts `expected` rows.
async fn until_counted(app: &TestApp, sql: &str, expected: i64) {
    while count(&app.app.config.database.url(), sql).await != expected {
        tokio::task::yield_now().await;
    }
}

/// Makes each mail that waits due, as if its pause were over.
async fn pass_the_pause(app: &TestApp) {
    execute(&app.app.config.database.url(), "UPDATE mails SET due_at = 0").await;
}

const WAITING: &str = "SELECT (SELECT count(*) FROM mails WHERE failed_at IS NULL AND last_error IS NOT NULL)";
const ALL: &str = "SELECT (SELECT count(*) FROM mails)";

fn message_id(mail: &str) -> &str {
    mail.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_refused_for_the_moment_is_retried_until_it_is_taken() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::Refuse(451));
    sink.next(Fault::TakeSilently);
    let app = app(&sink).await;
    register(&app, "new@example.com").await.has(201);
    until_counted(&app, WAITING, 1).await;
    assert_eq!(sink.mails().len(), 0);
    pass_the_pause(&app).await;
    let unanswered = "SELECT (SELECT count(*) FROM mails WHERE attempts = 2 AND last_error NOT LIKE '%451%')";
    until_counted(&app, unanswered, 1).await;
    pass_the_pause(&app).await;
    until_counted(&app, ALL, 0).await;
    let mails = sink.mails();
    // Nobody knows whether the one without an answer arrived: it is sent once more, as the same mail.
    assert_eq!((mails.len(), message_id(&mails[0])), (2, message_id(&mails[1])));
    assert!(message_id(&mails[0]).ends_with("@example.com>"), "{}", mails[0]);
    // The link of the one before is good.
    app.post("/api/auth/verify-email", json!({"token": token(&mails[0])})).await.ok();
    let metrics = app.get("/metrics").await.ok().body;
    for line in [
        r#"tutord_mails_total{kind="verify_email",outcome="postponed"} 2"#,
        r#"tutord_mails_total{kind="verify_email",outcome="sent"} 1"#,
    ] {
        assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_refused_for_good_is_kept_and_not_retried() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::Refuse(550));
    let app = app(&sink).await;
    register(&app, "new@example.com").await.has(201);
    let failed = "SELECT (SELECT count(*) FROM mails WHERE failed_at IS NOT NULL AND last_error = 'the mail server answered 550')";
    until_counted(&app, failed, 1).await;
    let admin = app.user("grace", tutord_core::model::Role::Admin, true).await;
    let page = admin.get("/ops/mail").await.ok();
    let shown = page.body.as_str().unwrap();
    for part in ["n…@example.com", "the mail server answered 550", "verify_email"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(!shown.contains("new@example.com"));
    // A new request takes its place.
    app.post("/api/auth/resend-verification", json!({"email": "new@example.com"})).await.ok();
    until_counted(&app, ALL, 0).await;
    assert_eq!((sink.attempts(), sink.mails().len()), (2, 1));
    app.post("/api/auth/verify-email", json!({"token": token(&sink.mails()[0])})).await.ok();
    // Nothing is sent to an address that is verified, nor to one without an account, and the statements are the same.
    for path in ["/api/auth/resend-verification", "/api/auth/password-reset"] {
        let ask = async |email: &str| app.post(path, json!({"email": email})).await.ok();
        let (unknown, known) = (ask("nobody@example.com").await, ask("new@example.com").await);
        assert_eq!((unknown.statements(), &unknown.body), (known.statements(), &known.body));
    }
    until_counted(&app, ALL, 0).await;
    assert_eq!(sink.mails().len(), 2, "the reset of the address that is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_not_about_the_recipient_is_retried() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::RefuseSender);
    let app = app(&sink).await;
    register(&app, "new@example.com").await.has(201);
    until_counted(&app, "SELECT (SELECT count(*) FROM mails WHERE last_error IS NOT NULL AND failed_at IS NULL)", 1)
        .await;
    pass_the_pause(&app).await;
    until_counted(&app, ALL, 0).await;
    assert_eq!(sink.mails().len(), 1);
    // A link in a text whose encoding is not told would be broken.
    assert!(sink.mails()[0].contains("MIME-Version: 1.0\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_take_forms_alone() {
    let sink = SmtpSink::start().await.unwrap();
    let app = app(&sink).await;
    for path in ["/verify-email", "/reset-password"] {
        let post = |content_type: &'static str, body: String| {
            answer(app.request(reqwest::Method::POST, path).header("content-type", content_type).body(body))
        };
        let form = "application/x-www-form-urlencoded";
        for (answer, status) in [
            (post("application/json", "{}".to_owned()).await, 415),
            (post(form, "x".repeat(9_000)).await, 413),
            (post(form, String::new()).await, 422),
        ] {
            let page = answer.has(status);
            assert!(page.body.as_str().unwrap().contains("<h1>"), "{}", page.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_could_not_be_sent_for_a_day_is_given_up() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::Refuse(451));
    sink.next(Fault::Refuse(451));
    let app = app(&sink).await;
    register(&app, "new@example.com").await.has(201);
    until_counted(&app, WAITING, 1).await;
    execute(&app.app.config.database.url(), "UPDATE mails SET created_at = created_at - 86400000000, due_at = 0").await;
    until_counted(&app, "SELECT (SELECT count(*) FROM mails WHERE failed_at IS NOT NULL)", 1).await;
    assert_eq!(sink.mails().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_send_a_mail_once_and_one_sends_those_of_a_dead_one() {
    let sink = SmtpSink::start().await.unwrap();
    let arguments = ["--smtp-url", &sink.url(), "--mail-from", "tutor@example.com"];
    let first = TestApp::postgres(&arguments).await;
    let second = first.another(&arguments).await;
    for number in 0..10 {
        let node = if number % 2 == 0 { &first } else { &second };
        register(node, &format!("new{number}@example.com")).await.has(201);
    }
    until_counted(&first, ALL, 0).await;
    assert_eq!(sink.attempts(), 10);
    // As a process leaves it that dies while it sends.
    let url = first.app.config.database.url();
    execute(
        &url,
        "INSERT INTO mails (user_id, kind, message_id, created_at, due_at, attempts) \
         SELECT id, 'verify_email', 'left@example.com', now(), now() - interval '1 second', 1 FROM users LIMIT 1",
    )
    .await;
    until_counted(&first, ALL, 0).await;
    assert_eq!(sink.attempts(), 11);
    assert_eq!(message_id(sink.mails().last().unwrap()), "<left@example.com>");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_to_pages_that_work_without_script_and_spend_nothing_when_they_are_opened() {
    let sink = SmtpSink::start().await.unwrap();
    let app = app(&sink).await;
    register(&app, "new@example.com").await.has(201);
    until_counted(&app, ALL, 0).await;
    let verification = token(&sink.mails()[0]);
    let page = format!("/verify-email?token={verification}");
    for _ in 0..3 {
        let shown = app.get(&page).await.ok();
        assert_eq!(shown.headers["cache-control"], "no-store");
        assert_eq!(shown.headers["referrer-policy"], "no-referrer");
        let policy = shown.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = shown.body.as_str().unwrap();
        assert!(text.contains("<form method=\"post\"") && !text.contains("<script"), "{text}");
    }
    let post = async |path: &str, form: &[(&str, &str)]| {
        let form = serde_urlencoded::to_string(form).unwrap();
        let request = app.request(reqwest::Method::POST, path).body(form);
        crate::harness::answer(request.header("content-type", "application/x-www-form-urlencoded")).await
    };
    post("/verify-email", &[("token", &verification)]).await.ok();
    post("/verify-email", &[("token", &verification)]).await.has(422);
    app.post("/api/auth/password-reset", json!({"email": "new@example.com"})).await.ok();
    until_counted(&app, ALL, 0).await;
    let reset = token(&sink.mails()[1]);
    app.get(&format!("/reset-password?token={reset}")).await.ok();
    let weak = post("/reset-password", &[("token", &reset), ("new_password", "short")]).await.has(422);
    let text = weak.body.as_str().unwrap();
    assert!(text.contains("between 8 and 128") && text.contains(&reset), "{text}");
    let same = post("/reset-password", &[("token", &reset), ("new_password", PASSWORD)]).await.has(422);
    assert!(same.body.as_str().unwrap().contains("differ"), "{:?}", same.body);
    post("/reset-password", &[("token", &reset), ("new_password", "Another-1-Password")]).await.ok();
    post("/reset-password", &[("token", &reset), ("new_password", "Another-1-Password")]).await.has(422);
    let log_in = json!({"email": "new@example.com", "password": "Another-1-Password"});
    app.post("/api/auth/login", log_in).await.ok();
    for wrong in ["/verify-email", "/verify-email?token=%22%3E%3Cscript%3E", "/reset-password?token=x"] {
        let answer = app.get(wrong).await.has(422);
        assert!(!answer.body.as_str().unwrap().contains("<script"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mail_server_is_checked_without_its_words() {
    let sink = SmtpSink::start().await.unwrap();
    let check = async |url: String| {
        let config = tutord::mail::MailSettings {
            smtp_url: Some(url.parse().unwrap()),
            mail_from: "tutor@example.com".parse().unwrap(),
        };
        tutord::mail::Transport::new(&config, std::path::Path::new(".")).unwrap().check().await.unwrap()
    };
    check(sink.url()).await.unwrap();
    let with_password = sink.url().replace("smtp://", "smtp://user:secret@");
    check(with_password.clone()).await.unwrap();
    sink.next(Fault::RefuseLogIn);
    let refused = check(with_password).await.unwrap_err();
    assert!(refused.contains("535") && !refused.contains("student") && !refused.contains("secret"), "{refused}");
    let gone = check("smtp://127.0.0.1:1".to_owned()).await.unwrap_err();
    assert!(gone.contains("refused"), "{gone}");
}
