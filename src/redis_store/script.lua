-- Decides on the quota of one project and model, for all who ask. KEYS[1] is a string: a header, and a ring of slots of half a
-- second. ARGV[1] is packed by `script/wire.rs`: the operation, the deadline, and what the operation needs. The reply is an array
-- of integers: a code, the time, the contents' id, and what the operation has to say.
--
-- A charge in slot k counts until the slot's end, 60 s, and a slack of 250 ms. So there are at most 122 slots that count, and
-- slot k stands at k % 122 of the ring. The ring holds slots `oldest` to `cur` - 1; the counts of slot `cur` stand in the header.
-- All else in the ring is rubbish. A key of which only one slot was charged has no ring.
--
-- The script is one piece: functions over its locals would be made anew for each question, which costs a take a third more.

local SLOT, COUNTS, RING, HEAD, TTL = 500, 60750, 122, 112, 62000
local U32, UNLIMITED, LONG_DAY = 4294967295, 9007199254740992, 93600
local MAGIC, FORMAT = 829507412, '<I4I4I8I8I8I8I4I4I8I8I8I8I8I8I8I4I4'
local TAKE, CORRECT, TELL, CLOSE, OPEN = 1, 2, 3, 4, 5
local DONE, FULL, CLOSED, LEARNING, LOST, LATE = 0, 1, 2, 3, 4, 5

local key, question = KEYS[1], ARGV[1]
local call, pack, unpack, floor, min, max = redis.call, struct.pack, struct.unpack, math.floor, math.min, math.max

-- Once: it moves inside of a script on some servers.
local time = redis.call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

local op, deadline, known, fresh, asked_end, learn = unpack('<I1I8I4I4I8I4', question)
if now >= deadline then
  return { LATE, now, 0 }
end

-- The slot that is charged, and the first that counts.
local slot, first = floor(now / SLOT), floor((now - COUNTS) / SLOT) + 1

-- The header. `id` is 0 while nobody has made the contents; there may be a closing all the same. `base` is that part of `today`
-- which a telling may repeat. `asked` is the time of the last question. `begins` is true if the time to live has to be set.
local magic, id, cur, oldest, sum_r, sum_t, cur_r, cur_t, day_end, today, base, look, ends, learns, asked, day_counts
local begins = false
local head = redis.pcall('GETRANGE', key, 0, HEAD - 1)
if type(head) == 'string' and #head == HEAD then
  magic, id, cur, oldest, sum_r, sum_t, cur_r, cur_t, day_end, today, base, look, ends, learns, asked, day_counts =
    unpack(FORMAT, head)
end
if magic ~= MAGIC then
  if head ~= '' then
    call('DEL', key)
  end
  id, look, ends, begins = 0, 0, 0, true
end

-- Reads `count` slots of the ring. They are too few where somebody else has shortened the string.
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
  return bytes
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

if op == TAKE and known ~= 0 and known ~= id then
  return { LOST, now, id }
elseif op == CORRECT and (id == 0 or known ~= id) or op == OPEN and ends == 0 then
  return { DONE, now, id }
end

-- === the time moves (from here on, all is written) ===

if id ~= 0 and slot < cur then
  local back = cur - slot
  if back <= 2 then
    -- The clock went back a little: time stands still.
    slot, first = cur, cur - RING + 1
  else
    -- All charges count from now, and what lasts until a time lasts no longer than it would have.
    sum_r, sum_t, begins = min(sum_r, U32), min(sum_t, U32), true
    cur, oldest, cur_r, cur_t = slot, slot, sum_r, sum_t
    back = back * SLOT
    look, ends, learns, asked = max(look - back, 0), max(ends - back, 0), max(learns - back, 0), max(asked - back, 0)
  end
end
if id ~= 0 and first > cur then
  cur, oldest, sum_r, sum_t, cur_r, cur_t, begins = slot, slot, 0, 0, 0, 0, true
elseif id ~= 0 and (first > oldest or slot > cur) then
  local gone, count = '', max(first - oldest, 0)
  if count > 0 then
    gone, oldest = read(oldest, count), first
  end
  if #gone < count * 8 then
    id = 0
  else
    for at = 1, #gone, 8 do
      local r, t = unpack('<I4I4', gone, at)
      sum_r, sum_t = max(sum_r - r, 0), max(sum_t - t, 0)
    end
    if slot > cur then
      write(cur, pack('<I4I4', cur_r, cur_t) .. ('\0'):rep((slot - cur - 1) * 8))
      cur, cur_r, cur_t, begins = slot, 0, 0, true
    end
  end
end

-- === contents are made, and days begin ===

if op == TAKE and known ~= 0 and id == 0 then
  return { LOST, now, id }
