//! The queue of outgoing mails: the server stores a mail before it responds, and retries until the mail server
//! accepts it.

use serde_json::json;
use testbed::SmtpSink;
use testbed::smtp::Fault;
use tutord::mail::MailCheck;

use crate::support::fixtures::{PASSWORD, register};
use crate::support::mailbox::mailed_token;
use crate::support::wait::wait_for_count;
use crate::support::{TestApp, TestResponse, fetch};

/// Starts a server that sends its mails to this mail server.
async fn start_app(sink: &SmtpSink) -> TestApp {
    TestApp::sqlite().mail_server(sink).start().await
}

/// Makes each waiting mail due at once.
async fn skip_retry_delay(app: &TestApp) {
    app.execute_sql("UPDATE mails SET due_at = 0").await;
}

const WAITING: &str = "SELECT count(*) FROM mails WHERE failed_at IS NULL AND last_error IS NOT NULL";
const ALL: &str = "SELECT count(*) FROM mails";

fn message_id(mail: &str) -> &str {
    mail.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporarily_rejected_mail_is_retried_until_the_mail_server_accepts_it() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::Refuse(451));
    sink.next(Fault::TakeSilently);
    let app = start_app(&sink).await;
    register(&app, "new@example.com").await.assert_status(201);
    wait_for_count(&app, WAITING, 1).await;
    assert_eq!(sink.mails().len(), 0);
    skip_retry_delay(&app).await;
    let unanswered = "SELECT count(*) FROM mails WHERE attempts = 2 AND last_error NOT LIKE '%451%'";
    wait_for_count(&app, unanswered, 1).await;
    skip_retry_delay(&app).await;
    wait_for_count(&app, ALL, 0).await;
    let mails = sink.mails();
    // The mail without a response may have arrived: the server sends it again with the same id.
    assert_eq!((mails.len(), message_id(&mails[0])), (2, message_id(&mails[1])));
    assert!(message_id(&mails[0]).ends_with("@example.com>"), "{}", mails[0]);
    // The link of the first copy is valid.
    app.post("/api/auth/verify-email", json!({"token": mailed_token(&mails[0])})).await.assert_ok();
    let metrics = app.get("/metrics").await.assert_ok().body;
    for line in [
        r#"tutord_mails_total{kind="verify_email",outcome="postponed"} 2"#,
        r#"tutord_mails_total{kind="verify_email",outcome="sent"} 1"#,
    ] {
        assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_rejected_mail_is_shown_and_not_retried() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::Refuse(550));
    let app = start_app(&sink).await;
    register(&app, "new@example.com").await.assert_status(201);
    let failed =
        "SELECT count(*) FROM mails WHERE failed_at IS NOT NULL AND last_error = 'the mail server answered 550'";
    wait_for_count(&app, failed, 1).await;
    let admin = app.admin("grace").await;
    let page = admin.get("/ops/mail").await.assert_ok();
    let shown = page.text();
    for part in ["n…@example.com", "the mail server answered 550", "verify_email"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(!shown.contains("new@example.com"));
    // A new request replaces the mail.
    app.post("/api/auth/resend-verification", json!({"email": "new@example.com"})).await.assert_ok();
    wait_for_count(&app, ALL, 0).await;
    assert_eq!((sink.attempts(), sink.mails().len()), (2, 1));
    app.post("/api/auth/verify-email", json!({"token": mailed_token(&sink.mails()[0])})).await.assert_ok();
}

