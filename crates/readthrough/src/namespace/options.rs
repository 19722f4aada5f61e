//! Settings of a namespace.

use std::time::Duration;

/// Settings of a namespace.
///
/// ```
/// use std::time::Duration;
/// use readthrough::NamespaceOptions;
///
/// let profiles = NamespaceOptions::<String>::new("user:profile")
///     .version(2)                            // of the type's shape: keys begin with v2
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
    /// A namespace with the defaults that its methods name.
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

    /// The version of the type's shape, which keys begin with: processes of another version share nothing with
    /// these. Default: 1.
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How long values are kept, less up to a tenth by chance. Default: 300 s.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long it is remembered that there is no value. Default: 10 s.
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// The bound of L1 in bytes. Default: 16 MiB.
    pub const fn l1_bytes(mut self, bytes: u64) -> Self {
        self.l1_bytes = Some(bytes);
        self
    }

    /// Keeps nothing in this process: each read asks Redis, and none returns what another process has invalidated.
    /// Without Redis nothing is kept then.
    pub const fn without_l1(mut self) -> Self {
        self.l1_bytes = None;
        self
    }

    /// How long the lease of a load outlives its process: meanwhile readers in other processes wait for it, or load without
    /// storing. The lease is renewed three times as often while the load runs, however long that takes. Default: 5 s.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long a reader waits for a load in another process before it loads itself; less when the lease of that process
    /// expires. Default: 200 ms.
    pub const fn lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = wait;
        self
    }

    /// A number that grows with each change of a value, such as a row version: what
    /// [`Namespace::put_if_newer`](crate::Namespace::put_if_newer) needs.
    pub const fn value_version(mut self, version: fn(&V) -> u64) -> Self {
        self.value_version = Some(version);
        self
    }
}
