# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Every second page dirty: nothing can be merged, each write is one page. The peer posts lists of 32 as well.

about="Scattered pages: every second page of 4 KiB dirty, beside ib_write_bw -s 4096 -l 32"
ground_kind=rdma
rounds=3

prepare()
{
	mib=${RAMLIFT_BENCH_MIB:-$([[ $mode == testbed ]] && echo 128 || echo 1024)}
	read -ra lanes <<<"${RAMLIFT_BENCH_LANES:-1 2 4}"
}

measure()
{
	local q rate cpu json bytes=$((mib * rounds << 19))

	for q in "${lanes[@]}"; do
		read -r rate cpu < <(ib_write_bw 4096 "$q" "$bytes" -l 32) && [[ -n ${cpu:-} ]] || return 1
		sample "ib_write_bw.4k.q$q" MiB/s "$rate"
		sample "ib_write_bw.4k.q$q.cpu" s/GB "$(awk "BEGIN { print $cpu / ($bytes / 1e9) }")"
		json=$(instrument lanes "" --lanes "$q" --mib "$mib" --rounds $rounds --pattern 4k) || return 1
		sample "lanes.4k.q$q" MiB/s "$(jq .mib_per_s <<<"$json")"
		sample "lanes.4k.q$q.cpu" s/GB "$(jq '([.source, .destination] | map(.cpu_user_ns + .cpu_system_ns) | add) / .bytes' <<<"$json")"
	done
}

rows()
{
	local q ours=() peers=() best

	for q in "${lanes[@]}"; do
		row "every second page, $q lanes and queue pairs" "lanes.4k.q$q" "ib_write_bw.4k.q$q" atleast ""
		ours+=("lanes.4k.q$q") peers+=("ib_write_bw.4k.q$q")
	done
	best=$(best_of "${ours[@]}")
	row "every second page, best of each" "$best" "$(best_of "${peers[@]}")" atleast 0.90
	row "CPU a GB, both sides: the same two" "$best.cpu" "$(best_of "${peers[@]}").cpu" atmost ""
}

chart()
{
	local q names=()
	for q in "${lanes[@]}"; do
		names+=("ib_write_bw.4k.q$q" "lanes.4k.q$q")
	done
	bars "Scattered pages of 4 KiB" "${names[@]}"
}
