# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The lanes' rate beside ib_write_bw's with as many queue pairs, the same bytes in all, and what a GB costs in CPU time of both
# processes. ib_write_bw sends one small buffer over and over, which stays in the CPU's cache; the lanes go through all memory.

about="Bulk rate: core/lanes.c and the RDMA transport, random memory, beside ib_write_bw"
ground_kind=rdma
rounds=3
sizes=(65536 262144 1048576)

prepare()
{
	mib=${RAMLIFT_BENCH_MIB:-$([[ $mode == testbed ]] && echo 128 || echo 1024)}
	read -ra lanes <<<"${RAMLIFT_BENCH_LANES:-1 2 4}"
}

# $1 queue pairs, $2 size: the peer
measure_peer()
{
	local rate cpu bytes=$((mib * rounds << 20))

	read -r rate cpu < <(ib_write_bw "$2" "$1" "$bytes") && [[ -n ${cpu:-} ]] || return 1
	sample "ib_write_bw.$(($2 >> 10))k.q$1" MiB/s "$rate"
	sample "ib_write_bw.$(($2 >> 10))k.q$1.cpu" s/GB "$(awk "BEGIN { print $cpu / ($bytes / 1e9) }")"
}

# $1 lanes, $2 pattern
measure_lanes()
{
	local json

	json=$(instrument lanes "" --lanes "$1" --mib "$mib" --rounds $rounds --pattern "$2") || return 1
	sample "lanes.$2.q$1" MiB/s "$(jq .mib_per_s <<<"$json")"
	sample "lanes.$2.q$1.cpu" s/GB "$(jq '([.source, .destination] | map(.cpu_user_ns + .cpu_system_ns) | add) / .bytes' <<<"$json")"
}

measure()
{
	local q size

	for q in "${lanes[@]}"; do
		for size in "${sizes[@]}"; do
			measure_peer "$q" "$size" || return 1
		done
		measure_lanes "$q" whole && measure_lanes "$q" 64k || return 1
	done
}

names_of()
{
	local q x
	for q in "${lanes[@]}"; do
		for x in "$@"; do
			echo "$x.q$q"
		done
	done
}

rows()
{
	local q best ours

	for q in "${lanes[@]}"; do
		best=$(best_of "ib_write_bw.64k.q$q" "ib_write_bw.256k.q$q" "ib_write_bw.1024k.q$q")
		row "whole memory, $q lanes, against ${best%.q*}" "lanes.whole.q$q" "$best" atleast ""
		row "64 KiB runs, $q lanes, against ib_write_bw 64 KiB" "lanes.64k.q$q" "ib_write_bw.64k.q$q" atleast ""
	done
	best=$(best_of $(names_of ib_write_bw.64k ib_write_bw.256k ib_write_bw.1024k))
	ours=$(best_of $(names_of lanes.whole))
	row "whole memory, best: $ours against $best" "$ours" "$best" atleast 0.95
	row "CPU a GB, both sides: the same two" "$ours.cpu" "$best.cpu" atmost 1.10
}

chart()
{
	bars "Bulk rate" $(names_of ib_write_bw.64k ib_write_bw.256k ib_write_bw.1024k lanes.64k lanes.whole)
}
