
-- What a re-sharding does to keys of two versions: attempts, carrying, notes, unlinking. The last part of one chunk: it
-- uses the guard and the helpers of tick.lua, and knows nothing of ticks. A source is worked on by attempts, each of which
-- ends the ones before it: a target takes nothing from a pod that was replaced, however late it comes.

-- ARGV 1 to 5: uid, epoch, version, source, attempt. Returns the guard, or nil and the refusal.
local function admit_carry(key, args, fenced)
  local guard, refusal = admit(key, args[1], args[2], '0')
  if not guard then return nil, refusal end
  local version = number(args[3])
  if not version or version == 0 or not number(args[4]) or not number(args[5]) then
    return nil, refuse('ERR', 'version, source and attempt must be numbers')
  end
  if version ~= guard.target then return nil, refuse('VERSION', string.format('%.0f is being made', guard.target)) end
  if fenced then
    local newest = redis.call('HGET', key, 'attempt:' .. args[4])
    if newest ~= args[5] then
      return nil, refuse('ATTEMPT', args[5] .. ' of source ' .. args[4] .. ', now ' .. (newest or 'none'))
    end
  end
  return guard
end

local function newest_attempt(key, source)
  return number(redis.call('HGET', key, 'attempt:' .. source)) or 0
end

-- Begins to work on a source: the new attempt's number. ARGV 5 and 6: the least it may be, less one, and who asks. Pods
-- leave a frozen source to the cut-over.
local function fortia_attempt(keys, args)
  local guard, refusal = admit_carry(keys[1], args, false)
  if not guard then return refusal end
  if args[6] == 'pod' and guard.state == 'frozen' then
    return refuse('FROZEN', string.format('version %.0f', guard.version))
  end
  if args[6] == 'cutover' and guard.state ~= 'frozen' then return refuse('VERSION', 'the source is not frozen') end
  if args[6] ~= 'pod' and args[6] ~= 'cutover' then return refuse('ERR', 'who must be pod or cutover') end
  local attempt = math.max(newest_attempt(keys[1], args[4]), number(args[5])) + 1
  -- From here on keys of this version may be carried to that target: what goes has to be noted there, too.
  redis.call('HSET', keys[1], 'attempt:' .. args[4], string.format('%.0f', attempt),
    'worked', string.format('%.0f:%.0f', guard.version, guard.target))
  return attempt
end

-- Tells a target of an attempt: it takes nothing from older ones from here on.
local function fortia_fence(keys, args)
  local guard, refusal = admit_carry(keys[1], args, false)
  if not guard then return refusal end
  local newest, attempt = newest_attempt(keys[1], args[4]), number(args[5])
  if attempt < newest then
    return refuse('ATTEMPT', string.format('%s of source %s, now %.0f', args[5], args[4], newest))
  end
  redis.call('HSET', keys[1], 'attempt:' .. args[4], args[5])
  return attempt
end

local function unlink_all(keys)
  for at = 1, #keys, SLICE do redis.call('UNLINK', unpack(keys, at, math.min(at + SLICE - 1, #keys))) end
end

