#!lua name=fortia
-- Guards and what a tick writes: see ARCHITECTURE.md, "The data plane".
-- Every function checks first and writes afterwards, so a refusal changes nothing. The first word of an error
-- is its kind. Works on Valkey 8 and Redis 7.0; commands run with the caller's rights (see functions.rs).

local ACTIONS = 4096 -- actions in one list: a tick has to take them all
local LOCKED = 600 -- seconds after which a lock table that nobody removed goes by itself; a tick takes far less
local SLICE = 1000 -- arguments given to one command; Lua's stack holds about 8000

local function refuse(kind, detail)
  return redis.error_reply(kind .. ' ' .. detail)
end

local function number(text)
  return text and string.match(text, '^%d+$') and tonumber(text) or nil
end

local function read_guard(key)
  local g = redis.call('HMGET', key, 'uid', 'group', 'index', 'epoch', 'tick_epoch', 'version', 'state', 'target', 'closed', 'parts')
  if not g[1] then return nil end
  return {
    uid = g[1], group = g[2], index = g[3], epoch = number(g[4]) or 0, tick_epoch = number(g[5]) or 0,
    version = number(g[6]) or 0, state = g[7], target = number(g[8]) or 0, closed = number(g[9]) or 0,
    parts = number(g[10]) or 0,
  }
end

-- The checks that all writers share. Returns the guard, or nil and the refusal.
local function admit(key, uid, epoch, tick_epoch)
  local guard = read_guard(key)
  if not guard then return nil, refuse('FOREIGN', 'this server has no guard') end
  if guard.uid ~= uid then return nil, refuse('FOREIGN', 'guard is of cluster ' .. guard.uid) end
  if not number(epoch) or not number(tick_epoch) then return nil, refuse('ERR', 'an epoch is not a number') end
  if number(epoch) < guard.epoch then return nil, refuse('STALE', string.format('epoch %s < %.0f', epoch, guard.epoch)) end
  local ticks = number(tick_epoch)
  if ticks ~= 0 and ticks < guard.tick_epoch then
    return nil, refuse('STALE', string.format('tick_epoch %s < %.0f', tick_epoch, guard.tick_epoch))
  end
  return guard
end

local function raise(key, guard, tick_epoch)
  if number(tick_epoch) > guard.tick_epoch then redis.call('HSET', key, 'tick_epoch', tick_epoch) end
end

