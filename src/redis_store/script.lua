-- Decides on the quota of one project and model, for all who ask. KEYS[1] is a string: a header, and a ring of slots of half a
-- second. ARGV[1] is packed by `script.rs`: the operation, the deadline, and what the operation needs.
--
-- A charge in slot k counts until the slot's end, 60 s, and a slack of 250 ms. So there are at most 122 slots that count, and
-- slot k stands at k % 122 of the ring. The ring holds slots `oldest` to `cur` - 1; the counts of slot `cur` stand in the header.
-- All else in the ring is rubbish. A key that nobody has charged yet has no ring.

local SLOT, COUNTS, RING, HEAD, TTL = 500, 60750, 122, 112, 62000
local U32, UNLIMITED, DAY = 4294967295, 9007199254740992, 93600
local MAGIC, FORMAT = 829507412, '<I4I4I8I8I8I8I4I4I8I8I8I8I8I8I8I4I4'
local DONE, FULL, CLOSED, LEARNING, LOST, LATE = 0, 1, 2, 3, 4, 5

local key, question = KEYS[1], ARGV[1]
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local floor, min, max = math.floor, math.min, math.max

-- Once: it moves inside of a script on some servers.
local time = redis.call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

local op, deadline = unpack('<I1I8', question)
if now >= deadline then
  return { LATE, now, 0 }
end

-- The slot that is charged, and the first that counts.
local slot, first = floor(now / SLOT), floor((now - COUNTS) / SLOT) + 1

-- The header. `id` is 0 while nobody has made the contents; there may be a closing all the same. `base` is that part of `today`
-- which a re-telling may repeat. `asked` is the time of the last question that was not too late.
local magic, id, cur, oldest, sum_r, sum_t, cur_r, cur_t, day_end, today, base, look, ends, learns, asked, day_counts
local head = redis.pcall('GETRANGE', key, 0, HEAD - 1)
if type(head) == 'string' and #head == HEAD then
  magic, id, cur, oldest, sum_r, sum_t, cur_r, cur_t, day_end, today, base, look, ends, learns, asked, day_counts =
    unpack(FORMAT, head)
end
if magic ~= MAGIC then
  if head ~= '' then
    call('DEL', key)
  end
  id, cur, oldest, sum_r, sum_t, cur_r, cur_t, day_end, today, base = 0, slot, slot, 0, 0, 0, 0, 0, 0, 0
  look, ends, learns, asked, day_counts = 0, 0, 0, 0, 0
end

-- True if the key's time to live has to be set.
local begins = false

local function save()
  call('SETRANGE', key, 0, pack(FORMAT, MAGIC, id, cur, oldest, sum_r, sum_t, cur_r, cur_t, day_end, today, base, look, ends,
    learns, asked, day_counts, 0))
  if begins then
    local ttl = TTL
    if day_counts == 1 then
      ttl = max(ttl, day_end * 1000 - now + 60000)
    end
    if ends > now then
      ttl = max(ttl, ends - now + 60000)
    end
    call('PEXPIRE', key, ttl)
  end
end

-- Reads `count` slots; nil if somebody else has shortened the string.
local function read(from, count)
  local at = from % RING
  local split = min(count, RING - at)
  local bytes = ''
  if split > 0 then
    bytes = call('GETRANGE', key, HEAD + at * 8, HEAD + (at + split) * 8 - 1)
  end
  if count > split then
    bytes = bytes .. call('GETRANGE', key, HEAD, HEAD + (count - split) * 8 - 1)
  end
  if #bytes == count * 8 then
    return bytes
  end
end

local function write(from, bytes)
  local at = from % RING
  local split = (RING - at) * 8
  if bytes ~= '' then
    call('SETRANGE', key, HEAD + at * 8, bytes:sub(1, split))
  end
  if #bytes > split then
    call('SETRANGE', key, HEAD, bytes:sub(split + 1))
  end
end

-- Empties the contents; a closing stays.
local function make(new_id, learn)
  id, cur, oldest, sum_r, sum_t, cur_r, cur_t = new_id, slot, slot, 0, 0, 0, 0
  day_end, today, base, asked, day_counts, begins = 0, 0, 0, 0, 0, true
  learns = 0
  if learn > 0 then
    learns = now + learn
  end
end

