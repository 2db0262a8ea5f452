# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# CPU time of harvesting KVM's dirty rings and its dirty log, an entry and a second, for dirty rates of a guest of 1 GiB and for
# sizes of a guest at one rate: the log's cost grows with the guest, the ring's only with what is dirty.

about="Dirty tracking: dirty ring beside dirty log, CPU time of the harvest"
ground_kind=local
needs=(kvm)
rates=(1000 10000 30000 100000)
sizes=(1 4 16) # GiB, at the first rate

prepare()
{
	local available
	available=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
	fitting=()
	for gib in "${sizes[@]}"; do
		((gib < available)) && fitting+=("$gib")
	done
	return 0
}

measure()
{
	local rate kind json gib

	for rate in "${rates[@]}"; do
		for kind in ring log; do
			json=$("$build/bench/bench_tracking" --mode $kind --rate "$rate") || return 1
			sample "$kind.entry.$rate" ns/entry "$(jq .cpu_ns_per_entry <<<"$json")"
			sample "$kind.rate.$rate" us/s "$(jq .cpu_us_per_s <<<"$json")"
			sample "$kind.longest.$rate" us "$(jq .longest_harvest_us <<<"$json")"
		done
	done
	for gib in "${fitting[@]}"; do
		for kind in ring log; do
			json=$("$build/bench/bench_tracking" --mode $kind --rate "${rates[0]}" --mib $((gib << 10)) \
				--hot-mib 64 --fill $((gib < 8 ? 50 : 5))) || return 1
			sample "$kind.size.$gib" us/s "$(jq .cpu_us_per_s <<<"$json")"
		done
	done
}

# $1 kind of sample, rest: x. Between which two the ring begins to cost more than the log (or less).
crossover()
{
	local what=$1 x last= state="" now
	shift
	for x in "$@"; do
		read -ra ring <<<"$(spread "ring.$what.$x")"
		read -ra log <<<"$(spread "log.$what.$x")"
		[[ -n ${ring[0]:-} && -n ${log[0]:-} ]] || continue
		now=$(awk "BEGIN { print (${ring[0]} < ${log[0]}) ? \"ring\" : \"log\" }")
		[[ -z $state || $now == "$state" ]] || { echo "between $last and $x the cheaper one changes from $state to $now"; return; }
		state=$now last=$x
	done
	echo "the $state is the cheaper one throughout"
}

rows()
{
	local x

	for x in "${rates[@]}"; do
		row "CPU an entry, $x pages/s of 1 GiB, ring against log" "ring.entry.$x" "log.entry.$x" atmost ""
	done
	for x in "${rates[@]}"; do
		row "longest harvest call, $x pages/s, ring against log" "ring.longest.$x" "log.longest.$x" atmost ""
	done
	for x in "${fitting[@]}"; do
		row "CPU a second, ${rates[0]} pages/s of $x GiB, ring against log" "ring.size.$x" "log.size.$x" atmost ""
	done
	echo "Crossover by rate (pages/s): $(crossover rate "${rates[@]}")"
	echo "Crossover by size (GiB): $(crossover size "${fitting[@]}")"
}

chart()
{
	lines "Harvest of a guest of 1 GiB" "pages dirtied a second" log ring.rate="dirty ring" log.rate="dirty log"
}
