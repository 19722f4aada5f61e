//! Load, and what it measures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use crate::client::Connection;

/// Latencies in microseconds, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "3 digits are within what the crate takes")]
    Histogram::new(3).expect("a histogram of three digits")
}

/// Records a duration.
pub(crate) fn record(latencies: &mut Histogram<u64>, took: Duration) {
    // It grows as it must; an hour is more than anything here takes.
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(3_600_000_000);
    #[expect(clippy::expect_used, reason = "a histogram that may grow takes any value that fits")]
    latencies.record(micros).expect("a time below an hour");
}

/// Requests a second that a server answers when `connections` clients each send the next request as soon as the one
/// before is answered: the median of `rounds`, after one that does not count.
pub(crate) async fn throughput(
    address: &str,
    request: &[u8],
    connections: usize,
    rounds: usize,
    round: Duration,
) -> anyhow::Result<f64> {
    let request: Arc<[u8]> = request.into();
    let mut rates = Vec::new();
    for _ in 0..=rounds {
        let began = Instant::now();
        let clients = (0..connections).map(|_| {
            let (address, request) = (address.to_owned(), Arc::clone(&request));
            tokio::spawn(async move {
                let mut connection = Connection::open(&address).await?;
                let mut answered = 0_u32;
                while began.elapsed() < round {
                    let answer = connection.send(&request).await?;
                    if answer.status != 200 {
                        bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
                    }
                    answered += 1;
                }
                anyhow::Ok(answered)
            })
        });
        let mut answered = 0;
        for client in try_join_all(clients).await? {
            answered += client?;
        }
        rates.push(f64::from(answered) / began.elapsed().as_secs_f64());
    }
    rates.remove(0);
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}
