use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use serde_json::{Value, json};

use crate::support::fixtures::{PASSWORD, WRONG_PASSWORD, log_in, register, store};
use crate::support::mailbox::{mailed_token, read_mail};
use crate::support::{TestApp, fetch};

crate::on_both!(
    a_registration_logs_in,
    a_registration_mails_a_link,
    a_registration_does_not_disclose_a_taken_address,
    an_invalid_registration_names_the_field_and_its_bound,
    a_login_returns_the_user,
    a_login_does_not_disclose_which_addresses_exist,
    a_login_requires_a_password,
    a_deactivated_user_cannot_log_in,
    me_returns_the_user_of_the_token,
    a_mailed_link_verifies_the_address_once,
    a_second_verification_mail_replaces_the_first,
    a_mailed_link_resets_the_password_once,
    an_address_has_equal_ascii_and_unicode_domains,
    the_local_part_of_an_address_has_equal_unicode_forms,
    a_password_has_equal_unicode_forms,
    a_login_normalizes_the_password_of_an_older_release,
    oauth_is_not_implemented,
);

async fn a_registration_logs_in(app: &TestApp) {
    let registered = register(app, "Ada@Example.com").await.assert_status(201);
    insta::assert_json_snapshot!("registered", registered.body, {".user.id" => "[id]", ".data.user.id" => "[id]"});
    let access = registered.cookie("access_token").unwrap();
    let me = fetch(app.request(reqwest::Method::GET, "/api/auth/me").bearer_auth(access)).await.assert_ok().body;
    assert_eq!((&me["user"]["email"], &me["user"]["email_verified"]), (&json!("Ada@Example.com"), &json!(false)));
}

async fn a_registration_mails_a_link(app: &TestApp) {
    register(app, "Ada@Example.com").await.assert_status(201);
    let mail = read_mail(app, 1).await;
    assert!(mail.contains("To: Ada@Example.com\r\n"), "{mail}");
    assert_eq!(mailed_token(&mail).len(), 43);
}

async fn a_registration_does_not_disclose_a_taken_address(app: &TestApp) {
    let first = register(app, "ada@example.com").await.assert_status(201);
    let second = register(app, "ADA@EXAMPLE.com").await.assert_status(201);
    assert_eq!(first.body["message"], second.body["message"]);
    let user = second.body["user"].as_object().unwrap();
    assert!(!user.contains_key("id"));
    assert_eq!(second.set_cookies(), Vec::<String>::new());
    read_mail(app, 1).await;
    let mail = read_mail(app, 2).await;
    assert!(mail.contains("You already have an account") && mail.contains("To: ada@example.com\r\n"), "{mail}");
    log_in(app, "ada@example.com", PASSWORD).await.assert_ok();
}

async fn an_invalid_registration_names_the_field_and_its_bound(app: &TestApp) {
    let rejection = async |change: Value, field: &str| {
        let mut body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        app.post("/api/auth/register", body).await.assert_invalid_field(field).to_owned()
    };
    assert_eq!(rejection(json!({"email": "nobody"}), "email").await, "email must be an e-mail address");
    for email in ["ada@localhost", "ada@[127.0.0.1]", "\"a b\"@example.com"] {
        rejection(json!({"email": email}), "email").await;
    }
    assert_eq!(
        rejection(json!({"password": format!("{PASSWORD}\n")}), "password").await,
        "password must not contain control characters"
    );
    assert_eq!(
        rejection(json!({"email": format!("{}@example.com", "x".repeat(250))}), "email").await,
        "email must have at most 255 characters"
    );
    assert_eq!(
        rejection(json!({"password": "Ab1!"}), "password").await,
        "password must have between 8 and 128 characters"
    );
    assert_eq!(
        rejection(json!({"password": "abcdefg1!"}), "password").await,
        "password must contain an upper-case letter"
    );
    assert_eq!(
        rejection(json!({"password": "Ab1!".repeat(33)}), "password").await,
        "password must have between 8 and 128 characters"
    );
    assert_eq!(rejection(json!({"name": "  "}), "name").await, "name must have at least 1 character");
    assert_eq!(rejection(json!({"name": "x".repeat(256)}), "name").await, "name must have at most 255 characters");
    assert_eq!(rejection(json!({"name": null}), "name").await, "name: invalid type: null, expected a string");
    app.post("/api/auth/register", json!({})).await.assert_invalid_field("email");
}

