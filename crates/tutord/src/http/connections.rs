//! The open connections: their number, their clients, and their timeouts.
//!
//! Each connection has a phase, which its reads and requests change. One task checks all connections four times a
//! second and closes overdue ones, so that requests set no timers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::clock;

/// The timeout of a request head from its first byte on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout of the first byte of a new connection.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout of a client that does not read its response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of an incomplete head during shutdown.
const CLOSING_GRACE: Duration = Duration::from_millis(250);
/// The interval at which the connections are checked.
const TICK: Duration = Duration::from_millis(250);
/// The minimum interval between logs of refusals.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of connections that serve only the liveness route.
const MAX_LIVE_ONLY: usize = 8;

/// The limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum number of open connections.
    pub connections: usize,
    /// The timeout of an idle connection.
    pub idle: Duration,
}

impl Limits {
    /// The number of extra connections, accepted when all others are busy, that serve only the liveness route.
    fn live_only(self) -> usize {
        (self.connections / 16).clamp(1, MAX_LIVE_ONLY)
    }

    /// The maximum number of connections of one address.
    const fn of_one_address(self) -> usize {
        self.connections / 2
    }
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No byte has been received.
    New,
    /// A request head is partly received.
    Head,
    /// A request is being received, served or answered.
    Request,
    /// The last response is complete, and no new request has begun.
    KeptAlive,
}

impl Phase {
    const ALL: [Self; 4] = [Self::New, Self::Head, Self::Request, Self::KeptAlive];
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Requests occupy all connections.
    Full,
    /// Requests occupy all connections of its address.
    Address,
    /// The process has no file descriptor left.
    Descriptors,
}

impl Refusal {
    const NAMES: [&str; 3] = ["full", "address", "descriptors"];
}

/// Why the server closed an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closure {
    /// The request head timed out.
    HeadTimeout,
    /// The connection was idle for too long.
    IdleTimeout,
    /// The client did not read its response.
    WriteTimeout,
    /// The connection was evicted for a new one.
    Evicted,
    /// The server shuts down.
    Shutdown,
}

impl Closure {
    const ALL: [Self; 5] = [Self::HeadTimeout, Self::IdleTimeout, Self::WriteTimeout, Self::Evicted, Self::Shutdown];
    const NAMES: [&str; 5] = ["head_timeout", "idle_timeout", "write_timeout", "evicted", "shutdown"];
}

/// The state of one connection, shared by its stream, its requests and the table.
#[derive(Debug)]
pub(crate) struct Connection {
    began: Instant,
    /// The phase in the lowest two bits; above them, its begin in milliseconds since `began`.
    phase: AtomicU64,
    /// The begin of a stalled write in milliseconds since `began`; 0 if none is stalled.
    stalled: AtomicU64,
    /// The requested closure plus 1; 0 if none was requested.
    closure: AtomicU64,
    close: Notify,
    /// Set if the connection counts in the table.
    counted: AtomicBool,
    address: Option<IpAddr>,
    live_only: bool,
}

impl Connection {
    fn new(address: Option<IpAddr>, live_only: bool) -> Self {
        Self {
            began: clock::now(),
            phase: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            closure: AtomicU64::new(0),
            close: Notify::new(),
            counted: AtomicBool::new(true),
            address,
            live_only,
        }
    }

    /// Set if the connection serves only the liveness route.
    pub(crate) const fn is_live_only(&self) -> bool {
        self.live_only
    }

    fn millis(&self) -> u64 {
        u64::try_from(clock::since(self.began).as_millis()).unwrap_or(u64::MAX >> 2)
    }

    fn phase(&self) -> (Phase, Instant) {
        let packed = self.phase.load(Ordering::Relaxed);
        let phase = Phase::ALL[(packed & 3) as usize];
        (phase, self.began + Duration::from_millis(packed >> 2))
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(self.millis() << 2 | phase as u64, Ordering::Relaxed);
    }

    /// Records received bytes: the beginning of a head, unless they belong to a request.
    pub(crate) fn bytes_received(&self) {
        if matches!(self.phase().0, Phase::New | Phase::KeptAlive) {
            self.enter(Phase::Head);
        }
    }

    /// Records that a write was polled, and whether it waits for the client.
    pub(crate) fn write_polled(&self, waits: bool) {
        if !waits {
            self.stalled.store(0, Ordering::Relaxed);
        } else if self.stalled.load(Ordering::Relaxed) == 0 {
            self.stalled.store(self.millis().max(1), Ordering::Relaxed);
        }
    }

