# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What it takes to register 1 GB with the device, by ibv_reg_mr() alone: pages, threads, slices, cold and warm memory.

about="Registration: milliseconds per GB"
ground_kind=rdma

prepare()
{
	mib=${RAMLIFT_BENCH_MIB:-$([[ $mode == testbed ]] && echo 256 || echo 1024)}
	cases=()
	local page slice threads
	for page in 4k 2m; do
		on A "$build/bench/bench_registration" --mib 2 --slice-mib 2 --page $page >/dev/null 2>"$logs/probe.log" ||
			{ note "pages of $page left out: $(sed 's/.*skipped: //' "$logs/probe.log")"; continue; }
		for slice in 2 16 64 256 1024; do
			((slice <= mib)) && cases+=("$page $slice 1 warm")
		done
		for threads in 2 4; do
			cases+=("$page 16 $threads warm")
		done
		cases+=("$page 16 1 cold" "$page 16 2 cold" "$page 256 1 cold")
	done
}

measure()
{
	local case page slice threads state json

	for case in "${cases[@]}"; do
		read -r page slice threads state <<<"$case"
		json=$(on A "$build/bench/bench_registration" --mib "$mib" --page "$page" --slice-mib "$slice" --threads "$threads" \
			$([[ $state == cold ]] && echo --cold)) || { [[ $? == 77 ]] && continue; return 1; }
		sample "$page.$state.${slice}m.t$threads" ms/GB "$(jq .register_ms_per_gb <<<"$json")"
	done
}

rows()
{
	local case page slice threads state

	for case in "${cases[@]}"; do
		read -r page slice threads state <<<"$case"
		row_value "$page pages, $state, slices of $slice MiB, threads: $threads" "$page.$state.${slice}m.t$threads"
	done
}

chart()
{
	local case page slice threads state names=()

	for case in "${cases[@]}"; do
		read -r page slice threads state <<<"$case"
		names+=("$page.$state.${slice}m.t$threads")
	done
	bars "Registration of 1 GB" "${names[@]}"
}
