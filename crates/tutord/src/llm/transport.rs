//! Sends a request to the endpoint, again where that can help.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::LlmError;

/// The first pause; it doubles with each attempt, and up to half of it again is added at random.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// An endpoint that wants a longer pause than this is reported as unavailable instead.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How much of an endpoint's refusal is kept for the log.
const CAUSE_CHARS: usize = 300;

/// The HTTP service below async-openai: it retries 429, 5xx and failed connections, as often as told and
/// no earlier than `Retry-After` asks, and turns every other failure into an [`LlmError`].
///
/// async-openai's own retry layer neither bounds the pause nor keeps the status of a refusal whose
/// body is not OpenAI's.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    pub(super) http: reqwest::Client,
    pub(super) max_retries: u32,
}

impl tower::Service<HttpRequestFactory> for Transport {
    type Response = Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let Self { http, max_retries } = self.clone();
        Box::pin(async move {
            let mut attempt = 0;
            loop {
                let error = match http.execute(request.build().await?).await {
                    Ok(response) if response.status().is_success() => return Ok(response),
                    Ok(response) => refused(response).await,
                    Err(error) => unreachable(&error),
                };
                let LlmError::Unavailable { retry_after, .. } = &error else {
                    return Err(OpenAIError::Boxed(error.into()));
                };
                let pause = backoff(attempt).max(retry_after.unwrap_or_default());
                if attempt == max_retries || pause > LONGEST_PAUSE {
                    return Err(OpenAIError::Boxed(error.into()));
                }
                tracing::warn!(%error, attempt, ?pause, "asking the model endpoint again");
                tokio::time::sleep(pause).await;
                attempt += 1;
            }
        })
    }
}

async fn refused(response: Response) -> LlmError {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let body = response.text().await.unwrap_or_default();
    let cause: String = body.chars().take(CAUSE_CHARS).collect();
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        LlmError::Unavailable { cause: format!("{status}: {cause}"), retry_after }
    } else {
        LlmError::Rejected { status: status.as_u16(), cause }
    }
}

/// reqwest tells where it failed; its sources tell why. The address is left out: it may hold a key.
pub(super) fn unreachable(error: &reqwest::Error) -> LlmError {
    let mut cause = String::from("the request failed");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    LlmError::Unavailable { cause, retry_after: None }
}

fn backoff(attempt: u32) -> Duration {
    let pause = FIRST_PAUSE * 2_u32.saturating_pow(attempt);
    pause + pause.mul_f64(rand::random_range(0.0..0.5))
}

/// `Retry-After` in either of its forms: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let read = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 09 Sep 2001 01:46:50 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 09 Sep 2001 01:46:30 GMT"), None, "a date that has passed");
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
