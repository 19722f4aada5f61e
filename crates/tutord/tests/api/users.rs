use serde_json::json;

use crate::harness::TestApp;

crate::on_both!(
    the_profile_has_the_contracts_fields("--cache-enabled", "false"),
    a_profile_changes_field_by_field,
    bounds_of_the_profile_are_named,
    onboarding_is_answered_once,
    preferences_are_the_learning_fields,
    progress_begins_at_nothing,
);

async fn the_profile_has_the_contracts_fields(app: &TestApp) {
    let ada = app.student("ada").await;
    let profile = ada.get("/api/users/me").await.ok();
    assert_eq!(profile.statements(), 2, "the session and the user");
    for path in ["/api/users/me/profile", "/api/v1/users/me", "/api/v1/users/me/profile"] {
        assert_eq!(ada.get(path).await.ok().body, profile.body);
    }
    insta::assert_json_snapshot!("profile", profile.body, {
        ".id" => "[id]", ".created_at" => "[time]", ".updated_at" => "[time]", ".last_login" => "[time]",
    });
    assert!(profile.body["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(profile.body["created_at"].as_str().unwrap().len(), "2026-01-02T03:04:05.678901Z".len());
}

async fn a_profile_changes_field_by_field(app: &TestApp) {
    let ada = app.student("ada").await;
    let bio = "<script>alert('hi')</script> 日本";
    let changed = ada.put("/api/users/me", json!({"bio": bio, "timezone": "Asia/Tokyo", "other": 1})).await.ok();
    assert_eq!(changed.body["profile"]["bio"], bio, "stored as written");
    let read = ada.get("/api/users/me").await.ok().body;
    assert_eq!(read, changed.body["profile"]);
    assert_eq!((&read["timezone"], &read["name"]), (&json!("Asia/Tokyo"), &json!("ada")));
    let changed = ada.put("/api/users/me", json!({"name": "  Ada Lovelace ", "bio": ""})).await.ok().body;
    assert_eq!((&changed["profile"]["name"], &changed["profile"]["bio"]), (&json!("Ada Lovelace"), &json!("")));
}

async fn bounds_of_the_profile_are_named(app: &TestApp) {
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
        let message = ada.put("/api/users/me", json!({field: value})).await.refuses(field).to_owned();
        assert!(message.starts_with(field), "{message}");
    }
    assert_eq!(
        ada.put("/api/users/me", json!({"skill_level": "guru"})).await.refuses("skill_level"),
        "skill_level: unknown variant `guru`, expected one of `beginner`, `intermediate`, `advanced`, `expert`"
    );
    ada.put("/api/users/me", json!({})).await.refuses("body");
    ada.put("/api/users/me", json!({"unknown": 1})).await.refuses("body");
    ada.put("/api/users/me", json!({"name": long(255), "bio": long(2000)})).await.ok();
}

async fn onboarding_is_answered_once(app: &TestApp) {
    let ada = app.student("ada").await;
    let questions = ada.get("/api/users/onboarding/questions").await.ok().body;
    insta::assert_json_snapshot!("onboarding_questions", questions);
    let status = ada.get("/api/users/onboarding/status").await.ok().body;
    assert_eq!((&status["onboarding_completed"], &status["user_id"]), (&json!(false), &json!(ada.user.id)));
    let answers = json!({
        "programming_language": "python", "skill_level": "beginner", "career_goals": "Become a developer",
        "learning_style": "hands-on", "time_commitment": "1 hour a day",
    });
    for field in ["programming_language", "skill_level", "career_goals", "learning_style", "time_commitment"] {
        let mut incomplete = answers.clone();
        incomplete.as_object_mut().unwrap().remove(field);
        let refused = ada.post("/api/users/onboarding", incomplete).await;
        assert_eq!(refused.refuses(field), format!("{field} is required"));
    }
    let completed = ada.post("/api/users/onboarding", answers.clone()).await.ok().body;
    assert_eq!((&completed["onboarding_completed"], &completed["email"]), (&json!(true), &json!("ada@example.com")));
    assert_eq!(completed["career_goals"], answers["career_goals"]);
    ada.post("/api/users/onboarding", answers.clone()).await.fails(409, "CONFLICT");
    let status = ada.get("/api/users/onboarding/status").await.ok().body;
    assert_eq!((&status["onboarding_completed"], &status["current_data"]), (&json!(true), &answers));
}

async fn preferences_are_the_learning_fields(app: &TestApp) {
    let ada = app.student("ada").await;
    let before = ada.get("/api/users/me/preferences").await.ok().body;
    assert_eq!(before.as_object().unwrap().len(), 5);
    let changed = ada.put("/api/users/me/preferences", json!({"skill_level": "expert"})).await.ok().body;
    assert_eq!(changed["preferences"]["skill_level"], "expert");
    assert_eq!(ada.get("/api/users/me/preferences").await.ok().body, changed["preferences"]);
    ada.put("/api/users/me/preferences", json!({"name": "not a preference"})).await.refuses("body");
    ada.put("/api/users/me/preferences", json!({"career_goals": "short"})).await.refuses("career_goals");
}

async fn progress_begins_at_nothing(app: &TestApp) {
    let ada = app.student("ada").await;
    let progress = ada.get("/api/users/me/progress").await.ok().body;
    insta::assert_json_snapshot!("progress_summary", progress, {".user_id" => "[id]", ".member_since" => "[time]"});
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_the_languages_that_are_offered_have_exercises() {
    let app = TestApp::sqlite(&["--llm-model", "fake-1"]).await;
    crate::exercises::load_catalogue(&app).await;
    let ada = app.student("ada").await;
    let questions = ada.get("/api/users/onboarding/questions").await.ok().body;
    let offered = questions["questions"][0]["options"].as_array().unwrap();
    assert!(offered.len() >= 5, "{questions}");
    for language in offered {
        let student = app.student(language.as_str().unwrap()).await;
        student.put("/api/users/me", json!({"programming_language": language})).await.ok();
        let daily = student.get("/api/exercises/daily").await.ok().body;
        assert_eq!(&daily["exercise"]["programming_language"], language, "{daily}");
    }
}
