//! Load shedding: the server serves as many requests as it can in time, and rejects the others early.
//!
//! The queue of an overloaded server consists of socket buffers, the runtime's run queue, and whatever the handlers
//! wait for. Two delays measure it. A probe measures how late the runtime resumes a task, which is how long a request
//! waits before its handler runs. Little's law estimates the time in handlers: requests in flight divided by responses
//! per second. Waits for the model and open streams are excluded.
//!
//! As in DAGOR (Zhou et al., "Overload Control for Scaling WeChat Microservices", `SoCC` 2018), the queueing delay
//! detects overload, not the response time of single requests. While the delay exceeds its target, the server is busy,
//! so its response rate is its capacity: the admission rate is a share of that, and the queue drains even if the capacity
//! has just dropped. After that the rate rises fast to near the highest response rate of the last seconds, and slowly
//! beyond it, as TCP does around its slow-start threshold (RFC 5681). A token bucket enforces the rate. Requests of
//! lower priority must leave more tokens in the bucket: confirmed sessions come first, then unknown tokens, then log-ins
//! and other requests without a token.
//!
//! Reads and writes have separate rates because they queue at different places: a database commits one write after the
//! other, while the cache serves reads. A single rate would miss the queue of few writes among many quick reads, and
//! would shed reads once it detected it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use super::confirmed_sessions::ConfirmedSessions;
use axum::http::Method;

/// The queueing delay at which the server counts as overloaded.
const TARGET: Duration = Duration::from_millis(100);
/// The length of a window, after which the rate changes.
const WINDOW: Duration = Duration::from_millis(100);
/// The interval of the delay probe.
const PROBE: Duration = Duration::from_millis(5);
/// The factors by which the rate rises in each window, up to [`SLOW_START`] of the highest response rate and beyond.
const RISE: (f64, f64) = (1.5, 1.03);
const SLOW_START: f64 = 0.9;
/// The admitted shares of the response rate while a queue drains; a longer queue has a smaller share.
const DRAINING: (f64, f64) = (0.5, 0.95);
/// The number of windows over which the response rate is smoothed, and for which its maximum is kept.
const SMOOTHED: f64 = 2.0;
const REMEMBERED: usize = 30;
/// The minimum rate, in requests per second.
const LOWEST: f64 = 20.0;
/// The size of the token bucket, in seconds of the rate.
const BURST: f64 = 0.1;
/// The arrival rate per second below which a late probe is attributed to other programs.
const QUIET: f64 = 200.0;
/// The limit of requests in flight, in seconds at the highest observed response rate, or at the present one while a
/// queue drains; up to [`MIN_IN_FLIGHT`] are always allowed.
const MAX_BACKLOG: f64 = 0.15;
const MIN_IN_FLIGHT: usize = 256;
/// The decay of the highest response rate in each window: it halves in a minute.
const DECAY: f64 = 0.999;
/// The number of requests in flight for each core that do not wait for each other.
const IN_FLIGHT_PER_CORE: usize = 8;

/// The priority of a request, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Requests of a recently confirmed session.
    Session,
    /// Requests with an unknown token.
    Token,
    /// Requests without a token, such as log-ins and registrations.
    Anonymous,
}

impl Priority {
    const NAMES: [&str; 3] = ["session", "token", "anonymous"];

    /// Returns the share of the bucket that is reserved for higher priorities.
    const fn reserve(self) -> f64 {
        match self {
            Self::Session => 0.0,
            Self::Token => 0.3,
            Self::Anonymous => 0.6,
        }
    }
}

/// The measurements of a window.
#[derive(Debug, Clone, Copy)]
struct Window {
    seconds: f64,
    arrived: f64,
    answered: f64,
    delay: Duration,
}

/// The controller of the admission rate.
#[derive(Debug, Default)]
struct Controller {
    /// The rate in requests per second; `None` admits all.
    rate: Option<f64>,
    /// The smoothed response rate per second.
    answered: f64,
    /// The smoothed response rates of the last windows, newest last.
    history: VecDeque<f64>,
    /// The highest response rate over a longer time.
    highest: f64,
    /// Whether a queue drains: the last window's delay exceeded the target.
    draining: bool,
}

