//! Whether Redis answers.

use std::time::Duration;

/// The longest that connecting and asking may take.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Connects and sends PING.
///
/// # Errors
/// What failed, without the address: it may hold a password.
pub(super) async fn ping(url: &str) -> Result<(), String> {
    let ask = async {
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<()>(&mut connection).await
    };
    match tokio::time::timeout(TIMEOUT, ask).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
    }
}
