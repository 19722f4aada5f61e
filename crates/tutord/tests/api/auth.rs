use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, answer};
use crate::mails::{mail, token};

crate::on_both!(
    registering_logs_in_and_mails_a_link,
    a_taken_address_is_not_disclosed,
    bounds_of_a_registration_are_named,
    logging_in_needs_the_right_password,
    a_deactivated_account_may_not_log_in,
    the_account_behind_a_token_is_shown,
    a_mailed_link_verifies_once,
    a_verification_mail_can_be_asked_for_again,
    a_password_is_reset_once_by_mail,
    one_address_has_many_forms,
    the_part_before_the_at_has_many_forms_too,
    one_password_has_many_forms,
    a_log_in_by_another_service_is_not_implemented,
);

pub(crate) const PASSWORD: &str = "Correct-1-horse";

pub(crate) async fn register(app: &TestApp, email: &str) -> Answer {
    app.post("/api/auth/register", json!({"email": email, "password": PASSWORD, "name": " Ada "})).await
}

pub(crate) async fn log_in(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("/api/auth/login", json!({"email": email, "password": password})).await
}

async fn registering_logs_in_and_mails_a_link(app: &TestApp) {
    let registered = register(app, "Ada@Example.com").await.has(201);
    insta::assert_json_snapshot!("registered", registered.body, {".user.id" => "[id]", ".data.user.id" => "[id]"});
    let access = registered.cookie("access_token").unwrap();
    let me = answer(app.request(reqwest::Method::GET, "/api/auth/me").bearer_auth(access)).await.ok().body;
    assert_eq!((&me["user"]["email"], &me["user"]["email_verified"]), (&json!("Ada@Example.com"), &json!(false)));
    let sent = mail(app, 1).await;
    assert!(sent.contains("To: Ada@Example.com\r\n"), "{sent}");
    assert_eq!(token(&sent).len(), 43);
}

async fn a_taken_address_is_not_disclosed(app: &TestApp) {
    let first = register(app, "ada@example.com").await.has(201);
    let second = register(app, "ADA@EXAMPLE.com").await.has(201);
    assert_eq!(first.body["message"], second.body["message"]);
    let user = second.body["user"].as_object().unwrap();
    assert!(!user.contains_key("id"));
    assert_eq!(second.set_cookies(), Vec::<String>::new());
    mail(app, 1).await;
    let sent = mail(app, 2).await;
    assert!(sent.contains("You already have an account") && sent.contains("To: ada@example.com\r\n"), "{sent}");
    log_in(app, "ada@example.com", PASSWORD).await.ok();
}

async fn bounds_of_a_registration_are_named(app: &TestApp) {
    let refused = async |change: Value, field: &str| {
        let mut body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        app.post("/api/auth/register", body).await.refuses(field).to_owned()
    };
    assert_eq!(refused(json!({"email": "nobody"}), "email").await, "email must be an e-mail address");
    for email in ["ada@localhost", "ada@[127.0.0.1]", "\"a b\"@example.com"] {
        refused(json!({"email": email}), "email").await;
    }
    assert_eq!(
        refused(json!({"password": format!("{PASSWORD}\n")}), "password").await,
        "password must not contain control characters"
    );
    assert_eq!(
        refused(json!({"email": format!("{}@example.com", "x".repeat(250))}), "email").await,
        "email must have at most 255 characters"
    );
    assert_eq!(
        refused(json!({"password": "Ab1!"}), "password").await,
        "password must have between 8 and 128 characters"
    );
    assert_eq!(
        refused(json!({"password": "abcdefg1!"}), "password").await,
        "password must contain an upper-case letter"
    );
    assert_eq!(
        refused(json!({"password": "Ab1!".repeat(33)}), "password").await,
        "password must have between 8 and 128 characters"
    );
    assert_eq!(refused(json!({"name": "  "}), "name").await, "name must have at least 1 character");
    assert_eq!(refused(json!({"name": "x".repeat(256)}), "name").await, "name must have at most 255 characters");
    assert_eq!(refused(json!({"name": null}), "name").await, "name: invalid type: null, expected a string");
    app.post("/api/auth/register", json!({})).await.refuses("email");
}

async fn logging_in_needs_the_right_password(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    let wrong = log_in(app, "ada@example.com", "Wrong-1-horse").await;
    let unknown = log_in(app, "bob@example.com", PASSWORD).await;
    assert_eq!(wrong.fails(401, "UNAUTHENTICATED"), unknown.fails(401, "UNAUTHENTICATED"));
    let logged_in = log_in(app, " ADA@example.com ", PASSWORD).await.ok();
    insta::assert_json_snapshot!("logged_in", logged_in.body, {".user.id" => "[id]", ".data.user.id" => "[id]"});
    app.post("/api/auth/login", json!({"email": "ada@example.com"})).await.refuses("password");
    app.post("/api/auth/login", json!({"email": "ada@example.com", "password": ""})).await.refuses("password");
}

async fn a_deactivated_account_may_not_log_in(app: &TestApp) {
    let token = register(app, "ada@example.com").await.has(201).cookie("access_token").unwrap();
    crate::process::execute(&app.app.config.database.url(), "UPDATE users SET is_active = FALSE").await;
    log_in(app, "ada@example.com", "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", PASSWORD).await.fails(403, "FORBIDDEN");
    let me = answer(app.request(reqwest::Method::GET, "/api/auth/me").bearer_auth(token)).await;
    me.fails(403, "FORBIDDEN");
}

