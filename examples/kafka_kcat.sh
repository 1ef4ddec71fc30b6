#!/usr/bin/env bash
# A photo submitted as a plain Kafka record and its labels read from the events, with kcat alone (apt-get install kcat).
# Needs a service on Kafka with the model image_classification. docs/kafka-records.md explains each step.
#   examples/kafka_kcat.sh [BROKER [PHOTO]]
set -euo pipefail
broker=${1:-127.0.0.1:9092}
photo=${2:-$(dirname "$0")/samples/cat.jpg}
prefix=${FOREBAY_KAFKA_PREFIX:-forebay}
tenant=default model=image_classification
source=/examples/kcat event=$(date +%s)-$$-$RANDOM  # names this request: sent again with them, it is the same job

sha256() { sha256sum | cut -c1-64; }

# The id of the job that this record will be; events of it have the key `<tenant>/<id>`.
hash=$({ printf '%s\n' forebay.foreign.v1 "$tenant" "$model" event "$source" "$event"; sha256 <"$photo"; } | sha256)
variant=$(printf %x $((0x${hash:16:1} & 3 | 8)))
job=${hash:0:8}-${hash:8:4}-8${hash:13:3}-$variant${hash:17:3}-${hash:20:12}-${hash:32:16}

since=$((($(date +%s) - 60) * 1000))  # nothing of this job is older; a minute for clocks that differ
kcat -P -q -b "$broker" -t "$prefix.requests.$model.normal" \
    -H "ce_source=$source" -H "ce_id=$event" -H content-type=image/jpeg "$photo"
echo "submitted $job" >&2

# Each round reads the events since then to their end. The first final one decides; what may follow it says nothing.
final_event() {
    kcat -C -q -e -b "$broker" -t "$prefix.events" -o "s@$since" -f '%k\t%h\t%s\n' | awk -F '\t' -v key="$tenant/$job" '
        $1 == key && $2 ~ /ce_type=io\.forebay\.job\.(succeeded|failed|canceled|expired)\.v1/ && !found++ { print $2 "\t" $3 }'
}

for _ in $(seq 120); do
    final=$(final_event) || final=''  # kcat has said why; a broker that restarts is there again in a moment
    case $final in
        '') sleep 0.5 ;;
        *ce_type=io.forebay.job.succeeded.v1*) echo "${final#*$'\t'}"; exit ;;
        *) echo "not succeeded: $final" >&2; exit 1 ;;
    esac
done
echo "no result after a minute: is a worker running?" >&2
exit 1
