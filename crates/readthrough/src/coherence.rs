//! The guarantee, the protocol, and the argument for its correctness.
//!
//! # Guarantee
//!
//! A write is *complete* when [`invalidate`](crate::Cache::invalidate) has returned
//! [`Complete`](crate::Invalidation::Complete) after the commit. A read that begins later returns the value of that write
//! or of a newer one:
//!
//! | case | how long a read may return an older value | test |
//! |---|---|---|
//! | the same process | not at all, also after a [`Deferred`](crate::Invalidation::Deferred) invalidation | `simulation::no_read_is_stale_with_l1`, `simulation::no_read_is_stale_without_l1` |
//! | another process, [without L1](crate::NamespaceOptions::without_l1) | not at all | `simulation::no_read_is_stale_without_l1` |
//! | another process, with L1 | the time of one message, at most [`l1_staleness`](crate::CacheBuilder::l1_staleness), 250 ms | `simulation::no_read_is_stale_with_l1`, `redis::soak::no_read_is_stale_on_a_single_server`, `redis::soak::no_read_is_stale_on_a_cluster` |
//! | a [flush](crate::Cache::flush), in another process | until the next poll, 50 ms and a round trip, at most 1 s if polls hang; also in a namespace without L1 | `simulation::no_read_is_stale_without_faults`, `simulation::no_read_is_stale_without_l1`, `redis::failover::a_load_that_began_before_a_flush_is_not_stored` |
//! | Redis is down or hangs | every read loads after the breaker has opened; L1 for at most `l1_staleness` | `redis::faults::a_killed_server_fails_no_read_and_what_was_written_meanwhile_is_seen`, `redis::faults::a_paused_server_is_not_waited_for_twice` |
//! | Redis was restarted | not at all: values from before are misses | `simulation::no_read_is_stale_with_l1`, `simulation::no_read_is_stale_without_l1`, `redis::faults::a_killed_server_fails_no_read_and_what_was_written_meanwhile_is_seen` |
//! | a failover, with `min-replicas-to-write` 1 or more | L1: at most `l1_staleness`; Redis: until the next poll, 50 ms and a round trip, at most 1 s if polls hang | `simulation::no_read_is_stale_in_a_failover_with_min_replicas`, `simulation::failovers::a_replica_that_lags_returns_no_old_value`, `simulation::failovers::a_master_that_refuses_writes_is_left_without_sentinel`, `redis::failover::reads_under_load_are_fresh_after_failovers` |
//! | a failover by Sentinel, without that setting | until the processes on the old master learn of the new one, which each query Sentinel every `l1_staleness`, and have replayed their invalidations of the last 60 s: about a second | `simulation::reads_in_a_failover_without_min_replicas_are_stale_for_a_bounded_time`, `simulation::failovers::a_master_that_accepts_writes_is_left_when_sentinel_names_another`, `simulation::failovers::invalidations_that_the_old_master_received_are_replayed`, `redis::failover::a_planned_failover_is_followed_before_the_old_master_is_demoted` |
//! | a failover without that setting and without Sentinel, or a partition that separates processes with the old master from all Sentinels | until the old master is demoted or unreachable; logged once as a warning | `simulation::failovers::a_master_that_accepts_writes_is_left_when_sentinel_names_another` |
//! | a process that dies after a complete invalidation on an old master that accepts writes, before the replay | until the value expires | `simulation::failovers::a_writer_that_dies_before_the_replay_leaves_old_values_until_they_expire` |
//! | failing back to a master that was neither restarted nor demoted | as for a failover; a process that starts in the same second, and has used no other master, can read values from before the failover until another process connects | `simulation::reads_in_a_failover_without_min_replicas_are_stale_for_a_bounded_time`, `simulation::failovers::a_master_that_returns_with_its_data_returns_no_old_value`; none for the process that starts |
//! | a failover in a Cluster | until the process reads the replication id of the new master: 250 ms and up to 300 ms for a response, at most 1 s if it does not respond | `redis::cluster::a_replica_that_replaces_a_dead_server_returns_no_old_value`, `redis::failover::reads_under_load_are_fresh_after_a_failover_of_a_cluster` |
//! | a slot of a Cluster migrates | as without the migration; reads of its keys load | `redis::cluster::a_slot_that_migrates_is_invalidated_and_costs_its_own_keys` |
//! | a server of a Cluster dies or hangs | not at all; its keys load, and their invalidations are deferred. If it is the server of the stream, all keys load | `redis::cluster::a_dead_server_costs_its_own_keys` |
//! | that server responds again | as for a deferred invalidation | `redis::cluster::a_server_that_returns_is_read_after_the_deferred_invalidations` |
//! | a deferred invalidation, in another process | not at all if that process lost Redis too and the writer reaches Redis again within a second of it; otherwise until the writer reaches Redis, or an outbox does, or the value expires | `simulation::directed::values_that_were_replaced_during_a_hang_are_not_read` |
//! | a writer that exits while an invalidation is deferred | until an outbox sends it, or the value expires; [`close`](crate::Cache::close) waits and returns the number | `simulation::directed::close_sends_deferred_invalidations_or_returns_their_number` |
//! | keys of the library are evicted or deleted, `FLUSHALL` | not at all; processes share values again within a second | `simulation::no_read_is_stale_with_l1`, `simulation::directed::copies_are_dropped_when_the_stream_is_lost`, `simulation::directed::lost_housekeeping_keys_cost_misses_and_not_sharing`, `redis::failover::lost_housekeeping_keys_cost_misses_and_not_sharing` |
//! | clocks of machines differ or jump | not at all; values are shared as before | `simulation::no_read_is_stale_with_l1`, `simulation::directed::clocks_that_differ_or_jump_do_not_cost_sharing` |
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
//! A poll also reads the newest event. If the stream does not continue from the position of the process, because it was
//! evicted or created again with a lower id, all copies are invalidated.
//!
//! # Outages of Redis
//!
//! A command that fails opens the circuit breaker of the process; one task probes Redis. One slow command does not: time-outs
//! open the breaker when no command has succeeded for 250 ms, or when half of the commands in 5 s exceed their limit. Names
//! whose invalidation failed are *pending*; reads of these names in this process do not use Redis before they are sent. After
//! an outage reads wait for one more second, so that the other processes, which probe every 250 ms, send their pending
//! invalidations.
//!
//! # Epochs and failovers
//!
//! Every stored value has an *epoch*, computed from a random number of the server and the numbers of flushed namespaces. The
//! server keeps its number together with its *lineage*, the replication id, which a restart and a promotion change. A process
//! that connects begins a new epoch if there is none, if the lineage is another one, or if the epoch does not come after the
//! one that the process used last (the server lists the predecessors of its epoch). Numbers are never given twice, so values
//! from before stay misses, whatever a promoted replica lacks, and whichever master returns.
//!
//! Each poll of the stream sends a write in the same round trip: the removal of a key that does not exist. A replica rejects
//! it, and so does a master with `min-replicas-to-write` that has lost its replicas. L1 is used for 250 ms after the last
//! such proof, Redis for one second. (With one replica only, a new master rejects writes too, until the old one follows it;
//! with two it stays available.) Each poll reads the replication id, too, and with Sentinel the process queries the
//! master every `l1_staleness`. When the master changes, the process first sends its invalidations of the last 60 s (beyond
//! 20,000 names: a flush) to the new one, because the old one may have received them in vain.
//!
//! # Servers of a Cluster
//!
//! Every 250 ms a process reads which server has which slots, and sends each server such a write together with a read of its
//! replication id. Each server has a circuit breaker of its own, which opens as that of the process does. Reads use a server
//! for one second after its last proof; a server that failed is read one second after it responds again, so that the other
//! processes send their pending invalidations first. The lineage of a Cluster is the list of the replication ids. A process
//! that connects while a server is dead continues the epoch if the ids of all others are in the list; an id that is not in
//! it begins a new one. The stream and the epochs are on one server.
//!
//! # Clocks
//!
//! The time of expiry in a stored value is a time of the server: every poll reads its clock. The clocks of the machines are
//! not compared. If the clock of the server is set back, values live longer by as much.
//!
//! # Writers that exit
//!
//! A deferred invalidation exists only in the memory of its process. Before exit, [`close`](crate::Cache::close) waits until
//! Redis has received all of them, or returns their number; a cache that is dropped with pending invalidations logs it.
//!
//! A caller with an outbox hands them over: it records what a write invalidates in the transaction of the write, invalidates,
//! and deletes the record only after [`Complete`](crate::Invalidation::Complete). After `Deferred`, or if the process dies in
//! between, the record stays, and another process invalidates it. Invalidating twice is harmless.
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
//! The simulation runs all of this, unchanged, on simulated servers and a paused clock through random schedules of readers,
//! writers, flushes, evictions, lost commands, late commands, hangs, restarts, failovers to a replica that lags, failbacks,
//! jumps of the clock, and restarts of processes. Controls switch off one part of the protocol each, and a stale read is
//! found:
//!
//! | part | control |
//! |---|---|
//! | the tokens of leases, new generations of tags, the numbers of a flush, the epochs in polls, new epochs of lineages | `simulation::without_a_part_of_the_protocol_a_stale_read_is_found` |
//! | new epochs of lineages | `simulation::failovers::a_replica_that_lags_returns_no_old_value` |
//! | the predecessors of an epoch | `simulation::failovers::a_master_that_returns_with_its_data_returns_no_old_value` |
//! | the write in polls | `simulation::failovers::a_master_that_refuses_writes_is_left_without_sentinel` |
//! | the queries of Sentinel | `simulation::failovers::a_master_that_accepts_writes_is_left_when_sentinel_names_another` |
//! | the replay | `simulation::failovers::invalidations_that_the_old_master_received_are_replayed` |
//! | the newest event in polls | `simulation::directed::copies_are_dropped_when_the_stream_is_lost` |
//!
//! Without the epochs in polls after keys were lost, and without the clock of the server, the controls in
//! `simulation::directed` share no values. The second of quarantine after an outage has no control. Soak tests run on a real
//! server, a real Cluster and a real Sentinel; `READTHROUGH_FAILOVERS=10` fails over ten times.
