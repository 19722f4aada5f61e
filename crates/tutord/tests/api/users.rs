use std::sync::Arc;

use serde_json::{Value, json};
use tutord_core::store::Loaded;

use crate::support::TestApp;

crate::on_both!(
    the_profile_has_the_fields_of_the_contract(without_cache()),
    an_update_changes_only_the_fields_it_contains,
    an_invalid_profile_names_the_field_and_its_bound,
    the_onboarding_has_questions,
    the_onboarding_requires_every_field,
    the_onboarding_can_be_completed_once,
    the_preferences_are_the_learning_fields,
    the_progress_of_a_new_student_is_zero,
    cached_reads_share_one_profile,
    uncached_reads_return_fresh_profiles(without_cache()),
);

async fn cached_reads_share_one_profile(app: &TestApp) {
    let ada = app.student("ada").await;
    let read = async || app.store().user(ada.user_id).await.unwrap().unwrap();
    let (Loaded::Shared(first), Loaded::Shared(second)) = (read().await, read().await) else { panic!("a fresh value") };
    assert!(Arc::ptr_eq(&first, &second));
    ada.put("/api/users/me", json!({"bio": "new"})).await.assert_ok();
    let Loaded::Shared(changed) = read().await else { panic!("a fresh value") };
    assert!(!Arc::ptr_eq(&first, &changed), "a write replaces the value");
}

async fn uncached_reads_return_fresh_profiles(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(matches!(app.store().user(ada.user_id).await.unwrap().unwrap(), Loaded::Fresh(_)));
}

async fn the_profile_has_the_fields_of_the_contract(app: &TestApp) {
    let ada = app.student("ada").await;
    let profile = ada.get("/api/users/me").await.assert_ok();
    assert_eq!(profile.statement_count(), 2, "the session and the user");
    for path in ["/api/users/me/profile", "/api/v1/users/me", "/api/v1/users/me/profile"] {
        assert_eq!(ada.get(path).await.assert_ok().body, profile.body);
    }
    insta::assert_json_snapshot!("profile", profile.body, {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]", ".last_login" => "[time]",
    });
    assert!(profile.body["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(profile.body["created_at"].as_str().unwrap().len(), "2026-01-02T03:04:05.678901Z".len());
}

async fn an_update_changes_only_the_fields_it_contains(app: &TestApp) {
    let ada = app.student("ada").await;
    let bio = "<script>alert('hi')</script> 日本";
    let changed = ada.put("/api/users/me", json!({"bio": bio, "timezone": "Asia/Tokyo", "other": 1})).await.assert_ok();
    assert_eq!(changed.body["profile"]["bio"], bio, "stored as written");
    let read = ada.get("/api/users/me").await.assert_ok().body;
    assert_eq!(read, changed.body["profile"]);
    assert_eq!((&read["timezone"], &read["name"]), (&json!("Asia/Tokyo"), &json!("ada")));
    let changed = ada.put("/api/users/me", json!({"name": "  Ada Lovelace ", "bio": ""})).await.assert_ok().body;
    assert_eq!((&changed["profile"]["name"], &changed["profile"]["bio"]), (&json!("Ada Lovelace"), &json!("")));
}

async fn an_invalid_profile_names_the_field_and_its_bound(app: &TestApp) {
    let ada = app.student("ada").await;
    let long = |count| "é".repeat(count);
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("   ")),
        ("name", json!(long(256))),
        ("bio", json!(long(2001))),
        ("programming_language", json!("")),
        ("programming_language", json!(long(51))),
        ("skill_level", json!("guru")),
        ("career_goals", json!("too short")),
        ("career_goals", json!(long(1001))),
        ("learning_style", json!("no")),
        ("learning_style", json!(long(101))),
        ("time_commitment", json!("1h")),
        ("timezone", json!("Mars/Olympus")),
        ("name", json!(5)),
    ] {
        let message = ada.put("/api/users/me", json!({field: value})).await.assert_invalid_field(field).to_owned();
        assert!(message.starts_with(field), "{message}");
    }
    assert_eq!(
        ada.put("/api/users/me", json!({"skill_level": "guru"})).await.assert_invalid_field("skill_level"),
        "skill_level: unknown variant `guru`, expected one of `beginner`, `intermediate`, `advanced`, `expert`"
    );
    ada.put("/api/users/me", json!({})).await.assert_invalid_field("body");
    ada.put("/api/users/me", json!({"unknown": 1})).await.assert_invalid_field("body");
    ada.put("/api/users/me", json!({"name": long(255), "bio": long(2000)})).await.assert_ok();
}

