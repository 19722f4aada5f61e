//! The cache entry of an identity: what invalidates it, and which tokens it holds.

use readthrough::redis;
use serde_json::json;
use testbed::Redis;

use crate::support::fixtures::exercises::exercise_path;
use crate::support::fixtures::store;
use crate::support::{TestApp, TestClient, fetch};

crate::on_both!(
    completions_and_profile_changes_keep_an_identity,
    revocation_and_verification_invalidate_an_identity,
    tokens_of_an_earlier_version_are_accepted_until_they_end,
    a_token_is_valid_only_with_the_number_of_its_user,
);

/// Returns the status and the number of statements of a request for a cached exercise.
async fn read(client: &TestClient<'_>, exercise: i64) -> (u16, u32) {
    let response = client.get(&exercise_path(exercise)).await;
    (response.status.as_u16(), response.statement_count())
}

async fn completions_and_profile_changes_keep_an_identity(app: &TestApp) {
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    ada.start_exercise(exercises[1]).await;
    read(&ada, exercises[0]).await;
    assert_eq!(read(&ada, exercises[0]).await, (200, 0), "warm");
    ada.complete_exercise(exercises[1]).await.assert_ok();
    assert_eq!(read(&ada, exercises[0]).await, (200, 0), "after a completion");
    ada.put("/api/users/me", json!({"name": "Ada L."})).await.assert_ok();
    assert_eq!(read(&ada, exercises[0]).await, (200, 0), "after a profile change");
    app.create_session(ada.user_id, std::time::Duration::from_secs(60)).await;
    assert_eq!(read(&ada, exercises[0]).await, (200, 0), "after another log-in");
    // A negative control: the count includes the statements of an identity.
    ada.app.store().revoke_session(ada.user_id, 0).await.unwrap();
    assert_eq!(read(&ada, exercises[0]).await, (200, 2), "after a revocation");
}

async fn revocation_and_verification_invalidate_an_identity(app: &TestApp) {
    let exercise = app.load_catalogue().await[0];
    let ada = app.user("ada").unverified().create().await;
    for _ in 0..2 {
        assert_eq!(read(&ada, exercise).await.0, 403);
    }
    store::verify_email(&ada).await;
    for _ in 0..2 {
        assert_eq!(read(&ada, exercise).await.0, 200);
    }
    let elsewhere =
        TestClient { token: app.create_session(ada.user_id, std::time::Duration::from_secs(60)).await, ..ada };
    assert_eq!(read(&elsewhere, exercise).await.0, 200);
    app.revoke_session(&ada.token).await;
    assert_eq!((read(&ada, exercise).await.0, read(&elsewhere, exercise).await.0), (401, 200));
    store::reset_password(&elsewhere).await;
    assert_eq!(read(&elsewhere, exercise).await.0, 401);
}

async fn tokens_of_an_earlier_version_are_accepted_until_they_end(app: &TestApp) {
    let exercise = app.load_catalogue().await[0];
    let ada = app.student("ada").await;
    let earlier = TestClient { token: app.create_earlier_session(ada.user_id).await, ..ada.clone() };
    for _ in 0..3 {
        assert_eq!(read(&earlier, exercise).await.0, 200);
    }
    assert_eq!(read(&earlier, exercise).await, (200, 1), "the database looks it up");
    let refresh = json!({"refresh_token": format!("refresh-{}", earlier.token)});
    let renewed = app.post("/api/auth/refresh", refresh).await.assert_ok();
    let token = renewed.cookie("access_token").unwrap();
    assert!(token.starts_with(&format!("{}.", ada.user_id)), "a refresh returns a token that names the user");
    let renewed = TestClient { token, ..ada.clone() };
    read(&renewed, exercise).await;
    assert_eq!(read(&renewed, exercise).await, (200, 0));
    app.revoke_session(&earlier.token).await;
    assert_eq!((read(&earlier, exercise).await.0, read(&renewed, exercise).await.0), (401, 401));
}

async fn a_token_is_valid_only_with_the_number_of_its_user(app: &TestApp) {
    let exercise = app.load_catalogue().await[0];
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    let secret = ada.token.split_once('.').unwrap().1;
    for _ in 0..2 {
        assert_eq!(read(&ada, exercise).await.0, 200);
        for number in [bob.user_id.to_string(), "999999".to_owned(), "0".to_owned(), "x".to_owned(), String::new()] {
            for token in [format!("{number}.{secret}"), format!("{number}{secret}"), format!(".{number}.{secret}")] {
                let forged = TestClient { token, ..ada.clone() };
                assert_eq!(read(&forged, exercise).await.0, 401, "{}", forged.token);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guessed_tokens_leave_nothing_in_redis() {
    let server = Redis::start().await.unwrap();
    let app = TestApp::postgres().redis(&server).start().await;
    let ada = app.student("ada").await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys =
        async || -> Vec<String> { redis::cmd("KEYS").arg("*v1:session*").query_async(&mut connection).await.unwrap() };
    let guess = async |number: i64| {
        let token = format!("{number}.{:032x}", rand::random::<u128>());
        let request = app.request(reqwest::Method::GET, "/api/users/me").bearer_auth(token);
        fetch(request).await.assert_error(401, "UNAUTHENTICATED");
    };
    for number in 0..20 {
        guess(ada.user_id + number).await;
        guess(ada.user_id).await;
    }
    assert_eq!(keys().await, Vec::<String>::new());
    ada.get("/api/users/me").await.assert_ok();
    assert_eq!(keys().await.len(), 2, "the identity of a token, and its group");
}

/// Without L1, the profile is fetched together with the identity.
#[tokio::test(flavor = "multi_thread")]
async fn without_l1_a_profile_is_that_of_its_token() {
    let redis = Redis::start().await.unwrap();
    let app = TestApp::postgres().redis(&redis).cache_l1(false).start().await;
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    let hits = || {
        let stats = app.cache().stats();
        ["session", "user:profile"].map(|name| stats.iter().find(|stats| stats.name == name).unwrap().l2_hits)
    };
    for client in [&ada, &bob] {
        client.get("/api/users/me").await.assert_ok();
        let [sessions, profiles] = hits();
        let response = client.get("/api/users/me").await.assert_ok();
        assert_eq!((response.statement_count(), &response.body["id"]), (0, &json!(client.user_id)));
        assert_eq!(hits(), [sessions + 1, profiles + 1]);
    }
    ada.put("/api/users/me", json!({"name": "Ada L."})).await.assert_ok();
    assert_eq!(ada.get("/api/users/me").await.assert_ok().body["name"], "Ada L.");
    // The profile of a user whom a forged token names is found, and not returned.
    let secret = bob.token.split_once('.').unwrap().1;
    let forged = TestClient { token: format!("{}.{secret}", ada.user_id), ..ada.clone() };
    forged.get("/api/users/me").await.assert_error(401, "UNAUTHENTICATED");
    app.revoke_session(&ada.token).await;
    ada.get("/api/users/me").await.assert_error(401, "UNAUTHENTICATED");
}
