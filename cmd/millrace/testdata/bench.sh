#!/bin/sh
# Starts a broker with a folder of its own and prints one JSON line for each load.
set -eu
bin=$1
dir=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -rf "$dir"' EXIT
printf 'api_keys:\n- {id: bench, secret: secret-of-the-bench, role: administrator}\n' >"$dir/bootstrap.yaml"
"$bin" serve --data "$dir/data" --mqtt-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
  --bootstrap-file "$dir/bootstrap.yaml" --ports-file "$dir/ports.json" --log-level warn &
pid=$!
until [ -s "$dir/ports.json" ]; do sleep 0.1; done
port() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" "$dir/ports.json"; }
load() {
  MILLRACE_URL="http://$(port http)" MILLRACE_KEY=bench.secret-of-the-bench \
    "$bin" bench "$@" --mqtt "$(port mqtt)" --user bench --password secret-of-the-bench --pid "$pid"
}
load mqtt --qos 0
load mqtt --qos 1
load mqtt --qos 2
load http --connections 16
load http --batch 100 --queue bench
load consume --messages 100000 --queue consume --topic consume
load wake --queue wake --topic wake