async fn a_login_does_not_disclose_which_addresses_exist(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    let wrong = log_in(app, "ada@example.com", WRONG_PASSWORD).await;
    let unknown = log_in(app, "bob@example.com", PASSWORD).await;
    assert_eq!(wrong.assert_error(401, "UNAUTHENTICATED"), unknown.assert_error(401, "UNAUTHENTICATED"));
}

async fn a_login_returns_the_user(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    let logged_in = log_in(app, " ADA@example.com ", PASSWORD).await.assert_ok();
    insta::assert_json_snapshot!("logged_in", logged_in.body, {".user.id" => "[id]", ".data.user.id" => "[id]"});
}

async fn a_login_requires_a_password(app: &TestApp) {
    app.post("/api/auth/login", json!({"email": "ada@example.com"})).await.assert_invalid_field("password");
    app.post("/api/auth/login", json!({"email": "ada@example.com", "password": ""}))
        .await
        .assert_invalid_field("password");
}

async fn a_deactivated_user_cannot_log_in(app: &TestApp) {
    let token = register(app, "ada@example.com").await.assert_status(201).cookie("access_token").unwrap();
    app.execute_sql("UPDATE users SET is_active = FALSE").await;
    log_in(app, "ada@example.com", WRONG_PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", PASSWORD).await.assert_error(403, "FORBIDDEN");
    let me = fetch(app.request(reqwest::Method::GET, "/api/auth/me").bearer_auth(token)).await;
    me.assert_error(403, "FORBIDDEN");
}

async fn me_returns_the_user_of_the_token(app: &TestApp) {
    let ada = app.student("ada").await;
    let me = ada.get("/api/auth/me").await.assert_ok().body;
    insta::assert_json_snapshot!("me", me, {".**.id" => "[id]", ".**.created_at" => "[time]", ".**.last_login" => "[time]"});
}

async fn a_mailed_link_verifies_the_address_once(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    let token = mailed_token(&read_mail(app, 1).await);
    app.post("/api/auth/verify-email", json!({"token": "nonsense"})).await.assert_invalid_field("token");
    app.post("/api/auth/verify-email", json!({})).await.assert_invalid_field("token");
    let verified = app.post("/api/auth/verify-email", json!({"token": token})).await.assert_ok().body;
    assert_eq!((&verified["email_verified"], &verified["data"]["email_verified"]), (&json!(true), &json!(true)));
    app.post("/api/auth/verify-email", json!({"token": token})).await.assert_invalid_field("token");
    let user = log_in(app, "ada@example.com", PASSWORD).await.assert_ok().body["user"].clone();
    assert_eq!(user["email_verified"], true);
}

async fn a_second_verification_mail_replaces_the_first(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    let first = mailed_token(&read_mail(app, 1).await);
    let resend =
        async |email: &str| app.post("/api/auth/resend-verification", json!({"email": email})).await.assert_ok().body;
    let unknown = resend("bob@example.com").await;
    assert_eq!(resend("ada@example.com").await, unknown, "the response is the same for every address");
    let second = mailed_token(&read_mail(app, 2).await);
    app.post("/api/auth/verify-email", json!({"token": first})).await.assert_invalid_field("token");
    app.post("/api/auth/verify-email", json!({"token": second})).await.assert_ok();
    app.post("/api/auth/resend-verification", json!({"email": "x"})).await.assert_invalid_field("email");
}

async fn a_mailed_link_resets_the_password_once(app: &TestApp) {
    let session = register(app, "ada@example.com").await.assert_status(201).cookie("access_token").unwrap();
    read_mail(app, 1).await;
    let request_reset =
        async |email: &str| app.post("/api/auth/password-reset", json!({"email": email})).await.assert_ok().body;
    assert_eq!(request_reset("bob@example.com").await, request_reset("ada@example.com").await);
    let reset = mailed_token(&read_mail(app, 2).await);
    let confirm = async |token: &str, password: &str| {
        app.post("/api/auth/password-reset/confirm", json!({"token": token, "new_password": password})).await
    };
    confirm("nonsense", "Another-1-horse").await.assert_invalid_field("token");
    confirm(&reset, "weak").await.assert_invalid_field("new_password");
    confirm(&reset, PASSWORD).await.assert_invalid_field("new_password");
    confirm(&reset, "Another-1-horse").await.assert_ok();
    confirm(&reset, "A-third-1-horse").await.assert_invalid_field("token");
    let me = fetch(app.request(reqwest::Method::GET, "/api/auth/me").bearer_auth(session)).await;
    me.assert_error(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", "Another-1-horse").await.assert_ok();
}

async fn an_address_has_equal_ascii_and_unicode_domains(app: &TestApp) {
    register(app, "Anna@ex\u{e4}mple.test").await.assert_status(201);
    let mail = read_mail(app, 1).await;
    assert!(mail.contains("To: Anna@xn--exmple-cua.test\r\n"), "{mail}");
    for form in ["anna@xn--exmple-cua.test", "ANNA@EXA\u{308}MPLE.TEST", "anna@ex\u{e4}mple.test"] {
        log_in(app, form, PASSWORD).await.assert_ok();
        assert!(register(app, form).await.assert_status(201).cookie("access_token").is_none(), "{form} is taken");
    }
}

async fn the_local_part_of_an_address_has_equal_unicode_forms(app: &TestApp) {
    let (composed, decomposed) = ("\u{f6}ve@example.com", "o\u{308}ve@example.com");
    register(app, decomposed).await.assert_status(201);
    log_in(app, composed, PASSWORD).await.assert_ok();
    log_in(app, decomposed, PASSWORD).await.assert_ok();
    app.post("/api/auth/password-reset", json!({"email": decomposed})).await.assert_ok();
}

async fn a_password_has_equal_unicode_forms(app: &TestApp) {
    let (composed, decomposed) = ("Z\u{fc}rich-1 horse", "Zu\u{308}rich-1\u{a0}horse");
    let body = json!({"email": "ada@example.com", "password": decomposed, "name": "Ada"});
    app.post("/api/auth/register", body).await.assert_status(201);
    log_in(app, "ada@example.com", composed).await.assert_ok();
}

/// An older release hashed the password as typed. The first login with that form replaces the hash.
async fn a_login_normalizes_the_password_of_an_older_release(app: &TestApp) {
    let (composed, decomposed) = ("Z\u{fc}rich-1 horse", "Zu\u{308}rich-1\u{a0}horse");
    let body = json!({"email": "ada@example.com", "password": decomposed, "name": "Ada"});
    app.post("/api/auth/register", body).await.assert_status(201);
    let old = Argon2::default().hash_password(decomposed.as_bytes()).unwrap().to_string();
    store::replace_password_hash(app, "ada@example.com", &old).await;
    log_in(app, "ada@example.com", composed).await.assert_error(401, "UNAUTHENTICATED");
    log_in(app, "ada@example.com", decomposed).await.assert_ok();
    log_in(app, "ada@example.com", composed).await.assert_ok();
}

async fn oauth_is_not_implemented(app: &TestApp) {
    for path in ["github", "google", "github/callback", "google/callback"] {
        app.get(&format!("/api/auth/oauth/{path}")).await.assert_error(501, "NOT_IMPLEMENTED");
    }
    app.post("/api/auth/oauth/exchange", json!({})).await.assert_error(501, "NOT_IMPLEMENTED");
}
