//! The settings of a namespace.

use std::time::Duration;

use crate::entry::Codec;

/// The settings of a namespace.
///
/// ```
/// use std::time::Duration;
/// use readthrough::NamespaceOptions;
///
/// let profiles = NamespaceOptions::<String>::local("user:profile")
///     .ttl(Duration::from_secs(300))
///     .weigher(String::len)
///     .l1_bytes(16 << 20);
/// # let _ = profiles;
/// ```
pub struct NamespaceOptions<V> {
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) ttl: Duration,
    pub(super) negative_ttl: Duration,
    pub(super) max_ttl: Option<Duration>,
    pub(super) jitter: f64,
    pub(super) stale_if_error: Duration,
    pub(super) l1_bytes: Option<u64>,
    pub(super) lease: Duration,
    pub(super) lease_wait: Duration,
    pub(super) soft_timeout: Duration,
    pub(super) hard_timeout: Duration,
    pub(super) value_version: Option<fn(&V) -> u64>,
    pub(super) weigher: Option<fn(&V) -> usize>,
    /// `None` for a namespace whose values stay in the process.
    pub(super) codec: Option<Codec<V>>,
}

/// Methods that create options.
impl<V> NamespaceOptions<V> {
    /// Creates the options of a namespace whose values stay in this process, with the defaults that the methods name.
    /// Values are neither encoded nor cloned, so that any type fits.
    ///
    /// With a second tier, invalidations still reach the copies of the other processes.
    pub const fn local(name: &'static str) -> Self {
        Self {
            name,
            version: 1,
            ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(10),
            max_ttl: None,
            jitter: 0.1,
            stale_if_error: Duration::ZERO,
            l1_bytes: Some(16 << 20),
            lease: Duration::from_secs(5),
            lease_wait: Duration::from_millis(200),
            soft_timeout: Duration::from_secs(5),
            hard_timeout: Duration::from_secs(60),
            value_version: None,
            weigher: None,
            codec: None,
        }
    }
}

#[cfg(feature = "serde")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> NamespaceOptions<V> {
    /// Creates the options of a namespace whose values the processes share through the second tier, with the defaults
    /// that the methods name. Without a second tier the values stay in this process and are not encoded; without a
    /// [`weigher`](Self::weigher) their encoded size is counted, however.
    pub const fn new(name: &'static str) -> Self {
        Self { codec: Some(Codec::message_pack()), ..Self::local(name) }
    }
}

/// Settings.
impl<V> NamespaceOptions<V> {
    /// Sets the version of the type's serialized form, with which keys begin: processes with another version share no
    /// values with these. Default: 1.
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets the time to live of values. The [jitter](Self::jitter) shortens it. Default: 300 s.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the time for which the cache remembers that a value does not exist. Default: 10 s.
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// Sets the upper bound of the times to live that loaders choose: see [`Loaded::ttl`](crate::Loaded::ttl). Default:
    /// the greater one of [`ttl`](Self::ttl) and [`negative_ttl`](Self::negative_ttl).
    pub const fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = Some(ttl);
        self
    }

    /// Sets the share of each time to live, from 0 to 1, of which a random part is cut off, so that values that were
    /// stored together do not expire together. Default: 0.1.
    pub const fn jitter(mut self, share: f64) -> Self {
        self.jitter = share.clamp(0.0, 1.0);
        self
    }

    /// Keeps expired values for this time longer, so that a reader can have one if its load fails or times out. Only
    /// [`get_or_load_entry`](crate::Namespace::get_or_load_entry) returns such a value, marked as
    /// [stale](crate::Reading::Stale). An invalidated value is not returned: the guarantee of
    /// [`coherence`](crate::coherence) holds for stale values, too. Default: off (0 s).
    pub const fn stale_if_error(mut self, bound: Duration) -> Self {
        self.stale_if_error = bound;
        self
    }

    /// Sets the maximum size of L1 in bytes. Default: 16 MiB.
    pub const fn l1_bytes(mut self, bytes: u64) -> Self {
        self.l1_bytes = Some(bytes);
        self
    }

    /// Sets the function that returns the size of a value in bytes. Default: the encoded size for
    /// [shared](Self::new) values. For [local](Self::local) values it is the size of the type itself without what it
    /// owns on the heap, so set a weigher for types such as `String` or `Vec`.
    pub const fn weigher(mut self, weigher: fn(&V) -> usize) -> Self {
        self.weigher = Some(weigher);
        self
    }

    /// Keeps no values in this process: each read queries the second tier, and none returns a value that another process
    /// has invalidated. Without a second tier nothing is cached.
    pub const fn without_l1(mut self) -> Self {
        self.l1_bytes = None;
        self
    }

    /// Sets the lease of a load. After a crash of the process that loads, readers in other processes wait for it, or load
    /// without storing, for this time. The lease is renewed at a third of it for as long as the load runs. Default: 5 s.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the time for which a reader waits for a load in another process before it loads itself. The wait also ends
    /// when the lease of that process expires. Default: 200 ms.
    pub const fn lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = wait;
        self
    }

    /// Sets the time for which a reader waits for a load of another reader in this process. After it, the reader takes
    /// the [stale value](Self::stale_if_error) if it accepts one; otherwise one of the waiting readers starts another
    /// load, for which the others wait. The load that took too long goes on, but its lease is no longer renewed.
    /// Default: 5 s.
    pub const fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = timeout;
        self
    }

    /// Sets the time after which a load is dropped and fails with
    /// [`LoadError::TimedOut`](crate::LoadError::TimedOut). A read returns within twice this time, plus the waits for
    /// the second tier. Default: 60 s.
    pub const fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = timeout;
        self
    }

    /// Sets the function that returns the version of a value: a number that grows with each change, such as a row
    /// version. [`Namespace::replace_if_newer`](crate::Namespace::replace_if_newer) needs it.
    pub const fn value_version(mut self, version: fn(&V) -> u64) -> Self {
        self.value_version = Some(version);
        self
    }

    /// Returns the name of the namespace.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the longest time to live of a value.
    pub(super) fn longest_ttl(&self) -> Duration {
        self.max_ttl.unwrap_or_default().max(self.ttl).max(self.negative_ttl)
    }

    /// Returns whether another opening of the same namespace asks for the same: all settings but the functions.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let settings = |options: &Self| {
            (
                (options.version, options.ttl, options.negative_ttl, options.longest_ttl(), options.jitter),
                (options.stale_if_error, options.l1_bytes, options.lease, options.lease_wait),
                (options.soft_timeout, options.hard_timeout, options.codec.is_some()),
                (options.value_version.is_some(), options.weigher.is_some()),
            )
        };
        settings(self) == settings(other)
    }
}
