//! The guarantee, the protocol that gives it, and why it does.
//!
//! # The guarantee
//!
//! A write is *complete* when [`invalidate`](crate::Cache::invalidate) has returned
//! [`Complete`](crate::Invalidation::Complete) after its commit. A read that begins then returns what that write, or
//! a later one, left:
//!
//! | the read is | and |
//! |---|---|
//! | in the same process | always, also when the invalidation was [`Deferred`](crate::Invalidation::Deferred) |
//! | in another process, of a namespace [without L1](crate::NamespaceOptions::without_l1) | always |
//! | in another process, with L1 | once that process has heard of it: about the time of one message; at most [the bound](crate::CacheBuilder::l1_staleness), 250 ms, after which copies are not used without word from Redis |
//! | while Redis is down | always: every read loads; L1 is not used once the bound is over |
//! | after Redis was restarted or has failed over, single or Sentinel | always, whatever the new server has lost: nothing that was stored before is used |
//! | the same, Cluster | as soon as the process has noticed, at most about a second |
//! | after a write whose invalidation was *deferred*, in another process | always, if that process lost Redis too; if only the writer did, when it has reached Redis again, or another way to invalidate has (a database's outbox, say), or at the end of the time to live |
//!
//! Two things are asked of the program: loaders read where committed writes are seen at once (no lagging replica), and
//! every write is followed by the invalidation of what it changed.
//!
//! # In Redis: tokens and generations
//!
//! 1. A reader that misses asks for the *lease* of the entry. It gets it if nobody has it, together with the
//!    generation of the entry's group (made if there is none), in one script.
//! 2. It loads, and asks to store the value. A second script stores it only if the lease still holds the
//!    reader's token and the group still has that generation.
//!    While it loads, it renews the lease: a third script extends it if it still holds the reader's token.
//! 3. An invalidation removes the entry and its lease; for a group, its generation. An entry whose generation is not
//!    the group's is a miss.
//!
//! *Why it holds.* Let a write be committed before its invalidation is carried out at time t. A value that is stored
//! after t was loaded by a reader whose lease was granted after t, as leases from before are gone and tokens are never
//! given twice. Its load began after the grant, so after the commit: it saw the write. What was stored before t is
//! removed at t, or carries a generation that is gone and, being random, does not come back. So no read of Redis after t gives an
//! older value. Losing a lease, an entry or a generation by eviction or expiry only adds misses.
//!
//! These are the leases of Nishtala et al., "Scaling Memcache at Facebook" (NSDI 2013), section 3.2.1; the generations are
//! theirs for a group.
//!
//! # Values that writers leave
//!
//! [`put_changed`](crate::Namespace::put_changed) makes a group unusable and keeps one member, made by the writer of what it was
//! before the write. One script does both, if the entry is still the one that it was made of and the group still has that
//! entry's generation; the group's new generation is random. Otherwise the group is invalidated.
//!
//! *Why it holds.* The old value carries a generation that the group had when it was loaded, so it shows every write of the group
//! whose invalidation came before. As the group still has it, none came since. A write that is committed but not yet
//! invalidated may be missing in both; its invalidation is still to come, and removes the new value, too. (The writer is to
//! check by the result of its own write, a count or a position, that nothing came between: then that is not seen at all.) In
//! the process, the new copy is kept only if the group's counter moved by this writer alone.
//!
//! # In the process: stamps
//!
//! Counters move with every invalidation, on a fixed number of slots by the hash of the name. A copy is good as long as
//! the counters say what they said *before* it was fetched. The counters move after Redis was told, so that no reader
//! puts the old value back between the two. Readers who arrive during a load wait for it, but take only the result of
//! one that began after they did.
//!
//! # Between processes: a stream that notices gaps
//!
//! Each invalidation appends its names to a stream, in the same script that removes the entries (in a cluster, after it).
//! Every process asks the stream what is new; the question waits at the server for 50 ms. An answer, even an empty
//! one, proves that nothing was missed up to the moment of the question, and lets L1 be used for another 250 ms. Each
//! event has the number after the one before: a gap (events trimmed, the stream evicted), a broken connection or a
//! flush makes all copies unusable. The alternative is `CLIENT TRACKING` (Redis documentation, "Client-side caching
//! in Redis"), whose invalidations also have to be assumed lost when the connection breaks; a stream works the same in a
//! cluster, and can be asked whether it still lives.
//!
//! # When Redis fails
//!
//! The first command that fails or exceeds its time-out stops the use of Redis in this process; one task probes it. Names
//! that could not be told are *owed*; no read of this process uses Redis before they are told. After an outage reads
//! wait one more second before they use Redis, so that the others, who probe every quarter of a second, can tell what
//! they owe. Every stored value carries an *epoch*, made of the server's run id and of the numbers of flushed
//! namespaces: what a restarted server or a promoted replica still has from before is a miss.
//!
//! # Other data
//!
//! Keys in Redis begin with an [identity](crate::Cache::set_identity). A change of the identity begins a new *term*: copies in
//! the process are dropped, and the connection for the old keys is used no more. A fill is sent only if the term is still
//! the one in which its lease was granted.
//!
//! *Why it holds.* The program tells the identity before it reads through a new connection, so a load that began and ended in
//! one term read the data of that term. If the term has changed, the value is not stored. If it changes after the check, the
//! fill goes to the old keys, where it belongs. A process that wrote to the new data before it was told has invalidated the old
//! keys. It therefore flushes the new ones when it is told, and every process waits a second before it reads them.
//!
//! # Evidence
//!
//! The tests run all of this, unchanged, on a simulated server and a paused clock through random schedules of
//! readers, writers, evictions, lost commands, late commands, hangs, restarts with old data, and restarts of
//! processes; with the tokens switched off the same schedules find a stale read. A soak does the same on a real
//! server and a real cluster.
