//! The guarantee, the protocol, and the argument for its correctness.
//!
//! # Guarantee
//!
//! A write is *complete* when [`invalidate`](crate::Cache::invalidate) has returned
//! [`Complete`](crate::Invalidation::Complete) after the commit. A read that begins later returns the value of that write
//! or of a newer one:
//!
//! | the read runs | bound |
//! |---|---|
//! | in the same process | none; this holds for [`Deferred`](crate::Invalidation::Deferred) invalidations too |
//! | in another process, in a namespace [without L1](crate::NamespaceOptions::without_l1) | none |
//! | in another process, with L1 | about the time of one message; at most [`l1_staleness`](crate::CacheBuilder::l1_staleness), 250 ms, after which reads stop using L1 without a response from Redis |
//! | while Redis is down | every read loads; L1 is used for at most `l1_staleness` |
//! | after a restart or a failover, single server or Sentinel | none: values from before are misses, whatever the new server has lost |
//! | after a failover in a Cluster | about 1 s, until the process detects it |
//! | in another process, after a *deferred* invalidation | none if that process lost Redis too; otherwise until the writer reaches Redis, or another invalidation (such as a database outbox) reaches it, or the value expires |
//!
//! The program has two duties. Loaders read committed writes at once, so not from a replica that lags. Every write is
//! followed by the invalidation of the values that it changed.
//!
//! # Leases and generations
//!
//! 1. A reader that misses requests the *lease* of the entry. A script grants it unless it is held, and returns the
//!    generation of the entry's group, which it creates if there is none.
//! 2. The reader loads, and sends the value. A second script stores it only if the lease still has the reader's token and
//!    the group still has that generation. While the reader loads, a third script extends the lease if it still has the
//!    reader's token.
//! 3. An invalidation removes the entry and its lease, or the generation of a group. An entry with another generation than
//!    its group is a miss.
//!
//! *Correctness.* Let a write be committed before its invalidation runs at time t. A value that is stored after t was loaded
//! under a lease that was granted after t, because the invalidation revoked earlier leases and tokens are unique. Its load
//! began after the grant, so after the commit, and read the write. A value that was stored before t is removed at t, or has
//! a generation that is removed and, being random, does not return. No read of Redis after t returns an older value. The
//! loss of a lease, an entry or a generation by eviction or expiry only adds misses.
//!
//! The leases are those of Nishtala et al., "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1; the generations are
//! leases of a group.
//!
//! # Tags
//!
//! A [tag](crate::Key::tag) is a further group of an entry, in another slot of a cluster than the entry, so no script can
//! compare its generation with the entry's. The reader requests the generations of the tags before it loads, and stores
//! them with the value. A later reader fetches the entry and the generations of its tags, and takes the entry only if they
//! are equal.
//!
//! *Correctness.* Let a write be committed before the invalidation of a tag removes its generation at time t. A read that
//! begins after t fetches a generation that was made after t. An entry with that generation was loaded after the generation
//! was requested, so after the commit.
//!
//! # Values of writers
//!
//! [`replace_if_unchanged`](crate::Namespace::replace_if_unchanged) invalidates a group and stores one member, which the
//! writer computed from a snapshot. One script does both if the snapshot's entry is still stored and the group still has
//! that entry's generation; the new generation is random. Otherwise the group is invalidated.
//!
//! *Correctness.* The snapshot has the generation that the group had when it was loaded, so it contains every write of the
//! group whose invalidation came before. The group still has that generation, so no invalidation came since. Both values may
//! lack a write that is committed and not yet invalidated; its invalidation removes the new value too. (The writer checks
//! by the result of its own write, a count or a position, that no other write came between; readers then do not see such a
//! value at all.) In the process, the new copy is stored only if this writer alone has incremented the group's counter.
//!
//! # Copies in the process
//!
//! Each invalidation increments counters, in a table of fixed size that is indexed by the hash of the name. A copy is valid
//! while the counters are those from *before* its fetch. The counters change after Redis was updated, so that no reader
//! stores the old value again between the two. A reader that arrives during a load waits for it, but uses only the result
//! of a load that began after its own start.
//!
//! # Invalidations of other processes
//!
//! Each invalidation appends its names to a stream, in the script that removes the entries (in a Cluster, after it). Every
//! process reads the stream; a read waits at the server for 50 ms. A response, even an empty one, proves that nothing was
//! missed up to the time of the request, and permits the use of L1 for 250 ms from that time. Each event has the sequence
//! number after that of the event before: a gap (trimmed events, an evicted stream), a broken connection or a flush
//! invalidates all copies. The alternative is `CLIENT TRACKING` (Redis documentation, "Client-side caching in Redis"), whose
//! messages must be assumed lost too when the connection breaks; a stream works the same way in a Cluster, and a response
//! proves that it is alive.
//!
//! # Outages of Redis
//!
//! The first command that fails or exceeds its time limit opens the circuit breaker of the process; one task probes Redis.
//! Names whose invalidation failed are *pending*; reads of this process do not use Redis before they are sent. After an
//! outage reads wait for one more second, so that the other processes, which probe every 250 ms, send their pending
//! invalidations. Every stored value has an *epoch*, computed from the server's run id and the numbers of flushed
//! namespaces: values that a restarted server or a promoted replica kept from before are misses.
//!
//! # Change of the data
//!
//! Keys in Redis begin with an [identity](crate::Cache::set_identity). A change of the identity begins a new *term*: the
//! copies in the process are invalidated, and the connection for the old keys is closed. A fill is sent only in the term in
//! which its lease was granted.
//!
//! *Correctness.* The program sets the identity before it reads through a new connection, so a load that began and ended in
//! one term read the data of that term. If the term has changed, the value is not stored. If it changes after the check, the
//! fill uses the old keys, where it belongs. A process that wrote to the new data before it set the identity has invalidated
//! the old keys. It therefore flushes the new ones, and every process waits for a second before it reads them.
//!
//! # Evidence
//!
//! The tests run all of this, unchanged, on a simulated server and a paused clock through random schedules of readers,
//! writers, evictions, lost commands, late commands, hangs, restarts with old data, and restarts of processes. With the
//! leases switched off, the same schedules find a stale read. A soak test runs on a real server and a real Cluster.
