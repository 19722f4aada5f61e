//! What every route has to answer, asked of every route that the API's description names: one that is added is
//! asked too.

use std::collections::HashSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tutord::auth::ME_BUDGET;
use tutord::chat::{CONVERSATION_BUDGET, SEND_BUDGET};
use tutord::exercises::{DIFFICULTY_BUDGET, STEP_BUDGET};
use tutord::progress::{LEVEL_BUDGET, OPT_OUT_BUDGET, STREAK_BUDGET};
use tutord::users::PROFILE_BUDGET;
use tutord_core::model::Role;

use crate::exercises::{load_catalogue, written};
use crate::harness::{Client, Needs, TestApp, answer, is_protected, refuses_bad_bodies};

crate::on_both!(
    the_routes_are_those_of_the_contract,
    the_description_is_complete,
    every_bound_is_the_real_one,
    every_route_has_a_budget,
    every_route_that_is_not_public_is_protected,
    every_body_is_read_with_care,
    every_field_is_of_its_kind,
    every_parameter_is_bounded,
    every_id_is_checked,
    statements_do_not_grow_with_the_rows("--cache-enabled", "false"),
);

/// A route of the description.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    operation: Value,
}

impl Route {
    /// Its name, under which the older release's path is the same route.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path.replace("/api/v1/", "/api/"))
    }

    pub(crate) fn at(&self, id: &str) -> String {
        self.path.replace("{id}", id)
    }

    /// Who may call it: `public`, `login`, `verified` or `admin`.
    pub(crate) fn requires(&self) -> &str {
        self.operation["x-requires"].as_str().expect("x-requires")
    }

    pub(crate) fn is_public(&self) -> bool {
        self.requires() == "public"
    }

    fn takes_body(&self) -> bool {
        self.operation.get("requestBody").is_some()
    }

    /// A body that is as it should be, where the route takes one.
    pub(crate) fn body(&self) -> Option<Value> {
        let content = &self.operation.get("requestBody")?["content"]["application/json"];
        let name = self.name();
        Some(content.get("example").expect(&name).clone())
    }

    fn parameters(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.operation["parameters"].as_array().into_iter().flatten();
        all.filter(|parameter| parameter["in"] == "query")
            .map(|parameter| (parameter["name"].as_str().unwrap(), &parameter["schema"]))
    }
}

pub(crate) async fn description(app: &TestApp) -> Value {
    app.get("/api/openapi.json").await.ok().body
}

pub(crate) fn routes(description: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if let Ok(method) = method.to_uppercase().parse()
                && operation.get("responses").is_some()
            {
                routes.push(Route { method, path: path.clone(), operation: operation.clone() });
            }
        }
    }
    assert!(routes.len() > 60, "{}", routes.len());
    routes
}

/// What kind of value a schema asks for.
#[derive(Debug, PartialEq)]
enum Kind {
    Text,
    Integer,
    Boolean,
    OneOf,
}

fn kind(schema: &Value, description: &Value) -> Kind {
    if let Some(name) = schema["$ref"].as_str() {
        return kind(&resolve(name, description), description);
    }
    if schema.get("enum").is_some() {
        return Kind::OneOf;
    }
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| schema[key].as_array());
    if let Some(alternatives) = alternatives {
        return kind(alternatives.iter().find(|schema| schema["type"] != "null").unwrap(), description);
    }
    let types = schema["type"].to_string();
    let known = [("string", Kind::Text), ("integer", Kind::Integer), ("boolean", Kind::Boolean)];
    known.into_iter().find(|(name, _)| types.contains(name)).expect("a kind of value that this test knows").1
}

fn resolve(name: &str, description: &Value) -> Value {
    description.pointer(name.trim_start_matches('#')).expect(name).clone()
}

/// The fields of a route's body, with their schemas.
fn properties(route: &Route, description: &Value) -> Vec<(String, Value)> {
    let schema = &route.operation["requestBody"]["content"]["application/json"]["schema"];
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let name = alternatives.chain([schema]).find_map(|schema| schema["$ref"].as_str());
    let body = resolve(name.expect("a body of one type"), description);
    body["properties"].as_object().unwrap().clone().into_iter().collect()
}

/// Every reference in a description.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