-- Whole strings, as one command: ARGV key, value, ...
local function carry_strings(prefix, args)
  if #args % 2 == 1 then return refuse('ERR', 'strings are keys and values') end
  for i = 7, #args, 2 do
    if string.find(args[i], prefix, 1, true) ~= 1 then return refuse('ERR', args[i] .. ' is not a key of ' .. prefix) end
  end
  for at = 7, #args, SLICE do redis.call('MSET', unpack(args, at, math.min(at + SLICE - 1, #args))) end
  return (#args - 6) / 2
end

-- What replaces a whole value, and what adds to one that came before in pieces.
local CARRY = {
  hash = { command = 'HSET', replaces = true }, set = { command = 'SADD', replaces = true },
  list = { command = 'RPUSH', replaces = true, noted = true },
  ['+hash'] = { command = 'HSET' }, ['+set'] = { command = 'SADD' }, ['+list'] = { command = 'RPUSH', noted = true },
  string = { command = 'SET', one = true }, ['+string'] = { command = 'APPEND', one = true },
  gone = { none = true, replaces = true },
}

-- Checks values before the first of them is written. Returns the keys to remove first, or nil and the refusal.
local function check_values(prefix, args)
  local replaced, at = {}, 7
  while at <= #args do
    local kind, key, argc = CARRY[args[at]], args[at + 1], number(args[at + 3])
    if not kind or not argc or not number(args[at + 2]) or at + 3 + argc > #args or (kind.one and argc ~= 1)
      or (kind.none and argc ~= 0) or (argc == 0 and not kind.none) then
      return nil, refuse('ERR', 'values are malformed')
    end
    if string.find(key, prefix, 1, true) ~= 1 then return nil, refuse('ERR', key .. ' is not a key of ' .. prefix) end
    if kind.replaces then replaced[#replaced + 1] = key end
    at = at + 4 + argc
  end
  return replaced
end

-- Values of all kinds: ARGV per value its kind, key, Unix ms at which it expires (0: never), how many arguments, arguments.
local function carry_values(prefix, args)
  local replaced, refusal = check_values(prefix, args)
  if not replaced then return refusal end
  unlink_all(replaced)
  local at, count = 7, 0
  while at <= #args do
    local kind, key, expires, argc = CARRY[args[at]], args[at + 1], args[at + 2], args[at + 3] + 0
    if kind.one then
      redis.call(kind.command, key, args[at + 4])
    elseif argc > SLICE then
      in_slices(kind.command, key, args, at + 4, at + 3 + argc)
    elseif argc > 0 then
      redis.call(kind.command, key, unpack(args, at + 4, at + 3 + argc))
    end
    if kind.noted then note_actions(key) end
    if expires ~= '0' and argc > 0 then redis.call('PEXPIREAT', key, expires) end
    at, count = at + 4 + argc, count + 1
  end
  return count
end

-- Puts values read at the source into the target version. ARGV 6: strings or values, then what these take.
local function fortia_carry(keys, args)
  local guard, refusal = admit_carry(keys[1], args, true)
  if not guard then return refusal end
  local prefix = string.format('v%.0f:', guard.target)
  if args[6] == 'strings' then return carry_strings(prefix, args) end
  if args[6] == 'values' then return carry_values(prefix, args) end
  return refuse('ERR', 'the form must be strings or values')
end

-- Copies keys that stay on their server. ARGV 6: the version copied from, then texts. A source that is gone leaves nothing.
local function fortia_stay(keys, args)
  local guard, refusal = admit_carry(keys[1], args, true)
  if not guard then return refusal end
  if number(args[6]) ~= guard.version then return refuse('VERSION', string.format('%.0f is served', guard.version)) end
  local from, to = string.format('v%.0f:', guard.version), string.format('v%.0f:', guard.target)
  local gone = {}
  for i = 7, #args do
    local text = args[i]
    if redis.call('COPY', from .. text, to .. text, 'REPLACE') == 0 then
      gone[#gone + 1] = to .. text
    elseif string.find(text, 'actions:', 1, true) == 1 then
      note_actions(to .. text)
    end
  end
  unlink_all(gone)
  return #args - 6 - #gone
end

-- Takes notes away of keys that were carried, unless they were written again since. ARGV from 6: text, stamp, ...
local function fortia_clean(keys, args)
  local guard, refusal = admit_carry(keys[1], args, true)
  if not guard then return refusal end
  if #args % 2 == 0 then return refuse('ERR', 'notes are texts and stamps') end
  local dirty, removed = string.format('v%.0f:dirty', guard.version), 0
  for at = 6, #args, SLICE do
    local texts, done = {}, {}
    local last = math.min(at + SLICE - 1, #args)
    for i = at, last, 2 do texts[#texts + 1] = args[i] end
    for n, stamp in ipairs(redis.call('HMGET', dirty, unpack(texts))) do
      if stamp and stamp == args[at + 2 * n - 1] then done[#done + 1] = texts[n] end
    end
    if #done > 0 then removed = removed + redis.call('HDEL', dirty, unpack(done)) end
  end
  return removed
end

-- Notes keys as written, so that they are carried again: mending goes no other way. ARGV: uid, epoch, version, text, ...
local function fortia_note(keys, args)
  local guard, refusal = admit(keys[1], args[1], args[2], '0')
  if not guard then return refusal end
  if not number(args[3]) or number(args[3]) ~= guard.target or guard.target == 0 then
    return refuse('VERSION', string.format('%.0f is being made', guard.target))
  end
  if guard.state ~= 'copying' then return refuse('FROZEN', string.format('version %.0f', guard.version)) end
  local texts = {}
  for i = 4, #args do texts[i - 3] = args[i] end
  note(guard, string.format('v%.0f:', guard.version), texts)
  return #texts
end

-- Records on a target how far copying from a source is. ARGV 6: the record.
local function fortia_checkpoint(keys, args)
  local guard, refusal = admit_carry(keys[1], args, true)
  if not guard then return refusal end
  if not args[6] then return refuse('ERR', 'usage: guard, 6 arguments') end
  redis.call('HSET', string.format('v%.0f:checkpoint', guard.target), args[4], args[6])
  return redis.status_reply('OK')
end

-- Removes keys of a version that nobody serves; by name, so that collecting is refused in the call that would harm.
local function fortia_unlink(keys, args)
  local guard, refusal = admit(keys[1], args[1], args[2], '0')
  if not guard then return refusal end
  local version = number(args[3])
  if not version or version == 0 then return refuse('ERR', 'usage: unlink, uid, epoch, version') end
  -- A group that only the old layout has keeps its guard, frozen for that version and without a target.
  local left = guard.state == 'frozen' and guard.target == 0
  if version == guard.target or (version == guard.version and not left) then
    return refuse('VERSION', string.format('%.0f is in use', version))
  end
  local prefix = string.format('v%.0f:', version)
  for i = 2, #keys do
    if string.sub(keys[i], 1, #prefix) ~= prefix then return refuse('ERR', keys[i] .. ' is not a key of ' .. prefix) end
  end
  local count = 0
  for at = 2, #keys, SLICE do count = count + redis.call('UNLINK', unpack(keys, at, math.min(at + SLICE - 1, #keys))) end
  return count
end

redis.register_function('fortia_attempt', fortia_attempt)
redis.register_function('fortia_fence', fortia_fence)
redis.register_function('fortia_carry', fortia_carry)
redis.register_function('fortia_stay', fortia_stay)
redis.register_function('fortia_clean', fortia_clean)
redis.register_function('fortia_note', fortia_note)
redis.register_function('fortia_checkpoint', fortia_checkpoint)
-- A server that is full must be able to let go of an old version.
redis.register_function{ function_name = 'fortia_unlink', callback = fortia_unlink, flags = { 'allow-oom' } }