-- Notes written texts; the stamp tells a drainer that a key was written again since it looked.
local function note(guard, prefix, texts)
  if guard.state ~= 'copying' or #texts == 0 then return end
  local stamp = redis.call('HINCRBY', prefix .. 'dirty', '', 1)
  for at = 1, #texts, 500 do
    local noted = {}
    for i = at, math.min(at + 499, #texts) do
      noted[#noted + 1] = texts[i]
      noted[#noted + 1] = stamp
    end
    redis.call('HSET', prefix .. 'dirty', unpack(noted))
  end
end

-- Whether a guard that is set anew still belongs to the same migration: its notes are good then, else worthless.
local function same_migration(guard, version, target, state)
  return guard.version == version and guard.target == target and target ~= 0
    and guard.state ~= 'open' and state ~= 'open'
end

local function fortia_guard(keys, args)
  local uid, group, index, epoch, version, state, target, closed = unpack(args, 1, 8)
  if #keys ~= 1 or #args ~= 8 or uid == '' then return refuse('ERR', 'usage: guard, 8 arguments') end
  if not (number(index) and number(epoch) and number(version) and number(target)) then
    return refuse('ERR', 'index, epoch, version and target must be numbers')
  end
  if closed ~= '' and not number(closed) then return refuse('ERR', 'closed must be a number or empty') end
  if state ~= 'open' and state ~= 'copying' and state ~= 'frozen' then return refuse('ERR', 'no state ' .. state) end
  local guard = read_guard(keys[1])
  if guard then
    if guard.uid ~= uid or guard.group ~= group or guard.index ~= index then
      return refuse('FOREIGN', 'guard is of ' .. guard.uid .. ' ' .. guard.group .. ' ' .. guard.index)
    end
    if number(epoch) < guard.epoch then return refuse('STALE', string.format('epoch %s < %.0f', epoch, guard.epoch)) end
  else
    redis.call('HSET', keys[1], 'tick_epoch', '0', 'closed', '0')
  end
  redis.call('HSET', keys[1], 'uid', uid, 'group', group, 'index', index, 'epoch', epoch, 'version', version,
    'state', state, 'target', target)
  if closed ~= '' then redis.call('HSET', keys[1], 'closed', closed) end
  if not guard or not same_migration(guard, number(version), number(target), state) then
    if guard then redis.call('UNLINK', string.format('v%.0f:dirty', guard.version), string.format('v%s:dirty', version)) end
    redis.call('HSET', keys[1], 'since', epoch)
  end
  return redis.status_reply('OK')
end

-- Type a key must have (or be absent) and arguments an operation takes: exact count, or {multiple of, at least 1}.
local OPS = {
  HSET = { type = 'hash', pairs = true }, SADD = { type = 'set', many = true },
  SREM = { type = 'set', many = true }, ACT = { type = 'list', argc = 2 }, DEL = { argc = 0 },
}

local function parse_ops(keys, args)
  local ops, at = {}, 5
  for i = 2, #keys do
    local name, argc = args[at], number(args[at + 1])
    local kind = name and OPS[name]
    if not kind or not argc or at + 1 + argc > #args then return nil, 'operation ' .. (i - 1) .. ' is malformed' end
    if (kind.argc and argc ~= kind.argc) or (kind.pairs and (argc == 0 or argc % 2 ~= 0)) or (kind.many and argc == 0) then
      return nil, name .. ' with ' .. argc .. ' arguments'
    end
    ops[#ops + 1] = { key = keys[i], name = name, kind = kind, first = at + 2, last = at + 1 + argc }
    at = at + 2 + argc
  end
  if at ~= #args + 1 then return nil, 'arguments left over' end
  return ops
end

-- Whether the list of this operation takes one more action; `lengths` counts those of the call itself.
local function check_room(key, lengths)
  local length = lengths[key] or redis.call('LLEN', key)
  if length >= ACTIONS then return refuse('FULL', string.format('%s has %.0f actions', key, length)) end
  lengths[key] = length + 1
  return nil
end

-- Whether the guard lets this operation in. Returns nil, or the refusal.
local function check_op(op, guard, prefix, lengths, args)
  if string.sub(op.key, 1, #prefix) ~= prefix then return refuse('ERR', op.key .. ' is not a key of ' .. prefix) end
  if op.kind.type then
    local found = redis.call('TYPE', op.key)['ok']
    if found ~= 'none' and found ~= op.kind.type then return refuse('WRONGTYPE', op.key .. ' is a ' .. found) end
  end
  if op.name == 'ACT' then
    local tick = number(args[op.first])
    if not tick then return refuse('ERR', 'ACT needs a tick') end
    if tick <= guard.closed then return refuse('CLOSED', string.format('%.0f', guard.closed)) end
    return check_room(op.key, lengths)
  end
  return nil
end

local function in_slices(command, key, args, first, last)
  for at = first, last, SLICE do redis.call(command, key, unpack(args, at, math.min(at + SLICE - 1, last))) end
end

-- Which lists of actions a shard has is noted in one set of the version, members tick:x:y, so that a tick looks only at
-- regions in which somebody acted. It says where keys are on this server, so no migration carries it: it is made here.
local function note_actions(key)
  local prefix, list = string.match(key, '^(v%d+:)actions:(.+)$')
  if list then redis.call('SADD', prefix .. 'acting', list) end
end

local function append(command)
  return function(op, args) in_slices(command, op.key, args, op.first, op.last) end
end

local APPLY = {
  HSET = append('HSET'), SADD = append('SADD'), SREM = append('SREM'),
  ACT = function(op, args)
    redis.call('RPUSH', op.key, args[op.last])
    note_actions(op.key)
  end,
  DEL = function(op) redis.call('DEL', op.key) end,
}

local function fortia_write(keys, args)
  local guard, refusal = admit(keys[1], args[1], args[2], args[3])
  if not guard then return refusal end
  local version = number(args[4])
  if not version then return refuse('ERR', 'version is not a number') end
  local ops, malformed = parse_ops(keys, args)
  if not ops then return refuse('ERR', malformed) end
  -- Without operations the call only raises tick_epoch, which must work while the world is frozen.
  if #ops > 0 and version ~= guard.version then
    return refuse('VERSION', string.format('%.0f is writable', guard.version))
  end
  if #ops > 0 and guard.state == 'frozen' then return refuse('FROZEN', string.format('version %.0f', guard.version)) end
  local prefix, lengths = string.format('v%.0f:', version), {}
  for _, op in ipairs(ops) do
    refusal = check_op(op, guard, prefix, lengths, args)
    if refusal then return refusal end
  end
  raise(keys[1], guard, args[3])
  local texts = {}
  for _, op in ipairs(ops) do
    APPLY[op.name](op, args)
    local text = string.sub(op.key, #prefix + 1)
    -- Locks are worthless between ticks: they are not carried.
    if guard.state == 'copying' and string.find(text, 'lock:', 1, true) ~= 1 then texts[#texts + 1] = text end
  end
  note(guard, prefix, texts)
  return #ops
end

-- What calls about one tick share: the guard, or nil and the refusal; then the version's prefix.
local function admit_tick(keys, args)
  local guard, refusal = admit(keys[1], args[1], args[2], args[3])
  if not guard then return nil, refusal end
  local version = number(args[4])
  if not version or not number(args[5]) then return nil, refuse('ERR', 'version and tick must be numbers') end
  if version ~= guard.version then return nil, refuse('VERSION', string.format('%.0f is writable', guard.version)) end
  if guard.state == 'frozen' then return nil, refuse('FROZEN', string.format('version %.0f', guard.version)) end
  local prefix = string.format('v%.0f:', version)
  for i = 2, #keys do
    if string.sub(keys[i], 1, #prefix) ~= prefix then
      return nil, refuse('ERR', keys[i] .. ' is not a key of ' .. prefix)
    end
  end
  return guard, prefix
end

-- Whether the second slot of a key takes the value of this tick: the slot that has the tick already, else the older.
-- Nil when one is newer: a value of the past would stand in the place of one that readers need.
local function takes_second(t0, t1, tick)
  if t1 == tick then return true end
  if not t0 or t0 == tick then return false end
  local first, second, new = tonumber(t0), tonumber(t1 or '-1'), tonumber(tick)
  if new < first or new < second then return nil end
  return second < first
end

-- Two-slot writes of one tick: one value a key, empty to remove the thing. Chunks and entities are nearly all that is ever
-- written, so this call knows nothing else. ARGV: uid, epoch, tick_epoch, version, tick, then a value per key.
local function fortia_slots(keys, args)
  local guard, prefix = admit_tick(keys, args)
  if not guard then return prefix end
  if #args ~= #keys + 4 then return refuse('ERR', 'usage: guard and keys, 5 arguments and a value per key') end
  local tick, second = args[5], {}
  for i = 2, #keys do
    local ticks = redis.pcall('HMGET', keys[i], 't0', 't1')
    if ticks.err then
      return string.find(ticks.err, 'WRONGTYPE', 1, true) and refuse('WRONGTYPE', keys[i] .. ' is no hash') or ticks
    end
    second[i] = takes_second(ticks[1], ticks[2], tick)
    if second[i] == nil then return refuse('CONFLICT', keys[i] .. ' has a newer tick than ' .. tick) end
  end
  raise(keys[1], guard, args[3])
  for i = 2, #keys do
    if second[i] then
      redis.call('HSET', keys[i], 't1', tick, 'd1', args[i + 4])
    else
      redis.call('HSET', keys[i], 't0', tick, 'd0', args[i + 4])
    end
  end
  if guard.state == 'copying' then
    local texts = {}
    for i = 2, #keys do texts[i - 1] = string.sub(keys[i], #prefix + 1) end
    note(guard, prefix, texts)
  end
  return #keys - 1
end

-- Ends a part of a commit: counts it, after all its writes on the same connection. A server's file is a prefix of what it was
-- told, so one that came back with the count that was confirmed has all that was written before it.
local function fortia_part(keys, args)
  local guard, refusal = admit_tick(keys, args)
  if not guard then return refusal end
  raise(keys[1], guard, args[3])
  return redis.call('HINCRBY', keys[1], 'parts', 1)
end

-- Forgets that a list was written, or notes that it is gone. As long as nobody goes back, the version before never hears of a
-- list that began and ended since: or each tick would leave a note for as long as that version is kept.
local function forget_list(kept, prefix, text, texts)
  if not (kept and redis.call('HDEL', prefix .. 'dirty', text) == 1) then texts[#texts + 1] = text end
end

-- Closes a tick: its lists of actions are final from here on. Returns their regions as x:y, and removes the lists of
-- ticks before it: a tick begins when the one before is committed. ARGV 6: how many parts of commits this shard must have;
-- 7: 1 when this tick was read before, by a run that may have written: its actions must be the same then.
local function fortia_take(keys, args)
  local guard, prefix = admit_tick(keys, args)
  if not guard then return prefix end
  local least, again = number(args[6] or '0'), args[7] == '1'
  if #keys ~= 2 or not least then return refuse('ERR', 'usage: guard and the set of regions, 7 arguments') end
  local tick, regions, texts = number(args[5]), {}, {}
  local kept = guard.state == 'copying' and guard.target < guard.version
    and redis.call('HGET', keys[1], 'worked') ~= string.format('%.0f:%.0f', guard.version, guard.target)
  if guard.parts < least then return refuse('FORGOT', string.format('%.0f of %.0f parts of commits', guard.parts, least)) end
  if again and guard.closed < tick then
    return refuse('FORGOT', string.format('the actions of tick %.0f, which were read here', tick))
  end
  for _, list in ipairs(redis.call('SMEMBERS', keys[2])) do
    local of, region = string.match(list, '^(%d+):(.+)$')
    of = number(of)
    if of == tick then regions[#regions + 1] = region end
    if not of or of < tick then
      redis.call('DEL', prefix .. 'actions:' .. list)
      redis.call('SREM', keys[2], list)
      forget_list(kept, prefix, 'actions:' .. list, texts)
    end
  end
  raise(keys[1], guard, args[3])
  note(guard, prefix, texts)
  if tick > guard.closed then redis.call('HSET', keys[1], 'closed', args[5]) end
  return regions
end

local RANK = 32 -- leading characters of a claim: who comes first, in digits of fixed width

-- Puts claims into a chunk's hash. One of another tick or epoch is worthless: whoever held it is fenced.
local function claim(key, args, first, last)
  local conflicts, known = 0, redis.call('HMGET', key, 'tick', 'epoch')
  if known[1] ~= args[5] or known[2] ~= args[3] then
    redis.call('DEL', key)
    redis.call('HSET', key, 'tick', args[5], 'epoch', args[3])
    in_slices('HSET', key, args, first, last)
    redis.call('EXPIRE', key, LOCKED)
    return 0
  end
  for at = first, last, SLICE do
    local fields, won = {}, {}
    for i = at, math.min(at + SLICE - 1, last), 2 do fields[#fields + 1] = args[i] end
    local held = redis.call('HMGET', key, unpack(fields))
    for i = 1, #fields do
      local value = args[at + 2 * i - 1]
      if held[i] and held[i] ~= value then conflicts = conflicts + 1 end
      if not held[i] or string.sub(value, 1, RANK) < string.sub(held[i], 1, RANK) then
        won[#won + 1] = fields[i]
        won[#won + 1] = value
      end
    end
    if #won > 0 then redis.call('HSET', key, unpack(won)) end
  end
  return conflicts
end

-- Takes the locks of chunks, in the order given, with the tick epoch as fencing token; claims blocks in them; and lets
-- them go: a call runs alone, so the lock of a chunk is held for the time of its part of one call. Per block the claim
-- of the first rank stays, whoever came first. ARGV: uid, epoch, tick_epoch, version, tick, then per key: how many
-- arguments, then block, claim, ... Returns locks taken and claims that met another.
local function fortia_lock(keys, args)
  local guard, refusal = admit_tick(keys, args)
  if not guard then return refusal end
  local parts, at = {}, 6
  for i = 2, #keys do
    local argc = number(args[at])
    if not argc or argc == 0 or argc % 2 ~= 0 or at + argc > #args then return refuse('ERR', 'claims are malformed') end
    local found = redis.call('TYPE', keys[i])['ok']
    if found ~= 'none' and found ~= 'hash' then return refuse('WRONGTYPE', keys[i] .. ' is a ' .. found) end
    parts[#parts + 1] = { key = keys[i], first = at + 1, last = at + argc }
    at = at + 1 + argc
  end
  if at ~= #args + 1 then return refuse('ERR', 'arguments left over') end
  raise(keys[1], guard, args[3])
  local conflicts = 0
  for _, part in ipairs(parts) do
    conflicts = conflicts + claim(part.key, args, part.first, part.last)
  end
  return { #parts, conflicts }
end

-- Whoever ends a re-sharding of a full server must be able to say so, or its old version could never go.
redis.register_function{ function_name = 'fortia_guard', callback = fortia_guard, flags = { 'allow-oom' } }
redis.register_function('fortia_write', fortia_write)
redis.register_function('fortia_slots', fortia_slots)
redis.register_function('fortia_part', fortia_part)
redis.register_function('fortia_take', fortia_take)
redis.register_function('fortia_lock', fortia_lock)
