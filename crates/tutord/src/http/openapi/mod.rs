//! The OpenAPI document, generated from the routes, and a page to browse it.

mod complete;
mod errors;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_swagger_ui::SwaggerUi;

use super::route_table::RouteTable;

/// The content security policy of the page: its own files and inline styles.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
);

/// The start script of the page. The generated script can't contain the function that adds the CSRF token.
const INITIALIZER: &str = include_str!("swagger-initializer.js");

/// The described routes of a feature, with paths below its prefix.
pub type Routes<S> = Vec<UtoipaMethodRouter<S>>;

/// Adds routes below a prefix. Unlike `nest`, this changes their paths once, and not the path of each request.
pub fn mount<S: Clone + Send + Sync + 'static>(
    api: OpenApiRouter,
    prefix: &str,
    routes: Routes<S>,
    state: &S,
) -> OpenApiRouter {
    let whole = |path: String| if path == "/" { prefix.to_owned() } else { format!("{prefix}{path}") };
    routes.into_iter().fold(api, |api, (schemas, mut paths, methods)| {
        paths.paths = paths.paths.into_iter().map(|(path, item)| (whole(path), item)).collect();
        api.routes((schemas, paths, methods.with_state(state.clone())))
    })
}

/// The document without the routes of the features.
#[derive(OpenApi)]
#[openapi(info(title = "tutord", description = "The backend of an AI coding tutor."))]
pub struct Description;

/// Returns the routes `/api/openapi.json` and `/api/docs`; the binary contains all files of the page.
pub fn router(description: &utoipa::openapi::OpenApi, routes: &RouteTable) -> Router {
    let description = complete::complete(json!(description), routes);
    let page = SwaggerUi::new("/api/docs").external_url_unchecked("/api/openapi.json", description);
    let initializer = get(async || ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], INITIALIZER));
    Router::from(page).route("/api/docs/swagger-initializer.js", initializer).layer(from_fn(docs_policy))
}

async fn docs_policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, DOCS_POLICY);
    response
}
