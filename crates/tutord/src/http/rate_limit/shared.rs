//! The counts of all processes in Redis.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use readthrough::Cache;
use readthrough::redis::Script;

use super::{Counter, Rule, SharedCounts, Subject, Windows, lock, unix_time};

/// The interval at which local counts are reported to Redis.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The script that counts like `Counter`, by the clock of Redis.
///
/// Arguments: the number of requests; whether to count them in any case; the limit and the length in milliseconds of
/// each window. Returns: whether the requests fit; the time; for each window its number and both counts.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000 + math.floor(time[2] / 1000)
        local requests, anyhow = tonumber(ARGV[1]), ARGV[2] == '1'
        local fits, longest, states = 1, 0, {}
        for index = 3, #ARGV, 2 do
            local limit, length = tonumber(ARGV[index]), tonumber(ARGV[index + 1])
            local window = math.floor(now / length)
            local stored = redis.call('HMGET', KEYS[1], length .. ':window', length .. ':current', length .. ':previous')
            local at, current = tonumber(stored[1]) or 0, tonumber(stored[2]) or 0
            local previous = tonumber(stored[3]) or 0
            if window > at then
                previous = window == at + 1 and current or 0
                current = 0
            end
            if previous * (1 - (now / length - window)) + current + math.max(requests, 1) > limit then fits = 0 end
            longest = math.max(longest, length)
            states[#states + 1] = {length, window, current, previous}
        end
        local answer = {fits, now}
        for _, state in ipairs(states) do
            if requests > 0 and (fits == 1 or anyhow) then
                state[3] = state[3] + requests
                redis.call('HSET', KEYS[1], state[1] .. ':window', state[2], state[1] .. ':current', state[3],
                    state[1] .. ':previous', state[4])
            end
            answer[#answer + 1] = state[2]
            answer[#answer + 1] = state[3]
            answer[#answer + 1] = state[4]
        end
        redis.call('PEXPIRE', KEYS[1], longest * 2)
        return answer",
    )
});

/// The result of the script.
pub(super) struct CountResult {
    /// The shared counts of all processes.
    pub(super) counters: Vec<Counter>,
    /// The exhausted limit, and the time until one more request fits.
    pub(super) verdict: Result<(), (u32, Duration)>,
}

/// Counts requests if they fit. Returns `None` if Redis is unavailable.
pub(super) async fn count(
    cache: &Cache,
    rule: Rule,
    subject: &Subject,
    windows: &Windows,
    requests: u32,
) -> Option<CountResult> {
    run(cache, rule, subject, windows, requests, false).await
}

/// Reports local counts to Redis in the background, once in [`REPORT_INTERVAL`], and adopts the shared counts.
pub(super) fn report(cache: &Cache, rule: Rule, subject: &Subject, windows: &Windows, counts: &SharedCounts) {
    let due = {
        let mut counts = lock(counts);
        if counts.unreported == 0 || std::mem::replace(&mut counts.is_reporting, true) {
            return;
        }
        (counts.reported_at + REPORT_INTERVAL).saturating_sub(unix_time())
    };
    let (cache, subject, windows, counts) = (cache.clone(), subject.clone(), windows.clone(), Arc::clone(counts));
    tokio::spawn(async move {
        tokio::time::sleep(due).await;
        let unreported = {
            let mut counts = lock(&counts);
            counts.is_reporting = false;
            counts.reported_at = unix_time();
            std::mem::take(&mut counts.unreported)
        };
        let Some(counted) = run(&cache, rule, &subject, &windows, unreported, true).await else { return };
        let mut counts = lock(&counts);
        let since = counts.unreported;
        counts.counters = counted.counters;
        for counter in &mut counts.counters {
            counter.current = counter.current.saturating_add(since);
        }
    });
}

/// Runs the script. With `anyhow`, counts requests even if they do not fit.
async fn run(
    cache: &Cache,
    rule: Rule,
    subject: &Subject,
    windows: &Windows,
    requests: u32,
    anyhow: bool,
) -> Option<CountResult> {
    let mut arguments = vec![i64::from(requests), i64::from(anyhow)];
    for (limit, length) in &windows.0 {
        arguments.extend([i64::from(*limit), i64::try_from(length.as_millis()).ok()?]);
    }
    let mut connection = cache.redis_connection()?;
    let mut call = COUNT.key(connection.key(&key(rule, subject)));
    for argument in arguments {
        call.arg(argument);
    }
    let answer: Vec<i64> = call.invoke_async(&mut connection).await.ok()?;
    let (&[fits, now], states) = answer.split_first_chunk()?;
    let now = Duration::from_millis(u64::try_from(now).ok()?);
    let mut counters = Vec::with_capacity(windows.0.len());
    let mut longest = None;
    for (state, (limit, length)) in states.chunks_exact(3).zip(&windows.0) {
        let number = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut counter =
            Counter { window: u64::try_from(state[0]).ok()?, current: number(state[1]), previous: number(state[2]) };
        let into = counter.advance(now, *length);
        longest = longest.max(counter.wait(into, *limit, *length).map(|wait| (wait, *limit)));
        counters.push(counter);
    }
    let verdict = match longest.filter(|_| fits == 0) {
        Some((wait, limit)) => Err((limit, wait)),
        None => Ok(()),
    };
    Some(CountResult { counters, verdict })
}

fn key(rule: Rule, subject: &Subject) -> String {
    let rule = rule.name();
    match subject {
        Subject::Ip(address) => format!("limit:{rule}:ip:{address}"),
        Subject::User(id) => format!("limit:{rule}:user:{id}"),
        Subject::Account(hash) => format!("limit:{rule}:account:{hash:032x}"),
    }
}