-- Moves the contents to the current time.
local function advance()
  if slot < cur then
    local back = cur - slot
    if back <= 2 then
      -- The clock went back a little: time stands still.
      slot, first = cur, cur - RING + 1
    else
      -- All charges count from now, and what lasts until a time lasts as long as it would have.
      sum_r, sum_t = min(sum_r, U32), min(sum_t, U32)
      cur, oldest, cur_r, cur_t, begins = slot, slot, sum_r, sum_t, true
      back = back * SLOT
      look, ends, learns, asked = max(look - back, 0), max(ends - back, 0), max(learns - back, 0), max(asked - back, 0)
      return
    end
  end
  if first > cur then
    cur, oldest, sum_r, sum_t, cur_r, cur_t, begins = slot, slot, 0, 0, 0, 0, true
    return
  end
  if first > oldest then
    local gone = read(oldest, first - oldest)
    if not gone then
      return make(0, 0)
    end
    for at = 1, #gone, 8 do
      local r, t = unpack('<I4I4', gone, at)
      sum_r, sum_t = max(sum_r - r, 0), max(sum_t - t, 0)
    end
    oldest = first
  end
  if slot > cur then
    write(cur, pack('<I4I4', cur_r, cur_t) .. ('\0'):rep((slot - cur - 1) * 8))
    cur, cur_r, cur_t, begins = slot, 0, 0, true
  end
end

-- Begins the asker's day, if it is another than the contents'. A later one begins; an earlier one, whose asker's clock is late,
-- counts in the contents' day. An end that is more than 26 h away is the fault of a clock: it neither ends a day nor stays.
local function turn(asked_end)
  local farthest = now / 1000 + DAY
  if asked_end > day_end then
    if asked_end <= farthest or day_end > farthest or day_end * 1000 <= now then
      day_end, today, base, day_counts, begins = asked_end, 0, 0, 0, true
    end
  elseif day_end > farthest and asked_end <= farthest and asked_end * 1000 > now then
    day_end, begins = asked_end, true
  end
end

if op == 1 then -- take
  local known, fresh, r, t, wish_r, wish_t, max_r, max_t, max_day, asked_end, learn =
    unpack('<I4I4I4I4I4I4I8I8I8I8I4', question, 10)
  if known ~= 0 and known ~= id then
    return { LOST, now, id }
  end
  if id ~= 0 and (slot ~= cur or first > oldest) then
    advance()
  end
  if id == 0 then
    if known ~= 0 then
      return { LOST, now, 0 }
    end
    make(fresh, learn)
  end
  asked = now
  if asked_end ~= day_end then
    turn(asked_end)
  end
  if max_day < UNLIMITED and day_counts == 0 then
    day_counts, begins = 1, true
  end

  if learns > now then
    save()
    return { LEARNING, now, id, sum_r, sum_t, today, learns - now }
  end
  local looks = 0
  if ends > now then
    if look > now then
      save()
      return { CLOSED, now, id, sum_r, sum_t, today, look - now, ends - now }
    end
    looks = 1
  end

  local over_r, over_t = sum_r + r - max_r, sum_t + t - max_t
  local dimension, wait = -1, 0
  if over_r > 0 or over_t > 0 then
    -- The oldest charges fall out first. An amount over its limit waits for all of them.
    local ring = (read(oldest, cur - oldest) or '') .. ('\0'):rep(128)
    local last_r, last_t = cur, cur
    local at, k = 1, oldest
    while (over_r > 0 or over_t > 0) and k < cur and at + 127 <= #ring do
      local counts = { unpack('<I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4I4', ring, at) }
      for nth = 1, 32, 2 do
        if over_r > 0 then
          over_r = over_r - counts[nth]
          if over_r <= 0 then
            last_r = k
          end
        end
        if over_t > 0 then
          over_t = over_t - counts[nth + 1]
          if over_t <= 0 then
            last_t = k
          end
        end
        k = k + 1
      end
      at = at + 128
    end
    if sum_r + r > max_r then
      dimension, wait = 0, last_r * SLOT + COUNTS - now
    end
    if sum_t + t > max_t and last_t * SLOT + COUNTS - now > wait then
      dimension, wait = 1, last_t * SLOT + COUNTS - now
    end
  end
  if today + r > max_day then
    -- The asker's clock may be late, and so its new day.
    local rest = max(day_end * 1000 - now, 100)
    if rest > wait then
      dimension, wait = 2, rest
    end
  end
  if dimension >= 0 then
    save()
    return { FULL, now, id, sum_r, sum_t, today, dimension, wait }
  end

  local lease_r, lease_t = 0, 0
  if looks == 1 then
    look = min(now + 5000, ends)
  else
    if wish_r > 0 then
      lease_r = min(wish_r, max_r - sum_r - r, max_day - today - r)
    end
    if wish_t > 0 then
      lease_t = min(wish_t, max_t - sum_t - t)
    end
  end
  r, t = r + lease_r, t + lease_t
  today = today + r
  r, t = min(r, U32 - cur_r), min(t, U32 - cur_t)
  cur_r, cur_t, sum_r, sum_t = cur_r + r, cur_t + t, sum_r + r, sum_t + t
  save()
  return { DONE, now, id, sum_r, sum_t, today, cur, lease_r, lease_t, looks }