async fn the_routes_are_those_of_the_contract(app: &TestApp) {
    let description = description(app).await;
    let mut found = Vec::new();
    references(&description, &mut found);
    for name in found {
        resolve(name, &description);
    }
    let lines: Vec<String> = routes(&description)
        .iter()
        .map(|route| {
            let who = match route.requires() {
                "public" => "everybody",
                "login" => "users",
                "verified" => "verified users",
                _ => "admins",
            };
            format!("{:<6} {}  {who}", route.method.as_str(), route.path)
        })
        .collect();
    insta::assert_snapshot!("routes", lines.join("\n"));
}

async fn the_description_is_complete(app: &TestApp) {
    let description = description(app).await;
    let mut ids = HashSet::new();
    for route in routes(&description) {
        let operation = &route.operation;
        assert!(ids.insert(operation["operationId"].to_string()), "{}: {}", route.path, operation["operationId"]);
        assert_eq!(operation["security"] == json!([]), route.is_public(), "{}", route.path);
        // A head is bounded before there is a route.
        for status in ["414", "431"] {
            assert!(operation["responses"][status].is_object(), "{} {} has no {status}", route.method, route.path);
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let of = format!("{} {} {status}", route.method, route.path);
            let response = match response["$ref"].as_str() {
                Some(name) => resolve(name, &description),
                None => response.clone(),
            };
            assert!(!response["description"].as_str().unwrap_or_default().is_empty(), "{of} has no description");
            // Readiness says in its 503 what it says in its 200.
            let is_readiness = status == "503" && route.path.starts_with("/api/health");
            let is_error = status.starts_with(['4', '5']) && !is_readiness;
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(is_error, schema == "#/components/schemas/ErrorBody", "{of}: {schema}");
        }
        for (name, schema) in route.parameters().filter(|(_, schema)| kind(schema, &description) == Kind::Integer) {
            assert!(
                schema["minimum"].is_i64() && schema["maximum"].is_i64(),
                "{} has an unbounded {name}",
                route.name()
            );
        }
        if route.body().is_some() {
            for (name, schema) in properties(&route, &description) {
                let bound = match kind(&schema, &description) {
                    Kind::Text => "maxLength",
                    Kind::Integer => "minimum",
                    Kind::Boolean | Kind::OneOf => continue,
                };
                assert!(schema[bound].is_u64(), "{} has an unbounded {name}", route.name());
            }
        }
    }
}