impl Controller {
    fn close(&mut self, window: Window) {
        self.answered += (window.answered / window.seconds - self.answered) / SMOOTHED;
        self.highest = self.answered.max(self.highest * DECAY);
        self.history.push_back(self.answered);
        if self.history.len() > REMEMBERED {
            self.history.pop_front();
        }
        self.draining = window.delay > TARGET;
        if self.draining {
            let share = TARGET.as_secs_f64() / window.delay.as_secs_f64();
            self.rate = Some(self.answered.max(LOWEST) * share.clamp(DRAINING.0, DRAINING.1));
        } else {
            let threshold = self.history.iter().copied().fold(LOWEST, f64::max) * SLOW_START;
            let rise = |rate: f64| f64::max((rate * RISE.0).min(threshold), rate * RISE.1) + 1.0;
            self.rate = self.rate.map(rise).filter(|rate| *rate < 2.0 * window.arrived / window.seconds);
        }
    }

    /// The maximum number of requests in flight.
    fn max_in_flight(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count")]
        let backlog = (if self.draining { self.answered } else { self.highest } * MAX_BACKLOG) as usize;
        backlog.max(MIN_IN_FLIGHT)
    }
}

/// The token bucket.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, priority: Priority) -> bool {
        let capacity = (self.rate * BURST).max(2.0);
        let now = clock::now();
        self.tokens =
            (self.tokens + self.rate * now.saturating_duration_since(self.filled).as_secs_f64()).min(capacity);
        self.filled = now;
        let admitted = self.tokens >= 1.0 + (capacity - 1.0) * priority.reserve();
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}

/// The kind of access of a request, by its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    const NAMES: [&str; 2] = ["read", "write"];

    /// Returns the kind of access of a method.
    pub(crate) fn by(method: &Method) -> Self {
        if method.is_safe() { Self::Read } else { Self::Write }
    }
}

/// The state of one kind of requests.
#[derive(Debug)]
struct Lane {
    limiting: AtomicBool,
    bucket: Mutex<Bucket>,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    arrived: AtomicU64,
    answered: AtomicU64,
    /// The numbers of shed requests, by priority.
    shed: [AtomicU64; 3],
}

impl Lane {
    fn new() -> Self {
        Self {
            limiting: AtomicBool::new(false),
            bucket: Mutex::new(Bucket { rate: 0.0, tokens: 0.0, filled: clock::now() }),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(MIN_IN_FLIGHT),
            arrived: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            shed: Default::default(),
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of requests that arrived and completed so far.
    fn counts(&self) -> [u64; 2] {
        [&self.arrived, &self.answered].map(|counter| counter.load(Ordering::Relaxed))
    }

    fn limit(&self, rate: Option<f64>, max_in_flight: usize) {
        if let Some(rate) = rate {
            self.bucket().rate = rate;
        }
        self.limiting.store(rate.is_some(), Ordering::Relaxed);
        self.max_in_flight.store(max_in_flight, Ordering::Relaxed);
    }

    /// Returns `true` if more requests are in flight than the server can serve in time, as at a sudden load before the
    /// end of the first window.
    fn is_full(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= self.max_in_flight.load(Ordering::Relaxed)
    }
}

/// Admits requests or sheds them.
#[derive(Debug)]
pub struct Admission {
    enabled: bool,
    /// The state of each [`Access`].
    lanes: [Lane; 2],
    sessions: ConfirmedSessions,
}

tokio::task_local! {
    static CURRENT: (Arc<Admission>, Access);
}

/// Awaits a future that is not load of the server, such as the model; meanwhile the request is not in flight.
pub(crate) async fn without_load<F: Future>(waiting: F) -> F::Output {
    struct Reentry(Arc<Admission>, Access);
    impl Drop for Reentry {
        fn drop(&mut self) {
            self.0.lane(self.1).in_flight.fetch_add(1, Ordering::Relaxed);
        }
    }
    let _back = CURRENT.try_with(Clone::clone).ok().map(|(admission, access)| {
        admission.lane(access).in_flight.fetch_sub(1, Ordering::Relaxed);
        Reentry(admission, access)
    });
    waiting.await
}

/// A guard for an admitted request.
struct AdmittedRequest<'a>(&'a Lane);

impl Drop for AdmittedRequest<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// Creates the admission control, which admits all requests until the server is overloaded, or always if not
    /// enabled.
    pub fn new(enabled: bool) -> Arc<Self> {
        Arc::new(Self { enabled, lanes: [Lane::new(), Lane::new()], sessions: ConfirmedSessions::new() })
    }

