//! What has to be atomic at the server. Each script keeps to keys of one tag, so that it runs in a
//! Redis Cluster as well.

/// KEYS item; ARGV delta, stamp (8 bytes). Returns the new value as text, or an error that begins
/// with `TYPE` (and the type's sign) or `OVERFLOW` (and the value).
///
/// The number is added by INCRBY, since Lua's are floats; the item is put back if that fails.
pub(super) const ADD: &str = r"
local old = redis.call('GET', KEYS[1])
local head, text
if old then
  if string.byte(old) ~= 105 then return redis.error_reply('TYPE ' .. string.sub(old, 1, 1)) end
  local clock = struct.unpack('>I4', old, 18)
  head = 'i' .. ARGV[2] .. string.sub(old, 10, 21 + clock)
  text = string.sub(old, 22 + clock)
else
  head = 'i' .. ARGV[2] .. string.rep('\0', 12)
  text = '0'
end
redis.call('SET', KEYS[1], text, 'KEEPTTL')
local new = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(new) == 'table' then
  redis.call('SET', KEYS[1], old, 'KEEPTTL')
  return redis.error_reply('OVERFLOW ' .. text)
end
text = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], head .. text, 'KEEPTTL')
return text
";

/// KEYS what the move has done here, then pairs of places, from and to; ARGV milliseconds to
/// remember it, `look` or `move`. Moves all these items, or none: if one is at both places, it returns
/// minus the number of the pair, from 1. Else it returns how many were moved (`look`: would be): when
/// repeated, what it was the first time, and nothing moves.
pub(super) const TAKE: &str = r"
local done = redis.call('GET', KEYS[1])
if done then return tonumber(done) end
local found = 0
for i = 2, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    if redis.call('EXISTS', KEYS[i + 1]) == 1 then return -i / 2 end
    found = found + 1
  end
end
if ARGV[2] == 'look' then return found end
local moved = 0
for i = 2, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('RENAME', KEYS[i], KEYS[i + 1])
    moved = moved + 1
  end
end
redis.call('SET', KEYS[1], moved, 'PX', ARGV[1])
return moved
";

/// KEYS members; ARGV node, incarnation, lease in ms, `join` or `renew`. Returns 1, or 0 if another
/// incarnation has that name. Leases are in the server's own time.
pub(super) const LEASE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then
  local holder, till = string.match(held, '^(%x+) (%d+)$')
  if holder ~= ARGV[2] and (ARGV[4] == 'renew' or tonumber(till) > now) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + ARGV[3]))
return 1
";

/// KEYS members; ARGV node, incarnation. Gives the name up.
pub(super) const LEAVE: &str = r"
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and string.match(held, '^%x+') == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
";

/// KEYS members. Returns the names of those whose leases run, and forgets the others.
pub(super) const MEMBERS: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all, live = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], '%d+$')) > now then live[#live + 1] = all[i]
  else redis.call('HDEL', KEYS[1], all[i]) end
end
return live
";

/// KEYS none (one server only); ARGV a glob. Returns places and items in turn, all as of one
/// instant: nothing else runs meanwhile, so this is for snapshots only.
pub(super) const SNAPSHOT: &str = r"
local found, cursor, seen = {}, '0', {}
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
  cursor = page[1]
  for _, place in ipairs(page[2]) do
    if not seen[place] then
      seen[place] = true
      local item = redis.call('GET', place)
      if item then
        found[#found + 1] = place
        found[#found + 1] = item
      end
    end
  end
until cursor == '0'
return found
";