/// What is one beyond a bound is refused in its name; what is at the bound is not refused for it.
async fn every_bound_is_the_real_one(app: &TestApp) {
    let (ada, admin) = (app.student("ada").await, app.user("root", Role::Admin, true).await);
    let description = description(app).await;
    let mut checked = 0;
    for route in &routes(&description) {
        let client = if route.requires() == "admin" { &admin } else { &ada };
        let mut check = async |field: &str, request: RequestBuilder, fits: bool| {
            let answer = answer(request).await;
            let message = answer.body["error"]["message"].as_str().unwrap_or_default();
            let bounds = ["must have at", "must have between", "must be at", "must be between"];
            let is_refused =
                answer.body["error"]["details"]["field"] == field && bounds.iter().any(|bound| message.contains(bound));
            assert_ne!(is_refused, fits, "{} {field}: {:#}", route.name(), answer.body);
            checked += 1;
        };
        for (name, schema) in route.parameters().filter(|(_, schema)| kind(schema, &description) == Kind::Integer) {
            for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
                let bound = schema[bound].as_i64().unwrap();
                for (value, fits) in [(bound, true), (bound + beyond, false)] {
                    let path = format!("{}?{name}={value}", route.at("1"));
                    check(name, client.request(route.method.clone(), &path), fits).await;
                }
            }
        }
        let Some(body) = route.body() else { continue };
        for (name, schema) in properties(route, &description) {
            for (bound, beyond) in [("minLength", -1), ("maxLength", 1), ("minimum", -1), ("maximum", 1)] {
                let Some(limit) = schema[bound].as_i64() else { continue };
                // A time zone is refused for being none, whatever its length.
                let is_zone = name.ends_with("timezone");
                for (value, fits) in [(limit, true), (limit + beyond, false)] {
                    if is_zone {
                        continue;
                    }
                    let mut body = body.clone();
                    body[&name] = match bound {
                        "minLength" | "maxLength" => json!("x".repeat(usize::try_from(value).unwrap())),
                        _ => json!(value),
                    };
                    check(&name, client.request(route.method.clone(), &route.at("1")).json(&body), fits).await;
                }
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

async fn every_route_has_a_budget(app: &TestApp) {
    for route in routes(&description(app).await) {
        assert!(
            tutord::mounts::route_table().budget(&route.method, &route.path).is_some(),
            "{} {}",
            route.method,
            route.path
        );
    }
}

async fn every_route_that_is_not_public_is_protected(app: &TestApp) {
    for route in routes(&description(app).await).iter().filter(|route| !route.is_public()) {
        let path = route.at("1");
        let needs = if route.requires() == "login" {
            let unverified = app.user(&format!("u{:x}", rand::random::<u64>()), Role::Student, false).await;
            answer(unverified.request(route.method.clone(), &path)).await.ok();
            Needs::LogIn
        } else {
            Needs::VerifiedEmail
        };
        is_protected(app, needs, route.method.clone(), &path, route.body()).await;
    }
}

async fn every_body_is_read_with_care(app: &TestApp) {
    let ada = app.student("ada").await;
    for route in routes(&description(app).await).iter().filter(|route| route.takes_body()) {
        let optional = route.operation["requestBody"]["required"] != true;
        refuses_bad_bodies(&ada, route.method.clone(), &route.at("1"), optional).await;
    }
}

async fn every_field_is_of_its_kind(app: &TestApp) {
    let ada = app.student("ada").await;
    let description = description(app).await;
    for route in routes(&description).iter().filter(|route| route.takes_body()) {
        let send = async |field: &str, value: &Value| {
            let mut body = route.body().unwrap();
            body[field] = value.clone();
            answer(ada.request(route.method.clone(), &route.at("1")).json(&body)).await
        };
        for (field, schema) in properties(route, &description) {
            let wrong = match kind(&schema, &description) {
                Kind::Text => vec![json!(5), json!(["x"]), json!({}), json!("a\0b")],
                Kind::Integer => vec![json!("1"), json!(1.5), json!(-1), json!(1e30), json!(true)],
                Kind::Boolean => vec![json!("true"), json!(1)],
                Kind::OneOf => vec![json!("no such value"), json!(""), json!(0), json!("a\0b")],
            };
            for value in wrong {
                send(&field, &value).await.refuses(&field);
            }
        }
    }
}

async fn every_parameter_is_bounded(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    ada.talk("hello").await;
    let admin = app.user("root", Role::Admin, true).await;
    let description = description(app).await;
    for route in &routes(&description) {
        let client = if route.path.starts_with("/api/admin") { &admin } else { &ada };
        for (name, schema) in route.parameters() {
            let wrong: &[&str] = match (name, kind(schema, &description)) {
                ("offset", _) => &["-1", "abc", "", "99999999999999999999"],
                (_, Kind::Integer) => &["0", "-1", "1000000000", "abc", "", "1.5", "99999999999999999999"],
                // The last four are of the right shape, but name times that no row has.
                ("cursor", _) => &[
                    "x",
                    "",
                    "AAAA",
                    "%00",
                    "AQB__________wAAAAAAAAAB",
                    "AQCAAAAAAAAAAAAAAAAAAAAB",
                    "BAB__________wAAAAAAAAAB",
                    "BACAAAAAAAAAAAAAAAAAAAAB",
                ],
                (_, Kind::Boolean) => &["maybe", "", "%00"],
                (_, Kind::OneOf) => &["no-such-value", "", "%00"],
                (_, Kind::Text) => &["%00"],
            };
            for value in wrong {
                let path = format!("{}?{name}={value}", route.at("1"));
                answer(client.request(route.method.clone(), &path)).await.refuses(name);
            }
        }
    }
}

async fn every_id_is_checked(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    let conversation = ada.talk("my secret").await;
    app.model.next(written("For Ada alone"));
    let exercise = ada.post("/api/exercises/generate", json!({})).await.has(201).body["exercise"]["id"].clone();
    let asked = app.model.received().len();
    let send = async |client: &Client<'_>, route: &Route, id: &str| {
        let request = client.request(route.method.clone(), &route.at(id));
        answer(match route.body() {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    };
    let mut checked = 0;
    for route in routes(&description(app).await).iter().filter(|route| route.path.contains("{id}")) {
        for id in ["0", "-1", "abc", "1.5", "99999999999999999999", "%27", "%00"] {
            assert_eq!(send(&ada, route, id).await.refuses("id"), "id must be a positive integer");
        }
        let is_chat = route.path.starts_with("/api/chat/");
        let id = if is_chat { conversation.to_string() } else { exercise.to_string() };
        let (foreign, missing) = (send(&eve, route, &id).await, send(&eve, route, "4711").await);
        foreign.fails(404, "NOT_FOUND");
        assert_eq!(foreign.body, missing.body, "like one that does not exist");
        checked += 1;
    }
    assert_eq!(checked, 9);
    let about = json!({"context_type": "exercise", "exercise_id": exercise});
    eve.post("/api/chat/conversations", about.clone()).await.fails(404, "NOT_FOUND");
    ada.post("/api/chat/conversations", about).await.has(201);
    assert_eq!(app.model.received().len(), asked, "the model was asked nothing");
    assert_eq!(eve.get("/api/exercises/history").await.ok().body["total"], 0);
}

/// Pages, lists and completions have such tests of their own.
async fn statements_do_not_grow_with_the_rows(app: &TestApp) {
    load_catalogue(app).await;
    let ada = app.student("ada").await;
    let id = ada.talk("hello").await;
    let conversation = format!("/api/chat/conversations/{id}");
    let issued = async |method: &str, path: &str, body: Value, budget: u32| {
        let request = ada.request(method.parse().unwrap(), path).json(&body);
        let answer = answer(request).await;
        assert!(answer.status.is_success(), "{method} {path}: {:#}", answer.body);
        assert!(answer.statements() <= budget, "{method} {path}: {}", answer.statements());
        answer.statements()
    };
    let all = async |round: &str, exercises: [i64; 2]| {
        let [hinted, skipped] = exercises.map(|id| format!("/api/exercises/{id}"));
        [
            issued("GET", "/api/auth/me", json!({}), ME_BUDGET).await,
            issued("GET", "/api/users/me", json!({}), PROFILE_BUDGET).await,
            issued("GET", "/api/users/me/progress", json!({}), PROFILE_BUDGET).await,
            issued("GET", "/api/users/me/preferences", json!({}), PROFILE_BUDGET).await,
            issued("GET", "/api/users/onboarding/status", json!({}), PROFILE_BUDGET).await,
            issued("PUT", "/api/users/me", json!({"name": round}), PROFILE_BUDGET).await,
            issued("PUT", "/api/users/me/preferences", json!({"skill_level": "expert"}), PROFILE_BUDGET).await,
            issued("POST", "/api/chat/conversations", json!({"exercise_id": 1}), CONVERSATION_BUDGET).await,
            issued("PATCH", &conversation, json!({"title": round}), CONVERSATION_BUDGET).await,
            issued("POST", "/api/chat/message", json!({"message": "x", "idempotency_key": round}), SEND_BUDGET).await,
            issued("POST", "/api/chat/message", json!({"message": "x", "conversation_id": id}), SEND_BUDGET).await,
            issued("POST", &format!("{hinted}/hint"), json!({}), STEP_BUDGET).await,
            issued("POST", &format!("{skipped}/skip"), json!({}), STEP_BUDGET).await,
            issued("GET", "/api/exercises/difficulty/analyze", json!({}), DIFFICULTY_BUDGET).await,
            issued("POST", "/api/exercises/difficulty/adjust", json!({"difficulty": "easy"}), DIFFICULTY_BUDGET).await,
            issued("POST", "/api/progress/update-streak", json!({}), STREAK_BUDGET).await,
            issued("POST", "/api/progress/calculate-skill-level", json!({"topic": "x"}), LEVEL_BUDGET).await,
        ]
    };
    let few = all("few", [1, 2]).await;
    for number in 10..30 {
        ada.post("/api/chat/message", json!({"message": "x", "conversation_id": id})).await.ok();
        ada.start(number).await;
        ada.post(&format!("/api/exercises/{number}/complete"), json!({})).await.ok();
    }
    assert_eq!(all("many", [3, 4]).await, few);
    let opt_out = json!({"opted_out": true});
    issued("PUT", "/api/progress/leaderboard/me", opt_out, OPT_OUT_BUDGET).await;
    issued("DELETE", &conversation, json!({}), CONVERSATION_BUDGET).await;
}
