//! The state of the connection, and the circuit breaker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::fault::RedisFault;
use super::tier::{Epochs, SecondTier, ServerState};

/// A connection that requests use.
#[derive(Clone)]
pub(crate) struct ConnectionHandle {
    pub(crate) tier: Arc<dyn SecondTier>,
    shared: Arc<Shared>,
    /// The number of the connection; each has its own.
    pub(crate) number: u64,
    /// The term of the identity whose values the connection reads.
    pub(crate) term: u64,
}

/// The state of a connection that its handles share.
struct Shared {
    server: RwLock<ServerState>,
    flushes: AtomicU64,
}

impl ConnectionHandle {
    pub(crate) fn new(tier: Arc<dyn SecondTier>, server: ServerState, number: u64, term: u64) -> Self {
        let shared = Shared { server: RwLock::new(server), flushes: AtomicU64::new(0) };
        Self { tier, shared: Arc::new(shared), number, term }
    }

    /// Returns the epoch that valid entries of a namespace carry.
    pub(crate) fn epoch(&self, namespace: &str) -> u64 {
        epoch(&self.shared.server.read().unwrap_or_else(PoisonError::into_inner).epochs, namespace)
    }

    /// Returns the state of the server as it was last read.
    pub(crate) fn server(&self) -> ServerState {
        self.shared.server.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_server(&self, server: ServerState) {
        *self.shared.server.write().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// Stores the epochs after a flush of this process.
    pub(crate) fn set_flushed(&self, epochs: Epochs) {
        let mut server = self.shared.server.write().unwrap_or_else(PoisonError::into_inner);
        server.epochs = epochs;
        self.shared.flushes.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the number of flushes of this process.
    pub(crate) fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Acquire)
    }

    /// Stores epochs that were read when the number of flushes was `flushes`. Returns whether they changed; `None` if a flush
    /// of this process has ended since, as they may be from before it.
    pub(crate) fn set_epochs(&self, epochs: Epochs, flushes: u64) -> Option<bool> {
        let mut server = self.shared.server.write().unwrap_or_else(PoisonError::into_inner);
        if self.flushes() != flushes {
            return None;
        }
        let is_changed = server.epochs != epochs;
        server.epochs = epochs;
        Some(is_changed)
    }
}

/// Computes an epoch. All processes must compute the same number, whatever compiled them: no `std` hasher.
fn epoch(epochs: &Epochs, namespace: &str) -> u64 {
    // Every read computes it, and most servers have no numbers of namespaces.
    let numbers = Some(&epochs.namespaces).filter(|numbers| !numbers.is_empty());
    let number = |key: &str| numbers.and_then(|numbers| numbers.get(key)).map_or("", String::as_str);
    let parts = [&epochs.server, number("*"), number(namespace)];
    // FNV-1a, with a byte between the parts that none of them contains.
    parts
        .iter()
        .flat_map(|part| part.bytes().chain([0xff]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Clone)]
pub(crate) enum State {
    Disconnected,
    /// Invalidations use the connection, reads do not.
    Recovering(ConnectionHandle),
    Available(ConnectionHandle),
}

/// Opens when a command fails, and stays open until the supervisor has a new connection.
pub(crate) struct CircuitBreaker {
    state: RwLock<State>,
    /// The cause that opened the breaker; stored until it closes.
    fault: Mutex<Option<RedisFault>>,
}

impl CircuitBreaker {
    pub(crate) fn new() -> Self {
        Self { state: RwLock::new(State::Disconnected), fault: Mutex::default() }
    }

    /// Returns the connection that reads may use.
    pub(crate) fn available(&self) -> Option<ConnectionHandle> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Available(handle) => Some(handle.clone()),
            _ => None,
        }
    }

    /// Returns the connection that invalidations may use.
    pub(crate) fn connection(&self) -> Option<ConnectionHandle> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Available(handle) | State::Recovering(handle) => Some(handle.clone()),
            State::Disconnected => None,
        }
    }

    pub(crate) fn set_recovering(&self, handle: ConnectionHandle) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Recovering(handle);
    }

    pub(crate) fn set_disconnected(&self) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Disconnected;
    }

    /// Closes the breaker for a recovering connection if `is_valid` still holds. Returns whether it closed.
    pub(crate) fn close(&self, handle: &ConnectionHandle, is_valid: impl FnOnce() -> bool) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let is_recovering = matches!(&*state, State::Recovering(recovering) if recovering.number == handle.number);
        if !is_recovering || !is_valid() {
            return false;
        }
        *state = State::Available(handle.clone());
        drop(state);
        self.set_fault(None);
        true
    }

    /// Opens the breaker if it uses the connection of this number. Returns whether it was closed.
    pub(crate) fn open(&self, number: u64) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Available(handle) | State::Recovering(handle) if handle.number == number => {
                *state = State::Disconnected;
                true
            }
            _ => false,
        }
    }

    /// Returns why the breaker is open; `None` while it is closed and before the first attempt has ended.
    pub(crate) fn fault(&self) -> Option<RedisFault> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why the breaker is open. Returns whether the fault changed.
    pub(crate) fn set_fault(&self, fault: Option<RedisFault>) -> bool {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, fault) != fault
    }
}