end

if op == 2 then -- correct
  local known, charged, asked_end, back, before, after = unpack('<I4I8I8I4I4I4', question, 10)
  if id == 0 or known ~= id then
    return { DONE, now, id }
  end
  if charged >= oldest and charged <= cur then
    local bytes, r, t
    if charged == cur then
      r, t = cur_r, cur_t
    else
      bytes = read(charged, 1)
      if not bytes then
        return { DONE, now, id }
      end
      r, t = unpack('<I4I4', bytes)
    end
    local new_r, new_t = max(r - back, 0), min(max(t + after - before, 0), U32)
    sum_r, sum_t = max(sum_r + new_r - r, 0), max(sum_t + new_t - t, 0)
    if bytes then
      write(charged, pack('<I4I4', new_r, new_t))
    else
      cur_r, cur_t = new_r, new_t
    end
  end
  if asked_end == day_end then
    today = max(today - back, 0)
  end
  save()
  return { DONE, now, id }
end

if op == 3 then -- tell
  local known, fresh, reset, asked_end, day_all, day_untold, learn, all, untold =
    unpack('<I4I4I1I8I8I8I4I4I4', question, 10)
  local at, count, repeats = 55, all, UNLIMITED
  if id ~= 0 and (slot ~= cur or first > oldest) then
    advance()
  end
  if id == 0 or (known == id and reset == 1) then
    -- The day's count of another server is nearly right: what is told adds to it only where it tells more.
    local old_end, old_today = day_end, today
    make(fresh, learn)
    day_end = asked_end
    if old_end == asked_end then
      today, base = old_today, old_today
    end
  else
    if asked_end ~= day_end then
      turn(asked_end)
    end
    if known == id then
      at, count = at + all * 16, untold
      -- Nobody has asked for a second: all were away, and each has something to tell.
      if now - asked > 1000 and learns <= now then
        learns = now + learn
      end
      day_all, repeats = day_untold, 0
    end
  end

  if asked_end == day_end then
    local repeated = min(base, day_all, repeats)
    base, today = base - repeated, min(today + day_all - repeated, UNLIMITED / 2)
    if today > 0 then
      day_counts = 1
    end
  end

  if count > 0 then
    local rs, ts, begin = {}, {}, first - 1
    for nth = 1, cur - begin do
      rs[nth], ts[nth] = 0, 0
    end
    local ring = read(oldest, cur - oldest) or ''
    for byte = 1, #ring, 8 do
      local nth = oldest - begin + (byte - 1) / 8
      rs[nth], ts[nth] = unpack('<I4I4', ring, byte)
    end
    rs[cur - begin], ts[cur - begin] = cur_r, cur_t
    for _ = 1, count do
      local charged, r, t = unpack('<I8I4I4', question, at)
      at = at + 16
      if charged >= first then
        local nth = min(charged, cur) - begin
        r, t = min(r, U32 - rs[nth]), min(t, U32 - ts[nth])
        rs[nth], ts[nth], sum_r, sum_t = rs[nth] + r, ts[nth] + t, sum_r + r, sum_t + t
      end
    end
    local slots = {}
    for nth = 1, cur - begin - 1 do
      slots[nth] = pack('<I4I4', rs[nth], ts[nth])
    end
    write(first, table.concat(slots))
    oldest, cur_r, cur_t = first, rs[cur - begin], ts[cur - begin]
  end
  begins = true
  save()
  return { DONE, now, id }
end

if op == 4 then -- close
  local new_look, new_ends = unpack('<I8I8', question, 10)
  if ends <= now then
    look, ends = 0, 0
  end
  look, ends, begins = max(look, now + new_look), max(ends, now + new_ends), true
  save()
  return { DONE, now, id }
end

-- open
if ends > 0 then
  look, ends = 0, 0
  save()
end
return { DONE, now, id }