    /// Records that a request head is complete. When the result is dropped, the connection waits for the next request.
    pub(crate) fn begin_request(self: &Arc<Self>) -> InFlight {
        // Keeps the begin of the head: nothing depends on the begin of a request, and reading the clock takes time.
        let began = self.phase.load(Ordering::Relaxed) & !3;
        self.phase.store(began | Phase::Request as u64, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Returns `true` if the connection closes after the current request.
    pub(crate) fn closes(&self) -> bool {
        self.closure.load(Ordering::Relaxed) != 0
    }

    fn close(&self, closure: Closure) {
        self.closure.store(closure as u64 + 1, Ordering::Relaxed);
        self.close.notify_one();
    }

    /// Waits until the connection must be closed at once, and returns the reason. A request that has begun meanwhile is
    /// served.
    pub(crate) async fn closed(&self) -> Closure {
        loop {
            self.close.notified().await;
            let asked = usize::try_from(self.closure.load(Ordering::Relaxed)).unwrap_or_default();
            let Some(closure) = asked.checked_sub(1).and_then(|index| Closure::ALL.get(index)) else { continue };
            if *closure == Closure::WriteTimeout || self.phase().0 != Phase::Request {
                return *closure;
            }
        }
    }

    /// Returns the reason if the connection is overdue.
    fn overdue(&self, limits: Limits, closing: Option<Instant>) -> Option<Closure> {
        let (phase, since) = self.phase();
        let age = clock::since(since);
        let stalled = self.stalled.load(Ordering::Relaxed);
        if stalled != 0 && clock::since(self.began + Duration::from_millis(stalled)) >= WRITE_TIMEOUT {
            return Some(Closure::WriteTimeout);
        }
        match phase {
            Phase::Request => None,
            Phase::Head if age >= HEAD_TIMEOUT => Some(Closure::HeadTimeout),
            Phase::New if age >= FIRST_BYTE_TIMEOUT.min(limits.idle) => Some(Closure::IdleTimeout),
            Phase::KeptAlive if age >= limits.idle => Some(Closure::IdleTimeout),
            _ => closing.filter(|began| clock::since(*began) >= CLOSING_GRACE).map(|_| Closure::Shutdown),
        }
    }
}

/// A guard for a request of a connection.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Connection>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.enter(Phase::KeptAlive);
    }
}

