//! Idempotency keys of submissions and of generated exercises.

use serde_json::{Value, json};
use testbed::model::Behaviour;

use crate::exercises::{load_catalogue, review, written};
use crate::harness::TestApp;

crate::on_both!(
    a_repeated_submission_is_answered_with_its_grade,
    a_repeated_generation_is_answered_with_the_same_exercise,
);

async fn a_repeated_submission_is_answered_with_its_grade(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let request = json!({"solution": "print(1)", "time_spent_seconds": 30, "idempotency_key": "first"});
    let submit = async |id: u32, body: &Value| ada.post(&format!("/api/exercises/{id}/submit"), body.clone()).await;
    app.model.next(Behaviour::Fail(400, None));
    submit(1, &request).await.fails(503, "LLM_UNAVAILABLE");
    app.model.next(review(70));
    let graded = submit(1, &request).await.ok().body;
    assert_eq!((&graded["grade"], &graded["submission_count"]), (&json!(70), &json!(1)), "one submission");
    let asked = app.model.received().len();
    assert_eq!(submit(1, &request).await.ok().body, graded, "the answer that got lost, of a completed exercise");
    assert_eq!(app.model.received().len(), asked, "graded once");
    for (id, field, value) in
        [(1, "solution", json!("print(2)")), (1, "time_spent_seconds", json!(31)), (2, "solution", json!("print(1)"))]
    {
        let mut other = request.clone();
        other[field] = value;
        submit(id, &other).await.refuses("idempotency_key");
    }
    assert_eq!(app.model.received().len(), asked);
}

async fn a_repeated_generation_is_answered_with_the_same_exercise(app: &TestApp) {
    let ada = app.student("ada").await;
    let request = json!({"topic": "loops", "idempotency_key": "first"});
    app.model.next(written("A first exercise"));
    let first = ada.post("/api/exercises/generate", request.clone()).await.has(201).body;
    let asked = app.model.received().len();
    assert_eq!(ada.post("/api/exercises/generate", request).await.has(201).body, first);
    let other = json!({"topic": "trees", "idempotency_key": "first"});
    ada.post("/api/exercises/generate", other).await.refuses("idempotency_key");
    let id = &first["exercise"]["id"];
    let other = json!({"solution": "x", "idempotency_key": "first"});
    ada.post(&format!("/api/exercises/{id}/submit"), other).await.refuses("idempotency_key");
    assert_eq!(app.model.received().len(), asked, "nothing was written again");
}
