//! The settings of a namespace.

use std::time::Duration;

/// The settings of a [`Namespace`](crate::Namespace).
///
/// ```
/// use std::time::Duration;
/// use readthrough::NamespaceOptions;
///
/// let profiles = NamespaceOptions::<String>::new("user:profile")
///     .version(2)                            // keys begin with v2
///     .ttl(Duration::from_secs(300))
///     .l1_bytes(16 << 20);
/// # let _ = profiles;
/// ```
pub struct NamespaceOptions<V> {
    pub(super) name: &'static str,
    pub(super) version: u32,
    pub(super) ttl: Duration,
    pub(super) negative_ttl: Duration,
    pub(super) l1_bytes: Option<u64>,
    pub(super) lease: Duration,
    pub(super) lease_wait: Duration,
    pub(super) value_version: Option<fn(&V) -> u64>,
}

impl<V> NamespaceOptions<V> {
    /// Creates settings with the default values.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            version: 1,
            ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(10),
            l1_bytes: Some(16 << 20),
            lease: Duration::from_secs(5),
            lease_wait: Duration::from_millis(200),
            value_version: None,
        }
    }

    /// Sets the version of the type's shape. Keys begin with it, so processes of different versions share no values. Default:
    /// 1.
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets the time to live of values; each value lives up to a tenth less, at random. Default: 300 s.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets how long the absence of a value is cached. Default: 10 s.
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// Sets the size limit of L1 in bytes. Default: 16 MiB.
    pub const fn l1_bytes(mut self, bytes: u64) -> Self {
        self.l1_bytes = Some(bytes);
        self
    }

    /// Turns L1 off: each read uses Redis and returns no value that another process has invalidated. Without Redis, no values
    /// are cached.
    pub const fn without_l1(mut self) -> Self {
        self.l1_bytes = None;
        self
    }

    /// Sets how long the lease of a load outlives its process. Until then, readers in other processes wait, or load without
    /// storing. While the load runs, the lease is renewed three times in each such period. Default: 5 s.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long a reader waits for a load in another process before it loads itself. The wait ends when the lease of that
    /// process expires. Default: 200 ms.
    pub const fn lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = wait;
        self
    }

    /// Sets a function that returns a number which grows with each change of a value, such as a row version.
    /// [`Namespace::replace_if_newer`](crate::Namespace::replace_if_newer) requires it.
    pub const fn value_version(mut self, version: fn(&V) -> u64) -> Self {
        self.value_version = Some(version);
        self
    }
}
