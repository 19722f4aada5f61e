//! Completion of the OpenAPI document beyond the annotations of the routes.
//!
//! The annotation of a route names its success responses and its own errors. The rest is derived from a few facts: who
//! may call the route, whether it has a body, an id or pages, and whether it waits for the model.

use serde_json::{Map, Value, json};

use super::errors::{self, SharedError};
use crate::http::etag;
use crate::http::pagination::Bounds;
use crate::http::route_table::RouteTable;

/// Example bodies by the name of their schema.
const EXAMPLES: &str = include_str!("examples.json");

/// An example of a streamed reply.
const EVENTS: &str = "event: start\ndata: {\"conversation_id\":1,\"user_message_id\":1}\n\n\
    event: delta\ndata: {\"content\":\"Which line\"}\n\n\
    event: done\ndata: {\"message_id\":2,\"model\":\"fake-1\",\"tokens_used\":12,\"cached\":false,\"finish_reason\":\"stop\"}\n\n";

/// Routes that users may call before they verify their e-mail address.
const WITHOUT_VERIFICATION: &[(&str, &str)] = &[
    ("post", "/api/auth/logout"),
    ("get", "/api/auth/me"),
    ("get", "/api/users/me"),
    ("get", "/api/users/me/profile"),
    ("get", "/api/users/me/preferences"),
    ("get", "/api/users/onboarding/questions"),
    ("get", "/api/users/onboarding/status"),
];

/// The required authentication of a route; the value of `x-requires`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Public,
    LogIn,
    Verified,
    Admin,
}

impl Access {
    fn of(method: &str, path: &str, operation: &Value) -> Self {
        let path = path.replace("/api/v1/", "/api/");
        if operation["security"] == json!([{}]) {
            Self::Public
        } else if path.starts_with("/api/admin/") {
            Self::Admin
        } else if WITHOUT_VERIFICATION.contains(&(method, &path)) {
            Self::LogIn
        } else {
            Self::Verified
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::LogIn => "login",
            Self::Verified => "verified",
            Self::Admin => "admin",
        }
    }
}

/// Completes the document generated from the annotations.
pub(super) fn complete(mut description: Value, routes: &RouteTable) -> Value {
    let examples: Value = serde_json::from_str(EXAMPLES).unwrap_or_default();
    for (path, methods) in objects(&mut description["paths"]) {
        for (method, operation) in objects(methods) {
            complete_operation(method, path, operation, routes, &examples);
        }
    }
    let components = &mut description["components"];
    components["schemas"]["ErrorBody"] = errors::schema();
    components["responses"] = errors::responses();
    components["headers"] = errors::headers();
    components["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "The access token."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "access_token", "description": "Set by log-in."},
        "csrf": {
            "type": "apiKey",
            "in": "header",
            "name": "X-CSRF-Token",
            "description": "Repeats the cookie `csrf_token`; needed by writing methods that authenticate by cookie.",
        },
    });
    description["security"] = json!([{"bearer": []}, {"cookie": []}]);
    description
}

