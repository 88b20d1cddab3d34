"""The scripts that move a shared breaker, each one indivisible step in Redis.

    {cb:NAME}           hash: state, generation, open_until, opened, successes
    {cb:NAME}:window    hash: calls per bucket of time; failures under f, slow calls under s
    {cb:NAME}:trial     sorted set: the permit of the half-open state and when its lease ends
    {cb:NAME}:events    stream: every transition, once; the last `KEPT_EVENTS`

The time is Redis' own (TIME, in milliseconds): no client's clock takes part. The generation of a
new state is that time, or one more than the last, so that it rises even after all keys were lost.
Every key expires when nobody calls any more. No command is newer than Redis 6.2.
"""

from __future__ import annotations

from labkit.breaker.rules import BUCKETS, KEPT_EVENTS

HELD_TTL_S = 30 * 86_400  # forced_open and disabled stay for so long after the last call
EVENTS_TTL_S = 7 * 86_400
LEAST_TTL_S = 3_600

# ARGV 1-6: what the caller knew (state, generation), time to live, open time, its cap, its jitter.
_READ = """
local STATE, WINDOW, TRIAL, EVENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local known_state, known_generation = ARGV[1], tonumber(ARGV[2])
local row = redis.call('hmget', STATE, 'state', 'generation', 'open_until', 'opened')
local state, generation = row[1], tonumber(row[2] or 0)
local open_until, opened = tonumber(row[3] or 0), tonumber(row[4] or 0)
"""

# What most calls ask, answered before anything else is done.
_USUAL = """
if state == 'closed' and known_generation <= generation then return {state, generation, '', 0} end
"""

_BEGIN = f"""
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function move(to, why)
  local wait = 0
  if to == 'open' then
    wait = math.ceil(math.min(ARGV[4] * 2 ^ math.min(opened, 30), ARGV[5]) * ARGV[6])
    open_until = now + wait
    opened = opened + 1
  elseif to ~= 'half-open' then
    opened = 0
  end
  generation = math.max(now, generation + 1)
  redis.call('del', WINDOW, TRIAL)
  redis.call('hset', STATE, 'state', to, 'generation', generation, 'open_until', open_until,
             'opened', opened, 'successes', 0)
  redis.call('pexpire', STATE, ARGV[3])
  redis.call('xadd', EVENTS, 'maxlen', {KEPT_EVENTS}, '*', 'before', state, 'after', to, 'why', why,
             'generation', generation, 'wait_ms', wait)
  redis.call('pexpire', EVENTS, {EVENTS_TTL_S * 1000})
  state = to
end

local function answer(trial, wait)
  if state == 'forced_open' or state == 'disabled' then
    redis.call('pexpire', STATE, {HELD_TTL_S * 1000})
  end
  if state == 'open' then wait = math.max(0, open_until - now) end
  return {{state, generation, trial, wait}}
end

-- Redis was restored from a copy that is older than what the caller saw: late results stay late.
if state and known_generation > generation then
  generation = known_generation
  redis.call('hset', STATE, 'generation', generation)
end

-- New, or its keys were lost: closed. If it was something else, that is an event.
if not state then
  local last = redis.call('xrevrange', EVENTS, '+', '-', 'count', 1)[1]
  state = last and last[2][4] or known_state
  generation = math.max(known_generation, last and tonumber(last[2][8]) or 0)
  if state == 'closed' then
    generation = math.max(now, generation + 1)
    redis.call('hset', STATE, 'state', state, 'generation', generation)
    redis.call('pexpire', STATE, ARGV[3])
  else
    move('closed', 'its keys were lost')
  end
end
"""

# ARGV 7-8: the lease of a trial, the name of this one.
ADMIT = (
    _READ
    + _USUAL
    + _BEGIN
    + """
if state == 'open' and now >= open_until then move('half-open', 'the open time is over') end
if state ~= 'half-open' then return answer('', 0) end
-- Whoever holds the permit may be dead: its lease ends by itself.
redis.call('zremrangebyscore', TRIAL, '-inf', now)
local holder = redis.call('zrange', TRIAL, 0, 0, 'withscores')
if #holder > 0 then return answer('', holder[2] - now) end
redis.call('zadd', TRIAL, now + ARGV[7], ARGV[8])
redis.call('pexpire', TRIAL, ARGV[3])
return answer(ARGV[8], 0)
"""
)

# ARGV 7-11: generation of the calls, their trial, calls, failures, slow calls.
# ARGV 12-16: window, least calls, failure rate, slow rate, successes to close.
RECORD = (
    _READ
    + _BEGIN
    + f"""
local calls, failures, slow = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local bad = failures > 0 or slow > 0
local bucket_ms = ARGV[12] / {BUCKETS}
local first = math.floor(now / bucket_ms) - {BUCKETS} + 1

local function seen()
  local sums, row = {{c = 0, f = 0, s = 0}}, redis.call('hgetall', WINDOW)
  for i = 1, #row, 2 do
    local kind, bucket = string.sub(row[i], 1, 1), tonumber(string.sub(row[i], 2))
    if bucket < first then
      redis.call('hdel', WINDOW, row[i])
    else
      sums[kind] = sums[kind] + row[i + 1]
    end
  end
  return sums
end

local function count()
  local bucket = string.format('%.0f', math.floor(now / bucket_ms))
  local here = redis.call('hincrby', WINDOW, 'c' .. bucket, calls)
  if failures > 0 then redis.call('hincrby', WINDOW, 'f' .. bucket, failures) end
  if slow > 0 then redis.call('hincrby', WINDOW, 's' .. bucket, slow) end
  -- Only a bad call may open it.
  if not bad and here > calls then return end
  -- A new bucket is the moment to drop old ones, and to say that somebody still calls.
  redis.call('pexpire', WINDOW, ARGV[3])
  redis.call('pexpire', STATE, ARGV[3])
  local sums = seen()
  if not bad or sums.c < tonumber(ARGV[13]) then return end
  if sums.f > 0 and sums.f / sums.c >= tonumber(ARGV[14]) then
    move('open', sums.f .. ' of ' .. sums.c .. ' calls failed')
  elseif sums.s > 0 and sums.s / sums.c >= tonumber(ARGV[15]) then
    move('open', sums.s .. ' of ' .. sums.c .. ' calls were slow')
  end
end

local function judge()
  redis.call('zrem', TRIAL, ARGV[8])
  if bad then return move('open', failures > 0 and 'a trial failed' or 'a trial was slow') end
  local successes = redis.call('hincrby', STATE, 'successes', calls)
  if successes >= tonumber(ARGV[16]) then move('closed', 'trials went well') end
end

-- The result of a call that began before the last transition says nothing about this state.
if tonumber(ARGV[7]) ~= generation then return answer('', 0) end
if state == 'closed' then count() elseif state == 'half-open' then judge() end
return answer('', 0)
"""
)

# ARGV 7-8: the new state, and why.
MOVE = _READ + _BEGIN + "move(ARGV[7], ARGV[8]) return answer('', 0)"

# Only asks: what the state is, without beginning or ending anything.
LOOK = _READ + _BEGIN + "return answer('', 0)"
