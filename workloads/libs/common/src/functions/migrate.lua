
-- What a re-sharding does to keys of two versions: carrying and unlinking. The second half of one chunk: it uses the
-- guard and the helpers of tick.lua, and knows nothing of ticks.

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

-- A server that is full must be able to let go of an old version.
redis.register_function{ function_name = 'fortia_unlink', callback = fortia_unlink, flags = { 'allow-oom' } }