/// A verified address gets no verification mail. The number of statements does not disclose which addresses exist.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_request_does_not_disclose_which_addresses_exist() {
    let sink = SmtpSink::start().await.unwrap();
    let app = start_app(&sink).await;
    app.student("new").await;
    for path in ["/api/auth/resend-verification", "/api/auth/password-reset"] {
        let request = async |email: &str| app.post(path, json!({"email": email})).await.assert_ok();
        let (unknown, known) = (request("nobody@example.com").await, request("new@example.com").await);
        assert_eq!((unknown.statement_count(), &unknown.body), (known.statement_count(), &known.body));
    }
    wait_for_count(&app, ALL, 0).await;
    assert_eq!(sink.mails().len(), 1, "the password reset of the known address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_of_the_sender_is_retried() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::RefuseSender);
    let app = start_app(&sink).await;
    register(&app, "new@example.com").await.assert_status(201);
    wait_for_count(&app, WAITING, 1).await;
    skip_retry_delay(&app).await;
    wait_for_count(&app, ALL, 0).await;
    assert_eq!(sink.mails().len(), 1);
    // Without this header the encoding would break the link.
    assert!(sink.mails()[0].contains("MIME-Version: 1.0\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_accept_only_forms() {
    let sink = SmtpSink::start().await.unwrap();
    let app = start_app(&sink).await;
    for path in ["/verify-email", "/reset-password"] {
        let post = |content_type: &'static str, body: String| {
            fetch(app.request(reqwest::Method::POST, path).header("content-type", content_type).body(body))
        };
        let form = "application/x-www-form-urlencoded";
        for (response, status) in [
            (post("application/json", "{}".to_owned()).await, 415),
            (post(form, "x".repeat(9_000)).await, 413),
            (post(form, String::new()).await, 422),
        ] {
            let page = response.assert_status(status);
            assert!(page.text().contains("<h1>"), "{}", page.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_fails_after_a_day_of_retries() {
    let sink = SmtpSink::start().await.unwrap();
    sink.next(Fault::Refuse(451));
    sink.next(Fault::Refuse(451));
    let app = start_app(&sink).await;
    register(&app, "new@example.com").await.assert_status(201);
    wait_for_count(&app, WAITING, 1).await;
    app.execute_sql("UPDATE mails SET created_at = created_at - 86400000000, due_at = 0").await;
    wait_for_count(&app, "SELECT count(*) FROM mails WHERE failed_at IS NOT NULL", 1).await;
    assert_eq!(sink.mails().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_send_each_mail_once() {
    let sink = SmtpSink::start().await.unwrap();
    let [first, second] = TestApp::postgres().mail_server(&sink).start_two().await;
    for number in 0..10 {
        let node = if number % 2 == 0 { &first } else { &second };
        register(node, &format!("new{number}@example.com")).await.assert_status(201);
    }
    wait_for_count(&first, ALL, 0).await;
    assert_eq!(sink.attempts(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sends_the_mails_of_a_dead_node() {
    let sink = SmtpSink::start().await.unwrap();
    let app = TestApp::postgres().mail_server(&sink).start().await;
    app.student("ada").await;
    // A process that dies while it sends leaves this row.
    app.execute_sql(
        "INSERT INTO mails (user_id, kind, message_id, created_at, due_at, attempts) \
         SELECT id, 'verify_email', 'left@example.com', now(), now() - interval '1 second', 1 FROM users LIMIT 1",
    )
    .await;
    wait_for_count(&app, ALL, 0).await;
    assert_eq!(sink.attempts(), 1);
    assert_eq!(message_id(sink.mails().last().unwrap()), "<left@example.com>");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_verification_mail_opens_a_form_without_script() {
    let sink = SmtpSink::start().await.unwrap();
    let app = start_app(&sink).await;
    register(&app, "new@example.com").await.assert_status(201);
    wait_for_count(&app, ALL, 0).await;
    let verification = mailed_token(&sink.mails()[0]);
    let page = format!("/verify-email?token={verification}");
    for _ in 0..3 {
        let shown = app.get(&page).await.assert_ok();
        assert_eq!(shown.headers["cache-control"], "no-store");
        assert_eq!(shown.headers["referrer-policy"], "no-referrer");
        let policy = shown.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = shown.text();
        assert!(text.contains("<form method=\"post\"") && !text.contains("<script"), "{text}");
    }
    // Opening the page does not use up the token.
    post_form(&app, "/verify-email", &[("token", &verification)]).await.assert_ok();
    post_form(&app, "/verify-email", &[("token", &verification)]).await.assert_status(422);
}

async fn post_form(app: &TestApp, path: &str, form: &[(&str, &str)]) -> TestResponse {
    let form = serde_urlencoded::to_string(form).unwrap();
    let request = app.request(reqwest::Method::POST, path).body(form);
    fetch(request.header("content-type", "application/x-www-form-urlencoded")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_reset_mail_opens_a_form_that_resets_the_password() {
    let sink = SmtpSink::start().await.unwrap();
    let app = start_app(&sink).await;
    register(&app, "new@example.com").await.assert_status(201);
    wait_for_count(&app, ALL, 0).await;
    let post = async |path: &str, form: &[(&str, &str)]| post_form(&app, path, form).await;
    app.post("/api/auth/password-reset", json!({"email": "new@example.com"})).await.assert_ok();
    wait_for_count(&app, ALL, 0).await;
    let reset = mailed_token(&sink.mails()[1]);
    app.get(&format!("/reset-password?token={reset}")).await.assert_ok();
    let weak = post("/reset-password", &[("token", &reset), ("new_password", "short")]).await.assert_status(422);
    let text = weak.text();
    assert!(text.contains("between 8 and 128") && text.contains(&reset), "{text}");
    let same = post("/reset-password", &[("token", &reset), ("new_password", PASSWORD)]).await.assert_status(422);
    assert!(same.text().contains("differ"), "{:?}", same.body);
    post("/reset-password", &[("token", &reset), ("new_password", "Another-1-Password")]).await.assert_ok();
    post("/reset-password", &[("token", &reset), ("new_password", "Another-1-Password")]).await.assert_status(422);
    let log_in = json!({"email": "new@example.com", "password": "Another-1-Password"});
    app.post("/api/auth/login", log_in).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_link_opens_a_page_without_script() {
    let sink = SmtpSink::start().await.unwrap();
    let app = start_app(&sink).await;
    for wrong in ["/verify-email", "/verify-email?token=%22%3E%3Cscript%3E", "/reset-password?token=x"] {
        let page = app.get(wrong).await.assert_status(422);
        assert!(!page.text().contains("<script"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_the_mail_server_hides_its_messages() {
    let sink = SmtpSink::start().await.unwrap();
    let check = async |url: String| {
        let config = tutord::mail::MailSettings {
            smtp_url: Some(url.parse().unwrap()),
            mail_from: "tutor@example.com".parse().unwrap(),
        };
        tutord::mail::Transport::new(&config, std::path::Path::new(".")).unwrap().check().await
    };
    assert_eq!(check(sink.url()).await, MailCheck::Accepted);
    let with_password = sink.url().replace("smtp://", "smtp://user:secret@");
    assert_eq!(check(with_password.clone()).await, MailCheck::Accepted);
    sink.next(Fault::RefuseLogIn);
    let MailCheck::Failed(rejected) = check(with_password).await else { panic!("the log-in was accepted") };
    assert!(rejected.contains("535") && !rejected.contains("student") && !rejected.contains("secret"), "{rejected}");
    let MailCheck::Failed(gone) = check("smtp://127.0.0.1:1".to_owned()).await else { panic!("nobody listens") };
    assert!(gone.contains("refused"), "{gone}");
}