/// The slot of an open connection in the table, released on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    id: u64,
    pub(crate) connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.open.remove(&self.id);
        table.release(&self.connection);
    }
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    /// The counted connections, without those for the liveness route.
    ordinary: usize,
    live_only: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Table {
    fn release(&mut self, connection: &Connection) {
        if !connection.counted.swap(false, Ordering::Relaxed) {
            return;
        }
        *if connection.live_only { &mut self.live_only } else { &mut self.ordinary } -= 1;
        if let Some(address) = connection.address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    /// Closes the oldest connection without a complete head: first one that waits for a head, then one that is kept
    /// alive. Returns `false` if there is none.
    fn evict(&mut self, among: impl Fn(&Connection) -> bool) -> bool {
        let candidates = self.open.values().filter(|connection| {
            connection.counted.load(Ordering::Relaxed) && connection.phase().0 != Phase::Request && among(connection)
        });
        let oldest = candidates.min_by_key(|connection| {
            let (phase, since) = connection.phase();
            (phase == Phase::KeptAlive, since)
        });
        let Some(oldest) = oldest.map(Arc::clone) else { return false };
        oldest.close(Closure::Evicted);
        self.release(&oldest);
        true
    }
}

/// The table of all connections of the server.
#[derive(Debug)]
pub struct Connections {
    limits: Limits,
    table: Mutex<Table>,
    closing: OnceLock<Instant>,
    refused: [AtomicU64; 3],
    closed: [AtomicU64; 5],
}

impl Connections {
    /// Creates an empty table with these limits.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::default(),
            closing: OnceLock::new(),
            refused: Default::default(),
            closed: Default::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.table().open.len()
    }

    /// Returns the maximum number of open connections.
    pub const fn max(&self) -> usize {
        self.limits.connections
    }

    /// Returns the numbers of refused connections, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::NAMES.into_iter().zip(self.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns the numbers of connections closed by the server, by reason.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Closure::NAMES.into_iter().zip(self.closed.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Accepts a connection of a client address. `None` stands for a trusted proxy, which has no limit of its own.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Slot, Refusal> {
        let mut table = self.table();
        let address = address.map(network);
        if let Some(address) = address {
            let count = table.by_address.get(&address).copied().unwrap_or_default();
            if count >= self.limits.of_one_address() && !table.evict(|other| other.address == Some(address)) {
                return Err(self.refuse(Refusal::Address));
            }
        }
        let live_only = self.limits.live_only();
        let full = table.ordinary + live_only >= self.limits.connections && !table.evict(|other| !other.live_only);
        if full && table.live_only >= live_only && !table.evict(|other| other.live_only) {
            return Err(self.refuse(Refusal::Full));
        }
        *if full { &mut table.live_only } else { &mut table.ordinary } += 1;
        if let Some(address) = address {
            *table.by_address.entry(address).or_default() += 1;
        }
        let id = table.next;
        table.next += 1;
        let connection = Arc::new(Connection::new(address, full));
        table.open.insert(id, Arc::clone(&connection));
        Ok(Slot { id, connection, connections: Arc::clone(self) })
    }

    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
        refusal
    }

    /// Evicts a connection when the process has no file descriptor left.
    pub(crate) fn out_of_descriptors(&self) {
        self.refuse(Refusal::Descriptors);
        self.table().evict(|_| true);
    }

    /// Counts a closed connection.
    pub(crate) fn count_closed(&self, closure: Closure) {
        self.closed[closure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Begins the shutdown: connections close as soon as they serve no request.
    pub(crate) fn begin_closing(&self) {
        self.closing.get_or_init(clock::now);
    }

    /// Returns `true` during the shutdown, when connections close after their current request.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// Closes all connections, even with open requests.
    pub(crate) fn close_all(&self) {
        for connection in self.table().open.values() {
            connection.close(Closure::WriteTimeout);
        }
    }

    fn close_overdue(&self) {
        let closing = self.closing.get().copied();
        for connection in self.table().open.values() {
            if let Some(closure) = connection.overdue(self.limits, closing) {
                connection.close(closure);
            } else if connection.closes() {
                // The eviction lost the race against a request.
                connection.close.notify_one();
            }
        }
    }

    /// Closes overdue connections and logs refusals, until dropped.
    pub(crate) async fn watch(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let counts = || {
            let evicted = self.closed[Closure::Evicted as usize].load(Ordering::Relaxed);
            let [full, address, descriptors] = self.refused.each_ref().map(|count| count.load(Ordering::Relaxed));
            [full, address, descriptors, evicted]
        };
        let (mut logged, mut logged_at) = (counts(), None::<Instant>);
        loop {
            ticks.tick().await;
            self.close_overdue();
            let now = counts();
            if now != logged && logged_at.is_none_or(|at| clock::since(at) >= LOG_INTERVAL) {
                let [full, address, descriptors, evicted] = [0, 1, 2, 3].map(|index| now[index] - logged[index]);
                tracing::warn!(
                    full,
                    address,
                    descriptors,
                    evicted,
                    open = self.open(),
                    max = self.max(),
                    "connections refused or evicted: too many open connections; raise MAX_CONNECTIONS or the limit of file \
                     descriptors"
                );
                (logged, logged_at) = (now, Some(clock::now()));
            }
        }
    }
}

/// Returns the client of an address: for IPv6 the /64 network, which one host can own.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize) -> Arc<Connections> {
        Connections::new(Limits { connections: max, idle: Duration::from_secs(75) })
    }

    fn is_closed(slot: &Slot) -> bool {
        use futures_util::FutureExt as _;
        slot.connection.closed().now_or_never().is_some()
    }

    fn after(connections: &Connections, seconds: f64) {
        clock::advance(Duration::from_secs_f64(seconds));
        connections.close_overdue();
    }

    #[test]
    fn each_head_is_timed_from_its_first_byte() {
        let connections = connections(100);
        let slot = connections.admit(None).unwrap();
        after(&connections, 50.0);
        assert!(!is_closed(&slot));
        slot.connection.bytes_received();
        after(&connections, 9.0);
        assert!(!is_closed(&slot));
        // A byte now and then does not restart the time-out of the head.
        slot.connection.bytes_received();
        drop(slot.connection.begin_request());
        after(&connections, 74.0);
        assert!(!is_closed(&slot), "kept alive");
        slot.connection.bytes_received();
        after(&connections, 5.0);
        slot.connection.bytes_received();
        after(&connections, 5.0);
        assert!(is_closed(&slot), "the second head");
    }

    #[test]
    fn idle_connections_are_closed_and_requests_are_not() {
        let connections = connections(100);
        let [silent, kept, busy] = [(); 3].map(|()| connections.admit(None).unwrap());
        drop(kept.connection.begin_request());
        let _request = busy.connection.begin_request();
        after(&connections, 60.0);
        assert_eq!([&silent, &kept, &busy].map(is_closed), [true, false, false]);
        after(&connections, 15.0);
        assert_eq!([&kept, &busy].map(is_closed), [true, false]);
        after(&connections, 3_600.0);
        assert!(!is_closed(&busy));
    }

    #[test]
    fn a_client_that_does_not_read_is_closed_and_a_slow_one_is_not() {
        let connections = connections(100);
        let [slow, deaf] = [(); 2].map(|()| connections.admit(None).unwrap());
        let _requests = [&slow, &deaf].map(|slot| slot.connection.begin_request());
        for slot in [&slow, &deaf] {
            slot.connection.write_polled(true);
        }
        after(&connections, 29.0);
        slow.connection.write_polled(false);
        slow.connection.write_polled(true);
        after(&connections, 2.0);
        assert_eq!([&slow, &deaf].map(is_closed), [false, true]);
    }

    #[test]
    fn the_oldest_without_a_head_gives_way_and_then_one_that_is_kept_alive() {
        let connections = connections(32);
        let mut slots = Vec::new();
        for _ in 0..30 {
            slots.push(connections.admit(None).unwrap());
            clock::advance(Duration::from_millis(10));
        }
        drop(slots[0].connection.begin_request());
        let _busy: Vec<_> = slots[3..].iter().map(|slot| slot.connection.begin_request()).collect();
        let mut accepted = Vec::new();
        for evicted in [1, 2] {
            accepted.push((connections.admit(None).unwrap(), evicted));
            assert!(is_closed(&slots[evicted]), "{evicted}");
            accepted.last().unwrap().0.connection.enter(Phase::Request);
        }
        assert!(!is_closed(&slots[0]));
        let last = connections.admit(None).unwrap();
        assert!(is_closed(&slots[0]), "the one that is kept alive");
        let _busy = last.connection.begin_request();
        // From here on the connection serves only the liveness route.
        let live = [(); 2].map(|()| connections.admit(None).unwrap());
        assert!(live.iter().all(|slot| slot.connection.is_live_only()) && !last.connection.is_live_only());
        let _busy = live.each_ref().map(|slot| slot.connection.begin_request());
        assert_eq!(connections.admit(None).unwrap_err(), Refusal::Full);
        drop(slots.pop());
        assert!(!connections.admit(None).unwrap().connection.is_live_only(), "a place became free");
    }

    #[test]
    fn an_address_has_half_of_the_connections_and_takes_them_from_itself() {
        let connections = connections(32);
        let [one, two]: [IpAddr; 2] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        let other = connections.admit(Some("192.0.2.1".parse().unwrap())).unwrap();
        let slots: Vec<_> = (0..16).map(|_| connections.admit(Some(one)).unwrap()).collect();
        let busy: Vec<_> = slots.iter().skip(1).map(|slot| slot.connection.begin_request()).collect();
        let last = connections.admit(Some(two)).unwrap();
        assert!(is_closed(&slots[0]) && !is_closed(&other));
        let _request = last.connection.begin_request();
        assert_eq!(connections.admit(Some(two)).unwrap_err(), Refusal::Address);
        assert!(connections.admit(None).is_ok(), "a trusted proxy has no such bound");
        drop((busy, slots));
        assert!(connections.admit(Some(one)).is_ok());
    }

    #[test]
    fn a_request_that_began_before_its_eviction_is_served() {
        let connections = connections(16);
        let slot = connections.admit(None).unwrap();
        connections.table().evict(|_| true);
        let request = slot.connection.begin_request();
        assert!(!is_closed(&slot) && slot.connection.closes());
        drop(request);
        after(&connections, 0.0);
        assert!(is_closed(&slot));
    }

    #[test]
    fn at_the_end_requests_are_served_and_half_heads_are_not_waited_for() {
        let connections = connections(100);
        let [half, kept, busy] = [(); 3].map(|()| connections.admit(None).unwrap());
        half.connection.bytes_received();
        drop(kept.connection.begin_request());
        let _request = busy.connection.begin_request();
        connections.begin_closing();
        after(&connections, 0.1);
        assert_eq!([&half, &kept, &busy].map(is_closed), [false; 3]);
        after(&connections, 0.2);
        assert_eq!([&half, &kept, &busy].map(is_closed), [true, true, false]);
    }
}