async fn the_account_behind_a_token_is_shown(app: &TestApp) {
    let ada = app.student("ada").await;
    let me = ada.get("/api/auth/me").await.ok().body;
    insta::assert_json_snapshot!("me", me, {".**.id" => "[id]", ".**.created_at" => "[time]", ".**.last_login" => "[time]"});
}

async fn a_mailed_link_verifies_once(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    let token = token(&mail(app, 1).await);
    app.post("/api/auth/verify-email", json!({"token": "nonsense"})).await.refuses("token");
    app.post("/api/auth/verify-email", json!({})).await.refuses("token");
    let verified = app.post("/api/auth/verify-email", json!({"token": token})).await.ok().body;
    assert_eq!((&verified["email_verified"], &verified["data"]["email_verified"]), (&json!(true), &json!(true)));
    app.post("/api/auth/verify-email", json!({"token": token})).await.refuses("token");
    let user = log_in(app, "ada@example.com", PASSWORD).await.ok().body["user"].clone();
    assert_eq!(user["email_verified"], true);
}

async fn a_verification_mail_can_be_asked_for_again(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    let first = token(&mail(app, 1).await);
    let again = async |email: &str| app.post("/api/auth/resend-verification", json!({"email": email})).await.ok().body;
    let unknown = again("bob@example.com").await;
    assert_eq!(again("ada@example.com").await, unknown, "the answer is the same for every address");
    let second = token(&mail(app, 2).await);
    app.post("/api/auth/verify-email", json!({"token": first})).await.refuses("token");
    app.post("/api/auth/verify-email", json!({"token": second})).await.ok();
    app.post("/api/auth/resend-verification", json!({"email": "x"})).await.refuses("email");
}

async fn a_password_is_reset_once_by_mail(app: &TestApp) {
    let session = register(app, "ada@example.com").await.has(201).cookie("access_token").unwrap();
    mail(app, 1).await;
    let ask = async |email: &str| app.post("/api/auth/password-reset", json!({"email": email})).await.ok().body;
    assert_eq!(ask("bob@example.com").await, ask("ada@example.com").await);
    let reset = token(&mail(app, 2).await);
    let confirm = async |token: &str, password: &str| {
        app.post("/api/auth/password-reset/confirm", json!({"token": token, "new_password": password})).await
    };
    confirm("nonsense", "Another-1-horse").await.refuses("token");
    confirm(&reset, "weak").await.refuses("new_password");
    confirm(&reset, PASSWORD).await.refuses("new_password");
    confirm(&reset, "Another-1-horse").await.ok();
    confirm(&reset, "A-third-1-horse").await.refuses("token");
    let me = answer(app.request(reqwest::Method::GET, "/api/auth/me").bearer_auth(session)).await;
    me.fails(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", PASSWORD).await.fails(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", "Another-1-horse").await.ok();
}

async fn one_address_has_many_forms(app: &TestApp) {
    register(app, "Anna@ex\u{e4}mple.test").await.has(201);
    let sent = mail(app, 1).await;
    assert!(sent.contains("To: Anna@xn--exmple-cua.test\r\n"), "{sent}");
    for form in ["anna@xn--exmple-cua.test", "ANNA@EXA\u{308}MPLE.TEST", "anna@ex\u{e4}mple.test"] {
        log_in(app, form, PASSWORD).await.ok();
        assert!(register(app, form).await.has(201).cookie("access_token").is_none(), "{form} is taken");
    }
}

async fn the_part_before_the_at_has_many_forms_too(app: &TestApp) {
    let (composed, decomposed) = ("\u{f6}ve@example.com", "o\u{308}ve@example.com");
    register(app, decomposed).await.has(201);
    log_in(app, composed, PASSWORD).await.ok();
    log_in(app, decomposed, PASSWORD).await.ok();
    app.post("/api/auth/password-reset", json!({"email": decomposed})).await.ok();
}

async fn one_password_has_many_forms(app: &TestApp) {
    let (composed, decomposed) = ("Z\u{fc}rich-1 horse", "Zu\u{308}rich-1\u{a0}horse");
    let body = json!({"email": "ada@example.com", "password": decomposed, "name": "Ada"});
    app.post("/api/auth/register", body).await.has(201);
    log_in(app, "ada@example.com", composed).await.ok();
    // An account from before passwords were prepared: it logs in as ever, and then from every keyboard.
    let hash = app.app.store.credentials("ada@example.com").await.unwrap().unwrap();
    let old = Argon2::default().hash_password(decomposed.as_bytes()).unwrap().to_string();
    app.app.store.replace_password_hash(hash.user.id, &hash.password_hash, &old).await.unwrap();
    log_in(app, "ada@example.com", composed).await.fails(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", decomposed).await.ok();
    log_in(app, "ada@example.com", composed).await.ok();
}

async fn a_log_in_by_another_service_is_not_implemented(app: &TestApp) {
    for path in ["github", "google", "github/callback", "google/callback"] {
        app.get(&format!("/api/auth/oauth/{path}")).await.fails(501, "NOT_IMPLEMENTED");
    }
    app.post("/api/auth/oauth/exchange", json!({})).await.fails(501, "NOT_IMPLEMENTED");
}