end
local resets = op == TELL and known == id and unpack('<I1', question, 30) == 1
if id == 0 or resets then
  -- The day's count that another server has is nearly right: a telling adds to it only where it tells more.
  if resets and id ~= 0 and asked_end == day_end then
    base = today
  else
    today, base = 0, 0
  end
  id, cur, oldest, sum_r, sum_t, cur_r, cur_t = 0, slot, slot, 0, 0, 0, 0
  learns, asked, day_end, day_counts, begins = 0, 0, 0, 0, true
  if op == TAKE or op == TELL then
    id, day_end = fresh, asked_end
    if learn > 0 then
      learns = now + learn
    end
  end
elseif asked_end ~= day_end and (op == TAKE or op == TELL) then
  -- A later day begins. In an earlier one the asker's clock is late, and it counts in the contents' day. An end that is more than
  -- 26 h away is the fault of a clock: it neither ends a day nor stays.
  local farthest = now / 1000 + LONG_DAY
  if asked_end > day_end then
    if asked_end <= farthest or day_end > farthest or day_end * 1000 <= now then
      day_end, today, base, day_counts, begins = asked_end, 0, 0, 0, true
    end
  elseif day_end > farthest and asked_end <= farthest and asked_end * 1000 > now then
    day_end, begins = asked_end, true
  end
end

-- === the operation ===

local reply
if op == TAKE then
  local r, t, wish_r, wish_t, max_r, max_t, max_day = unpack('<I4I4I4I4I8I8I8', question, 30)
  asked = now
  if max_day < UNLIMITED and day_counts == 0 then
    day_counts, begins = 1, true
  end
  local over_r, over_t = sum_r + r - max_r, sum_t + t - max_t
  if learns > now then
    reply = { LEARNING, now, id, sum_r, sum_t, today, learns - now }
  elseif ends > now and look > now then
    reply = { CLOSED, now, id, sum_r, sum_t, today, look - now, ends - now }
  elseif over_r > 0 or over_t > 0 or today + r > max_day then
    -- The oldest charges fall out first. An amount over its limit waits for all of them.
    local dimension, wait = 0, 0
    if over_r > 0 or over_t > 0 then
      local last_r, last_t = over_r > 0 and cur or 0, over_t > 0 and cur or 0
      local ring = read(oldest, cur - oldest) .. ('\0'):rep(128)
      local at, k = 1, oldest
      while k < cur and (over_r > 0 or over_t > 0) and at + 127 <= #ring do
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
      dimension = last_t > last_r and 1 or 0
      wait = max(last_r, last_t) * SLOT + COUNTS - now
    end
    if today + r > max_day then
      -- The asker's clock may be late, and so its new day.
      local rest = max(day_end * 1000 - now, 100)
      if rest > wait then
        dimension, wait = 2, rest
      end
    end
    reply = { FULL, now, id, sum_r, sum_t, today, dimension, wait }
  else
    local lease_r, lease_t, looks = 0, 0, 0
    if ends > now then
      looks, look = 1, min(now + 5000, ends)
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
    reply = { DONE, now, id, sum_r, sum_t, today, cur, lease_r, lease_t, looks }
  end

elseif op == CORRECT then
  local charged, back, before, after = unpack('<I8I4I4I4', question, 30)
  if charged >= oldest and charged <= cur then
    local r, t = cur_r, cur_t
    if charged < cur then
      r, t = unpack('<I4I4', read(charged, 1) .. '\0\0\0\0\0\0\0\0')
    end
    local new_r, new_t = max(r - back, 0), min(max(t + after - before, 0), U32)
    sum_r, sum_t = max(sum_r + new_r - r, 0), max(sum_t + new_t - t, 0)
    if charged < cur then
      write(charged, pack('<I4I4', new_r, new_t))
    else
      cur_r, cur_t = new_r, new_t
    end
  end
  if asked_end == day_end then
    today = max(today - back, 0)
  end
  reply = { DONE, now, id }

elseif op == TELL then
  local _, day_all, day_untold, all, untold = unpack('<I1I8I8I4I4', question, 30)
  local at, count, repeats = 55, all, min(base, day_all)
  if known == id then
    at, count, repeats, day_all = at + all * 16, untold, 0, day_untold
    -- Nobody has asked for a second: all were away, and each has something to tell.
    if now - asked > 1000 and learns <= now then
      learns = now + learn
    end
  end
  if asked_end == day_end then
    base, today = base - repeats, min(today + day_all - repeats, UNLIMITED / 2)
    if today > 0 then
      day_counts = 1
    end
  end
  if count > 0 then
    local rs, ts, begin = {}, {}, first - 1
    for nth = 1, cur - begin do
      rs[nth], ts[nth] = 0, 0
    end
    local ring = read(oldest, cur - oldest)
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
  reply = { DONE, now, id }

elseif op == CLOSE then
  local new_look, new_ends = unpack('<I8I8', question, 30)
  if ends <= now then
    look, ends = 0, 0
  end
  look, ends, begins = max(look, now + new_look), max(ends, now + new_ends), true
  reply = { DONE, now, id }

else
  look, ends = 0, 0
  reply = { DONE, now, id }
end

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
return reply
