//! The Lua scripts. Their keys are the entry, its lease and, for a member, its group, unless stated otherwise.

use std::sync::LazyLock;

use redis::Script;

/// Grants the lease unless it is held; returns the generation and the entry.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local generation = '0'
        if KEYS[3] then
            generation = redis.call('GET', KEYS[3])
            if not generation then
                generation = ARGV[3]
                redis.call('SET', KEYS[3], generation, 'PX', ARGV[4])
            end
        end
        local granted = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
        return {granted and 1 or 0, generation, redis.call('GET', KEYS[1])}",
    )
});

/// Returns the generation of a group, its only key, and creates it if it is missing.
pub(super) static GENERATION: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local generation = redis.call('GET', KEYS[1])
        if generation then
            redis.call('PEXPIRE', KEYS[1], ARGV[2])
        else
            generation = ARGV[1]
            redis.call('SET', KEYS[1], generation, 'PX', ARGV[2])
        end
        return generation",
    )
});

/// Stores the entry if the lease and the generation match.
pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
        redis.call('DEL', KEYS[2])
        if KEYS[3] then
            if redis.call('GET', KEYS[3]) ~= ARGV[2] then return 0 end
            redis.call('PEXPIRE', KEYS[3], ARGV[5])
        end
        redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
        return 1",
    )
});

/// Removes the lease, its only key, if the token matches.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1")
});

/// Extends the lease, its only key, if the token matches.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0",
    )
});

/// Replaces the entry and the generation if both are as expected; revokes the lease.
pub(super) static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('DEL', KEYS[2])
        if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then return 0 end
        if KEYS[3] then
            if redis.call('GET', KEYS[3]) ~= ARGV[4] then return 0 end
            redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
        end
        redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
        return 1",
    )
});

/// Runs the commands of the other scripts on a key of its own.
pub(super) static PROBE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('SET', KEYS[1], '1', 'NX', 'PX', 1000)
        redis.call('GET', KEYS[1])
        redis.call('GETRANGE', KEYS[1], 0, 0)
        redis.call('PEXPIRE', KEYS[1], 1000)
        redis.call('DEL', KEYS[1])
        redis.call('UNLINK', KEYS[1])
        return 1",
    )
});

/// Removes its first keys, and appends an event to the stream, its last key. The sequence number of the event follows that
/// of the event before, so that readers detect trimmed events. Each name is a field of the event.
pub(super) static INVALIDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        for index = 1, #KEYS - 1 do redis.call('UNLINK', KEYS[index]) end
        local stream = KEYS[#KEYS]
        local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
        local number = 1
        if newest[1] then number = tonumber(newest[1][2][2]) + 1 end
        local event = {'XADD', stream, 'MAXLEN', '~', ARGV[1], '*',
            'number', string.format('%.0f', number), 'node', ARGV[2]}
        for index = 3, #ARGV do
            event[#event + 1] = ARGV[index]
            event[#event + 1] = ''
        end
        redis.call(unpack(event))
        return number",
    )
});

/// Returns the lineage of the epoch, a list. Begins a new epoch unless each part of the list `ARGV[2]` is in that of the
/// stored one, and the stored one does not precede `ARGV[3]`, the epoch that the process used last. Its only key is a hash.
pub(super) static OPEN_EPOCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local stored = redis.call('HMGET', KEYS[1], 'epoch', 'lineage', 'predecessors')
        local epoch, lineage, predecessors = stored[1], stored[2], stored[3] or ','
        local is_valid = epoch and lineage
        if is_valid then
            for part in string.gmatch(ARGV[2], '[^,]+') do
                is_valid = is_valid and string.find(',' .. lineage .. ',', ',' .. part .. ',', 1, true)
            end
        end
        if is_valid and ARGV[3] ~= '' and ARGV[3] ~= epoch then
            is_valid = string.find(predecessors, ',' .. ARGV[3] .. ',', 1, true)
        end
        if not is_valid then
            predecessors = ',' .. ARGV[3] .. ',' .. (epoch or '') .. predecessors
            predecessors = string.sub(predecessors, 1, 2000)
            lineage = ARGV[2]
            redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'lineage', lineage, 'predecessors', predecessors)
        end
        return lineage",
    )
});