    const fn lane(&self, access: Access) -> &Lane {
        &self.lanes[access as usize]
    }

    /// Records that a token belongs to a session.
    pub(crate) fn confirm(&self, token: [u8; 32]) {
        if self.enabled {
            self.sessions.confirm(&token);
        }
    }

    /// Returns the priority of a request by the hash of its token.
    pub(crate) fn priority(&self, token: Option<[u8; 32]>) -> Priority {
        match token {
            Some(token) if self.sessions.contains(&token) => Priority::Session,
            Some(_) => Priority::Token,
            None => Priority::Anonymous,
        }
    }

    /// Decides whether a request is admitted. Evaluates the priority only while the server is overloaded.
    pub(crate) fn admits(&self, access: Access, priority: impl FnOnce() -> Priority) -> bool {
        let lane = self.lane(access);
        lane.arrived.fetch_add(1, Ordering::Relaxed);
        let (limiting, full) = (lane.limiting.load(Ordering::Relaxed), self.enabled && lane.is_full());
        if !limiting && !full {
            return true;
        }
        let priority = priority();
        let admitted = !full && lane.bucket().take(priority);
        if !admitted {
            lane.shed[priority as usize].fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Serves an admitted request.
    pub(crate) async fn serve<F: Future>(self: &Arc<Self>, access: Access, request: F) -> F::Output {
        let lane = self.lane(access);
        lane.in_flight.fetch_add(1, Ordering::Relaxed);
        let _admitted = AdmittedRequest(lane);
        CURRENT.scope((Arc::clone(self), access), request).await
    }

    /// Returns the numbers of shed requests, by access and priority.
    pub fn shed(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        Access::NAMES.into_iter().zip(&self.lanes).flat_map(|(access, lane)| {
            let counts = lane.shed.iter().map(|count| count.load(Ordering::Relaxed));
            Priority::NAMES.into_iter().zip(counts).map(move |(priority, count)| (access, priority, count))
        })
    }

    fn shed_in_all(&self) -> u64 {
        self.shed().map(|(.., count)| count).sum()
    }

    /// Runs the measurement and control loop, until dropped.
    pub(crate) async fn watch(&self) {
        if !self.enabled {
            return;
        }
        let mut controllers = [Controller::default(), Controller::default()];
        let mut overloaded_since = None::<(Instant, u64)>;
        loop {
            let (windows, delay) = self.observe().await;
            for ((controller, window), lane) in controllers.iter_mut().zip(windows).zip(&self.lanes) {
                controller.close(window);
                lane.limit(controller.rate, controller.max_in_flight());
            }
            let [reads, writes] = [&controllers[0], &controllers[1]].map(|controller| controller.rate);
            let limited = reads.is_some() || writes.is_some();
            match (&mut overloaded_since, limited) {
                (None, true) => {
                    tracing::warn!(
                        delay_ms = delay.as_millis(),
                        reads,
                        writes,
                        "overloaded: shedding requests above the admission rates"
                    );
                    overloaded_since = Some((clock::now(), self.shed_in_all()));
                }
                (Some((since, before)), false) if clock::since(*since) >= Duration::from_secs(1) => {
                    tracing::info!(shed = self.shed_in_all() - *before, "no longer overloaded: admitting all requests");
                    overloaded_since = None;
                }
                _ => {}
            }
        }
    }

    /// Waits for the end of a window. Returns the measurements of each kind, and the longest delay.
    async fn observe(&self) -> ([Window; 2], Duration) {
        let (began, before) = (clock::now(), [self.lanes[0].counts(), self.lanes[1].counts()]);
        let (mut probes, mut late, mut in_flight) = (0_u32, Duration::ZERO, [0_usize; 2]);
        while clock::since(began) < WINDOW {
            let due = clock::now() + PROBE;
            tokio::time::sleep_until(due.into()).await;
            probes += 1;
            late += clock::since(due);
            for (sum, lane) in in_flight.iter_mut().zip(&self.lanes) {
                *sum += lane.in_flight.load(Ordering::Relaxed);
            }
        }
        let seconds = clock::since(began).as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let window = |number: usize| {
            let [arrived, answered] = self.lanes[number].counts();
            #[expect(clippy::cast_precision_loss, reason = "counts of a fraction of a second")]
            let [arrived, answered, in_flight] =
                [arrived - before[number][0], answered - before[number][1], in_flight[number] as u64]
                    .map(|count| count as f64);
            let in_flight = in_flight / f64::from(probes);
            let waits = in_flight >= f64::from(u32::try_from(cores * IN_FLIGHT_PER_CORE).unwrap_or(u32::MAX));
            let delay = if waits { in_flight * seconds / answered.max(1.0) } else { 0.0 };
            Window { seconds, arrived, answered, delay: Duration::from_secs_f64(delay) }
        };
        let mut windows = [window(0), window(1)];
        if windows.iter().map(|window| window.arrived).sum::<f64>() / seconds >= QUIET {
            for window in &mut windows {
                window.delay = window.delay.max(late / probes);
            }
        }
        (windows, windows[0].delay.max(windows[1].delay))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The results of a simulated server.
    struct Simulated {
        /// The responses per second.
        goodput: f64,
        /// The longest delay of a request in seconds.
        delay: f64,
    }

    /// Simulates a server with a first-come, first-served queue under a constant load of a minute, and observes it from
    /// window `from` on. `capacity` is the number of responses per second in each window.
    fn simulate(capacity: impl Fn(u32) -> f64, load: f64, from: u32) -> Simulated {
        let (mut controller, mut queue) = (Controller::default(), 0.0_f64);
        let (mut responses, mut delay) = (0.0, 0.0_f64);
        for window in 0..600 {
            let possible = capacity(window) * 0.1;
            let admitted = controller.rate.map_or(load, |rate| rate.min(load)) * 0.1;
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            let room = controller.max_in_flight() as f64 + possible - queue;
            queue += admitted.min(room.max(0.0));
            let answered = queue.min(possible);
            queue -= answered;
            let late = queue / capacity(window);
            controller.close(Window {
                seconds: 0.1,
                arrived: load * 0.1,
                answered,
                delay: Duration::from_secs_f64(late),
            });
            if window >= from {
                responses += answered;
                delay = delay.max(late);
            }
        }
        Simulated { goodput: responses / (f64::from(600 - from) * 0.1), delay }
    }

    proptest! {
        #[test]
        fn under_any_load_the_answers_stay_and_come_in_time(capacity in 100.0..20_000.0_f64, times in 1.05..10.0_f64) {
            let Simulated { goodput, delay } = simulate(|_| capacity, capacity * times, 300);
            prop_assert!(goodput >= 0.9 * capacity, "{} of {}", goodput, capacity);
            prop_assert!(delay <= 0.3, "{}", delay);
        }

        /// The first requests are cheap, as those that the cache serves are; those that follow are not.
        #[test]
        fn a_drop_of_the_capacity_leaves_no_standing_queue(
            capacity in 300.0..4_000.0_f64, drop in 2.0..10.0_f64, times in 1.05..4.0_f64,
        ) {
            let load = drop * capacity * times;
            let before = |window| if window < 5 { drop * capacity } else { capacity };
            // From two seconds after the drop on.
            let Simulated { goodput, delay } = simulate(before, load, 25);
            prop_assert!(goodput >= 0.9 * capacity, "{} of {}", goodput, capacity);
            prop_assert!(delay <= 0.5, "{}", delay);
        }

        #[test]
        fn a_load_below_the_capacity_is_never_limited(capacity in 100.0..20_000.0_f64, share in 0.01..0.95_f64) {
            let goodput = simulate(|_| capacity, capacity * share, 300).goodput;
            prop_assert!(f64::abs(goodput - capacity * share) < 0.01 * capacity);
        }
    }

    #[test]
    fn the_limit_goes_when_the_load_does() {
        let mut controller = Controller::default();
        let window = |delay, arrived| Window { seconds: 0.1, arrived, answered: 100.0, delay };
        controller.close(window(Duration::from_millis(200), 300.0));
        assert!(controller.rate.is_some_and(|rate| rate < 1_000.0));
        controller.close(window(Duration::ZERO, 50.0));
        for _ in 0..100 {
            controller.close(window(Duration::ZERO, 50.0));
        }
        assert_eq!(controller.rate, None);
    }

    #[test]
    fn confirmed_sessions_come_first_and_log_ins_have_the_rest() {
        let admission = Admission::new(true);
        admission.confirm([1; 32]);
        let lane = admission.lane(Access::Read);
        *lane.bucket() = Bucket { rate: 1_000.0, tokens: 0.0, filled: clock::now() };
        lane.limiting.store(true, Ordering::Relaxed);
        let run = |sessions: u32| {
            let mut admitted = [0; 3];
            for _ in 0..1_000 {
                clock::advance(Duration::from_millis(1));
                let requests = std::iter::repeat_n(Some([1; 32]), sessions as usize).chain([Some([2; 32]), None]);
                for token in requests {
                    let priority = admission.priority(token);
                    admitted[priority as usize] += i32::from(admission.admits(Access::Read, || priority));
                }
            }
            admitted
        };
        let [sessions, tokens, anonymous] = run(2);
        assert!(sessions >= 990 && tokens + anonymous <= 10, "{sessions} {tokens} {anonymous}");
        let [sessions, tokens, anonymous] = run(0);
        assert!(sessions == 0 && tokens >= 900 && anonymous <= 110, "{sessions} {tokens} {anonymous}");
    }

    #[tokio::test]
    async fn a_load_that_comes_at_once_is_bounded_before_a_window_has_passed() {
        let admission = Admission::new(true);
        let mut controller = Controller::default();
        for answered in [4_000.0, 10.0] {
            controller.close(Window { seconds: 0.1, arrived: answered, answered, delay: Duration::ZERO });
        }
        // The backlog at half, by the smoothing, of 40,000 requests per second.
        let most = controller.max_in_flight();
        assert!((2_900..=3_100).contains(&most), "{most}");
        admission.lane(Access::Read).limit(None, most);
        let mut requests = Vec::new();
        let mut admitted = 0;
        for _ in 0..5_000 {
            if admission.admits(Access::Read, || Priority::Session) {
                let mut request = Box::pin(admission.serve(Access::Read, std::future::pending::<()>()));
                assert!(futures_util::poll!(&mut request).is_pending());
                requests.push(request);
                admitted += 1;
            }
        }
        assert_eq!(admitted, most);
        drop(requests.pop());
        assert!(admission.admits(Access::Read, || Priority::Session));
        let disabled = Admission::new(false);
        disabled.lane(Access::Read).limit(None, 0);
        assert!(disabled.admits(Access::Read, || Priority::Anonymous));
    }

    #[test]
    fn writes_that_queue_leave_reads_alone() {
        let admission = Admission::new(true);
        admission.lane(Access::Write).limit(Some(0.0), MIN_IN_FLIGHT);
        let admits = |access| admission.admits(access, || Priority::Session);
        assert_eq!((admits(Access::Read), admits(Access::Write)), (true, false));
        let shed: Vec<_> = admission.shed().filter(|(.., count)| *count > 0).collect();
        assert_eq!(shed, [("write", "session", 1)]);
    }

    #[tokio::test]
    async fn waiting_for_the_model_is_not_in_flight() {
        let admission = Admission::new(true);
        let in_flight = || admission.lane(Access::Write).in_flight.load(Ordering::Relaxed);
        let request = admission.serve(Access::Write, async {
            assert_eq!(in_flight(), 1);
            without_load(async { assert_eq!(in_flight(), 0) }).await;
            assert_eq!(in_flight(), 1);
        });
        request.await;
        assert_eq!(in_flight(), 0);
    }
}
