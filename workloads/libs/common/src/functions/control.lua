
-- What the control database decides by compare-and-swap: topology, lease, committed ticks. A part of one chunk: it uses the helpers
-- of tick.lua, and knows nothing of the world's keys.

-- Nil when this holder has the lease under this epoch, else the refusal.
local function not_leading(key, holder, epoch)
  local lease = redis.call('HMGET', key, 'holder', 'epoch')
  if lease[1] == holder and lease[2] == epoch then return nil end
  return refuse('NOTLEADER', 'the lease is held by ' .. (lease[1] or 'nobody') .. ', epoch ' .. (lease[2] or '0'))
end

local function epoch_of(json)
  local read, record = pcall(cjson.decode, json)
  return read and type(record) == 'table' and type(record.epoch) == 'number' and record.epoch or nil
end

-- ARGV: expected epoch (0: absent), json. A scheduler also shows its lease: KEYS 2, ARGV 3 and 4 holder and epoch.
local function fortia_topology(keys, args)
  local expected, new = number(args[1]), epoch_of(args[2])
  if keys[2] then
    local deposed = not_leading(keys[2], args[3], args[4])
    if deposed then return deposed end
  end
  if not expected or not new then return refuse('ERR', 'usage: topology, expected epoch and json with an epoch') end
  local record = redis.call('GET', keys[1])
  local current = 0
  if record then current = epoch_of(record) end
  if not current then return refuse('ERR', 'the stored topology has no epoch') end
  if current ~= expected or new <= current then return refuse('CONFLICT', string.format('epoch is %.0f', current)) end
  redis.call('SET', keys[1], args[2])
  redis.call('PUBLISH', 'fortia:topology', string.format('%.0f', new))
  return new
end

local function fortia_lease(keys, args)
  local holder, address, ttl = args[1], args[2], number(args[3])
  if not holder or holder == '' or not address or not ttl then return refuse('ERR', 'usage: lease, holder, address, ttl') end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local l = redis.call('HMGET', keys[1], 'holder', 'address', 'epoch', 'expires')
  local epoch, live = number(l[3]) or 0, (number(l[4]) or 0) > now
  if live and l[1] ~= holder then return { 0, epoch, l[2] } end
  if ttl == 0 then
    if live then redis.call('HSET', keys[1], 'expires', '0') end
    return { 0, epoch, '' }
  end
  -- Whoever let it expire gets a new epoch, even the last holder: another may have led in between.
  if not live then epoch = epoch + 1 end
  redis.call('HSET', keys[1], 'holder', holder, 'address', address, 'epoch', string.format('%.0f', epoch),
    'expires', string.format('%.0f', now + ttl))
  return { 1, epoch, address }
end

local KEPT_TICKS = 600 -- committed ticks that readers who fell behind can still ask for

local function fortia_commit(keys, args)
  local deposed = not_leading(keys[1], args[1], args[2])
  if deposed then return deposed end
  local tick, committed = number(args[3]), redis.call('GET', keys[2])
  if not tick or not args[4] then return refuse('ERR', 'usage: 3 keys, holder, lease epoch, tick, record') end
  if committed and tick ~= number(committed) + 1 then return refuse('CONFLICT', 'committed tick is ' .. committed) end
  if not committed then redis.call('DEL', keys[3]) end
  redis.call('XADD', keys[3], 'MAXLEN', '~', KEPT_TICKS, args[3] .. '-0', 'pb', args[4])
  redis.call('SET', keys[2], args[3])
  return tick
end

redis.register_function('fortia_topology', fortia_topology)
redis.register_function('fortia_lease', fortia_lease)
redis.register_function('fortia_commit', fortia_commit)
