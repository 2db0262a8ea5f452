# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by bench/qemu and by figures with QEMU as the peer: a pair of paused QEMUs, A and B, whose memory is a file each in
# $memory, and QEMU's own migration between them. The caller sets $memory (a folder in /dev/shm), $mib, $prealloc (on|off),
# $downtime_limit_ms and $logs.

patience=120 # seconds
declare -A pid=() in=() out=() ended=() qemu=()

stop_qemus()
{
	for side in A B; do
		[[ -n ${pid[$side]:-} ]] || continue
		kill -KILL "${pid[$side]}"
		wait "${pid[$side]}"
		descriptor=${in[$side]}
		exec {descriptor}>&-
		descriptor=${out[$side]}
		exec {descriptor}>&-
		unset "pid[$side]"
	done 2>/dev/null
}

# $1 side: a paused QEMU with two monitors, one for this script (a pair of fifos) and one for ramlift.
start_qemu()
{
	local side=$1 line input output
	shift

	rm -f "$logs/$side".*
	mkfifo "$logs/$side.in" "$logs/$side.out"
	exec {input}<>"$logs/$side.in" {output}<>"$logs/$side.out"
	in[$side]=$input out[$side]=$output
	qemu-system-x86_64 -accel tcg -S -nodefaults -display none -m "$mib" -machine pc,memory-backend=ram \
		-object "memory-backend-file,id=ram,mem-path=$memory/$side,size=${mib}M,share=on,prealloc=$prealloc" \
		-chardev "pipe,id=bench,path=$logs/$side" -mon bench,mode=control \
		-qmp "unix:$logs/$side.qmp,server=on,wait=off" "$@" >"$logs/$side.log" 2>&1 &
	pid[$side]=$!
	read -r -t $patience -u "${out[$side]}" line || return 1 # the greeting: memory is there now
	qmp "$side" '{"execute":"qmp_capabilities"}' >/dev/null
}

# $1 side, $2 a command: prints its answer.
qmp()
{
	local line

	echo "$2" >&"${in[$1]}"
	while read -r -t $patience -u "${out[$1]}" line; do
		case $line in
		*'"event"'*) echo "$line" >>"$logs/$1.events" ;;
		*'"error"'*) echo "bench: side $1: $2: $line" >&2; return 1 ;;
		*) echo "$line"; return 0 ;;
		esac
	done
	echo "bench: side $1: no answer to $2" >&2
	return 1
}

# $1 side: wait until its migration is over; ended[side] is when, in microseconds.
await_end()
{
	local line

	while read -r -t $patience -u "${out[$1]}" line; do
		echo "$line" >>"$logs/$1.events"
		case $line in
		*MIGRATION*'"completed"'*)
			[[ $line =~ \"seconds\":\ ([0-9]+),\ \"microseconds\":\ ([0-9]+) ]]
			ended[$1]=$((BASH_REMATCH[1] * 1000000 + BASH_REMATCH[2]))
			return 0
			;;
		*MIGRATION*'"failed"'* | *MIGRATION*'"cancelled"'*) break ;;
		esac
	done
	echo "bench: the migration did not complete on side $1" >&2
	return 1
}

# $1 side, $2 capabilities as "name true, ...", $3 parameters
set_migration()
{
	local capabilities
	capabilities=$(sed -E 's/([a-z-]+) (true|false)/{"capability":"\1","state":\2}/g' <<<"events true${2:+, $2}")
	qmp "$1" "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[$capabilities]}}" >/dev/null &&
		qmp "$1" "{\"execute\":\"migrate-set-parameters\",\"arguments\":{$3}}" >/dev/null
}

# $1 URI, $2 capabilities, $3 more parameters: QEMU to QEMU.
move_by_qemu()
{
	local parameters="\"max-bandwidth\":1099511627776,\"downtime-limit\":$downtime_limit_ms$3"

	set_migration A "$2" "$parameters" && set_migration B "$2" "$parameters" || return 1
	qmp B "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"$1\"}}" >/dev/null || return 1
	began=${EPOCHREALTIME/./}
	qmp A "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"$1\"}}" >/dev/null && await_end A && await_end B
}

# A process's user + system time so far, in hundredths of a second; then the whole machine's.
process_ticks()
{
	local stat
	read -r stat <"/proc/$1/stat"
	read -ra stat <<<"${stat##*) }"
	echo $((stat[11] + stat[12]))
}

machine_ticks()
{
	local ticks # user nice system idle iowait irq softirq
	read -ra ticks </proc/stat
	echo $((ticks[1] + ticks[2] + ticks[3] + ticks[6] + ticks[7]))
}

# $1 rdma-pin-all, rdma, tcp (one stream) or tcp-N (N multifd channels), $2 address:port
move_kind()
{
	case $1 in
	rdma-pin-all) move_by_qemu "rdma:$2" "rdma-pin-all true" "" ;;
	rdma) move_by_qemu "rdma:$2" "rdma-pin-all false" "" ;;
	tcp) move_by_qemu "tcp:$2" "multifd false" "" ;;
	tcp-*) move_by_qemu "tcp:$2" "multifd true" ",\"multifd-channels\":${1#*-}" ;;
	esac
}

# For a figure: $memory with a random guest of $mib, $1 preallocated on|off, $2 downtime limit in ms.
prepare_qemu()
{
	prealloc=$1 downtime_limit_ms=$2
	[[ -n ${memory:-} ]] || memory=$(mktemp -d /dev/shm/bench-qemu.XXXXXX)
	head -c "${mib}M" /dev/urandom >"$memory/A"
	rm -f "$memory/B"
	fallocate -l "${mib}M" "$memory/B"
}

# $1 kind: moves the guest between two new QEMUs and compares its memory; samples of the total time, the downtime and CPU seconds,
# and $qemu with them.
measure_qemu()
{
	local kind=$1 side info
	local -A before=()

	dd if=/dev/zero of="$memory/B" bs=1M count="$mib" conv=notrunc status=none
	start_qemu B -incoming defer && start_qemu A || return 1
	for side in A B; do
		before[$side]=$(process_ticks "${pid[$side]}")
	done
	qemu_port=$((${qemu_port:-7600} + 1))
	move_kind "$kind" "$to:$qemu_port" || { tail -n 5 "$logs"/[AB].log >&2; stop_qemus; return 1; }
	sleep 0.3 # the clean-up belongs to it
	qemu[cpu_s]=0
	for side in A B; do
		qemu[cpu_s]=$(awk "BEGIN { print ${qemu[cpu_s]} + ($(process_ticks "${pid[$side]}") - ${before[$side]}) / 100 }")
	done
	info=$(qmp A '{"execute":"query-migrate"}')
	qemu[total_ms]=$(jq '.return."total-time"' <<<"$info")
	qemu[downtime_ms]=$(jq .return.downtime <<<"$info")
	stop_qemus
	cmp -s "$memory/A" "$memory/B" || { echo "bench: QEMU's $kind lost data" >&2; return 1; }
	sample "qemu.$kind" ms "${qemu[total_ms]}"
	sample "qemu.$kind.downtime" ms "${qemu[downtime_ms]}"
	sample "qemu.$kind.cpu" s/GB "$(awk "BEGIN { print ${qemu[cpu_s]} / ($mib * 1048576 / 1e9) }")"
}