async fn the_onboarding_has_questions(app: &TestApp) {
    let ada = app.student("ada").await;
    let questions = ada.get("/api/users/onboarding/questions").await.assert_ok().body;
    insta::assert_json_snapshot!("onboarding_questions", questions);
}

fn onboarding_answers() -> Value {
    json!({
        "programming_language": "python", "skill_level": "beginner", "career_goals": "Become a developer",
        "learning_style": "hands-on", "time_commitment": "1 hour a day",
    })
}

async fn the_onboarding_requires_every_field(app: &TestApp) {
    let ada = app.student("ada").await;
    for field in ["programming_language", "skill_level", "career_goals", "learning_style", "time_commitment"] {
        let mut incomplete = onboarding_answers();
        incomplete.as_object_mut().unwrap().remove(field);
        let rejected = ada.post("/api/users/onboarding", incomplete).await;
        assert_eq!(rejected.assert_invalid_field(field), format!("{field} is required"));
    }
}

async fn the_onboarding_can_be_completed_once(app: &TestApp) {
    let ada = app.student("ada").await;
    let status = ada.get("/api/users/onboarding/status").await.assert_ok().body;
    assert_eq!((&status["onboarding_completed"], &status["user_id"]), (&json!(false), &json!(ada.user_id)));
    let answers = onboarding_answers();
    let completed = ada.post("/api/users/onboarding", answers.clone()).await.assert_ok().body;
    assert_eq!((&completed["onboarding_completed"], &completed["email"]), (&json!(true), &json!("ada@example.com")));
    assert_eq!(completed["career_goals"], answers["career_goals"]);
    ada.post("/api/users/onboarding", answers.clone()).await.assert_error(409, "CONFLICT");
    let status = ada.get("/api/users/onboarding/status").await.assert_ok().body;
    assert_eq!((&status["onboarding_completed"], &status["current_data"]), (&json!(true), &answers));
}

async fn the_preferences_are_the_learning_fields(app: &TestApp) {
    let ada = app.student("ada").await;
    let before = ada.get("/api/users/me/preferences").await.assert_ok().body;
    assert_eq!(before.as_object().unwrap().len(), 5);
    let changed = ada.put("/api/users/me/preferences", json!({"skill_level": "expert"})).await.assert_ok().body;
    assert_eq!(changed["preferences"]["skill_level"], "expert");
    assert_eq!(ada.get("/api/users/me/preferences").await.assert_ok().body, changed["preferences"]);
    ada.put("/api/users/me/preferences", json!({"name": "not a preference"})).await.assert_invalid_field("body");
    ada.put("/api/users/me/preferences", json!({"career_goals": "short"})).await.assert_invalid_field("career_goals");
}

async fn the_progress_of_a_new_student_is_zero(app: &TestApp) {
    let ada = app.student("ada").await;
    let progress = ada.get("/api/users/me/progress").await.assert_ok().body;
    insta::assert_json_snapshot!("progress_summary", progress, {".user_id" => "[id]", ".member_since" => "[time]"});
}

#[tokio::test(flavor = "multi_thread")]
async fn the_languages_that_are_offered_without_a_model_have_exercises() {
    let app = TestApp::sqlite().without_model().start().await;
    app.load_catalogue().await;
    let ada = app.student("ada").await;
    let questions = ada.get("/api/users/onboarding/questions").await.assert_ok().body;
    let offered = questions["questions"][0]["options"].as_array().unwrap();
    assert!(offered.len() >= 5, "{questions}");
    for language in offered {
        let student = app.student(language.as_str().unwrap()).await;
        student.put("/api/users/me", json!({"programming_language": language})).await.assert_ok();
        let daily = student.get("/api/exercises/daily").await.assert_ok().body;
        assert_eq!(&daily["exercise"]["programming_language"], language, "{daily}");
    }
}