fn complete_operation(method: &str, path: &str, operation: &mut Value, routes: &RouteTable, examples: &Value) {
    let access = Access::of(method, path, operation);
    let writes = method != "get";
    let is_health = operation["tags"] == json!(["health"]);
    let of_older_release = path.starts_with("/api/v1/");

    // Function names are unique within a feature.
    let prefix = if of_older_release { "v1_" } else { "" };
    operation["operationId"] =
        json!(format!("{prefix}{}_{}", text(&operation["tags"][0]), text(&operation["operationId"])));
    if of_older_release {
        operation["deprecated"] = json!(true);
    }
    operation["x-requires"] = json!(access.name());
    match (access, writes) {
        (Access::Public, _) => operation["security"] = json!([]),
        (_, true) => operation["security"] = json!([{"bearer": []}, {"cookie": [], "csrf": []}]),
        // The document's default applies.
        (_, false) => {}
    }

    let mut parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for parameter in &mut parameters {
        bound(routes.pages(path), parameter);
    }
    let takes_id = parameters.iter().any(|parameter| parameter["in"] == "path");
    let takes_parameters = !parameters.is_empty();
    if writes && access != Access::Public {
        parameters.push(json!({
            "name": "X-CSRF-Token",
            "in": "header",
            "required": false,
            "description": "Repeats the cookie `csrf_token`; not needed with a bearer token.",
            "schema": {"type": "string", "maxLength": 255},
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }

    let takes_body = operation.get("requestBody").is_some();
    if takes_body {
        let content = &mut operation["requestBody"]["content"]["application/json"];
        let optional = content["schema"]["oneOf"].as_array().into_iter().flatten();
        let named = optional.chain([&content["schema"]]).find_map(|schema| schema["$ref"].as_str());
        let name = named.and_then(|reference| reference.rsplit('/').next()).unwrap_or_default();
        if let Some(example) = examples.get(name) {
            content["example"] = example.clone();
        }
    }

    let mut facts: Vec<SharedError> = vec![errors::URI_TOO_LONG, errors::HEADERS_TOO_LARGE];
    if takes_body {
        facts.extend([errors::MALFORMED, errors::BODY_TIMEOUT, errors::TOO_LARGE, errors::UNSUPPORTED]);
    }
    if takes_body || takes_parameters {
        facts.push(errors::INVALID);
    }
    match access {
        Access::Public => {}
        Access::LogIn => facts.extend([errors::UNAUTHENTICATED, errors::LOG_IN_FORBIDDEN]),
        Access::Verified => facts.extend([errors::UNAUTHENTICATED, errors::UNVERIFIED]),
        Access::Admin => facts.extend([errors::UNAUTHENTICATED, errors::NOT_ADMIN]),
    }
    // A body may name a resource too.
    if takes_id || operation["responses"].get("404").is_some() {
        facts.push(errors::NOT_FOUND);
    }
    if !is_health {
        let unavailable = if routes.awaits_model(path) { errors::MODEL_UNAVAILABLE } else { errors::OVERLOADED };
        facts.extend([errors::RATE_LIMITED, errors::INTERNAL, unavailable]);
    }
    let summary = operation["summary"].clone();
    complete_responses(&mut operation["responses"], &summary, &facts);
    // Streams have no ETag.
    let is_whole = operation["responses"]["200"]["content"].as_object().is_some_and(|content| content.len() == 1);
    if !writes && is_whole && etag::PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
        operation["responses"]["304"] =
            json!({"description": "The client has this answer: `If-None-Match` names its ETag."});
    }
}

fn complete_responses(responses: &mut Value, summary: &Value, facts: &[SharedError]) {
    for (status, response) in objects(responses) {
        if status.starts_with('2') {
            if text(&response["description"]).is_empty() {
                response["description"] = summary.clone();
            }
            // OpenAPI 3.1 can't describe the events of a stream: tools would apply a schema to the whole stream.
            if let Some(stream) = response.pointer_mut("/content/text~1event-stream") {
                *stream = json!({"example": EVENTS});
            }
        } else if response.get("content").is_none() {
            response["content"] = errors::content(Value::Null);
            // Errors of a single route, such as a conflict, are described at the route; shared errors follow below.
            if text(&response["description"]).is_empty() {
                response["description"] = json!(reason(status));
            }
        }
    }
    for fact in facts {
        let own = &mut responses[fact.status];
        let is_described = !text(&own["description"]).is_empty() && own["description"] != reason(fact.status);
        if !is_described {
            *own = fact.reference();
        }
    }
}

/// Returns the standard phrase of a status without a description (RFC 9110, section 15).
fn reason(status: &str) -> &'static str {
    let code = status.parse::<u16>().ok().and_then(|code| axum::http::StatusCode::from_u16(code).ok());
    code.and_then(|code| code.canonical_reason()).unwrap_or_default()
}

/// Adds the bounds that depend on the route.
fn bound(pages: Option<&Bounds>, parameter: &mut Value) {
    match (text(&parameter["name"]), pages) {
        ("id", _) => {
            parameter["description"] = json!("A positive 64-bit integer.");
            parameter["schema"]["minimum"] = json!(1);
        }
        ("limit", Some(bounds)) => {
            parameter["schema"]["minimum"] = json!(1);
            parameter["schema"]["maximum"] = json!(bounds.max);
            parameter["schema"]["default"] = json!(bounds.default);
        }
        ("offset", Some(bounds)) => {
            parameter["schema"]["minimum"] = json!(0);
            parameter["schema"]["maximum"] = json!(bounds.max_offset);
        }
        _ => {}
    }
}

fn objects(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().map(Map::iter_mut).into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
